"""What a lab asks of a guest's processor, and whether it can be had."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tests.unit.test_qemu_argv import SPEC, option
from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import UnsuitableProcessor
from vmlab.guest import processor
from vmlab.guest.processor import ORDINARY, Processor
from vmlab.guest.qemu import argv
from vmlab.host.view import HostView
from vmlab.process import CommandError

Accelerator = Literal["kvm", "tcg"]
PCID = """qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]
qemu-system-x86_64: TCG doesn't support requested features
"""


@pytest.mark.parametrize(
    ("wanted", "tcg", "kvm"),
    [
        (ORDINARY, "max,-avx,-avx2", "host"),
        (Processor(la57=False), "max,-avx,-avx2,-la57", "host,-la57"),
        (Processor(la57=True, pcid=False), "max,-avx,-avx2,+la57,-pcid", "host,+la57,-pcid"),
        (Processor(physical_bits=40), "max,-avx,-avx2,phys-bits=40", "host,host-phys-bits=off,phys-bits=40"),
    ],
)
def test_what_qemu_is_asked_for(wanted: Processor, tcg: str, kvm: str) -> None:
    kinds: tuple[Accelerator, Accelerator] = ("tcg", "kvm")
    found = [option(argv(replace(SPEC, accelerator=kind, cpu_options=wanted.options(kind))), "-cpu") for kind in kinds]
    assert found == [[tcg], [kvm]]


def host(tmp_path: Path, bits: int = 46) -> HostView:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\naddress sizes\t: {bits} bits physical, 48 bits virtual\n")
    return HostView(root=tmp_path)


def test_what_the_accelerator_has_not_is_told_in_its_words_before_anything_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def refuses(command: list[str], *, deadline: Deadline, **given: bytes) -> None:
        asked.append(command)
        assert b"quit" in given["input"]
        raise CommandError("qemu-system-x86_64 failed with exit status 1", detail=PCID)

    monkeypatch.setattr(process, "run", refuses)
    with pytest.raises(UnsuitableProcessor) as caught:
        processor.require(Processor(pcid=True), "tcg", Deadline(10))
    assert caught.value.message == (
        "the accelerator tcg gives no processor with pcid: true: TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]"
    )
    assert option(asked[0], "-cpu") == ["max,-avx,-avx2,+pcid,enforce"]


def test_more_physical_bits_than_the_hosts_are_refused_under_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(process, "run", lambda command, **_: asked.append(command))
    view = host(tmp_path)
    with pytest.raises(UnsuitableProcessor, match="physical_bits: 47: this machine's own has 46"):
        processor.require(Processor(physical_bits=47), "kvm", Deadline(10), view)
    processor.require(Processor(physical_bits=46), "kvm", Deadline(10), view)
    processor.require(Processor(physical_bits=47), "tcg", Deadline(10), view)
    assert len(asked) == 2


def test_who_asks_for_nothing_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("QEMU was started"))
    processor.require(ORDINARY, "kvm", Deadline(10))


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_qemu_itself_is_asked() -> None:
    """(It is started, and runs no guest.)"""
    processor.require(Processor(la57=False, pcid=False, physical_bits=40), "tcg", Deadline(60))
    processor.require(Processor(la57=True), "tcg", Deadline(60))
    # No x86 processor has so few: QEMU's own bounds are 32 and 52.
    with pytest.raises(UnsuitableProcessor, match=r"physical_bits: 20: .*phys-bits"):
        processor.require(Processor(physical_bits=20), "tcg", Deadline(60))
