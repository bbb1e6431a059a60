"""The probe as a process: that it answers on this machine, ends in time, and is asked once a boot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmlab.host import probe
from vmlab.host.kvm import claims
from vmlab.probes.kvm import KvmRecord, judge
from vmlab.probes.kvm_record import Claim, Failure


def opens() -> bool:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError:
        return False
    return True


needs_kvm = pytest.mark.skipif(not opens(), reason="/dev/kvm does not open here")


@needs_kvm
def test_this_machine_is_told_apart() -> None:
    """What can be known beforehand: without vmx and svm there is no hardware that could run a guest."""
    record = probe.run_probe()
    found = judge(record)
    assert record.error is None
    assert record.api_version == 12
    if not {"vmx", "svm"} & set(claims.read()["flags"]):
        assert found.kind == "emulated"
        assert (found.emulated_per_iteration or 0) > 1
    else:
        assert found.kind in {"nested", "shadow", "unknown"}
        assert found.usable


def test_a_device_that_is_not_there() -> None:
    record = probe.run_probe("/dev/kvm-that-is-not-there")
    assert str(record.error) == "open /dev/kvm-that-is-not-there failed: ENOENT, No such file or directory"
    assert not judge(record).usable


def test_a_device_that_is_closed_to_us(tmp_path: Path) -> None:
    """A directory cannot be opened for writing by anyone, not even by root."""
    assert "EISDIR" in str(probe.run_probe(str(tmp_path)).error)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sleep 60", "did not finish within"),
        ("echo no; exit 3", "failed with exit status 3"),
        ("echo hello", "not JSON"),
        ("echo '[1]'", "not an object"),
        ("head -c 2000000 /dev/zero", "it printed 2000000 bytes"),
        (":", "not JSON"),
    ],
)
def test_a_child_that_hangs_or_prints_garbage_is_a_record_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    child = tmp_path / "python"
    child.write_text(f"#!/bin/sh\n{script}\n")
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    began = time.monotonic()
    record = probe.run_probe(patience_s=1)
    assert words in str(record.error)
    assert not judge(record).usable
    assert time.monotonic() - began < 30, "it waited for the child's sleep"


def test_the_watchdog_inside_ends_a_guest_that_never_halts() -> None:
    """KVM_RUN that does not come back, as a wait that a signal interrupts."""
    code = """
import contextlib, json, time
from vmlab.host.kvm import __main__ as probe
probe.interface.opened = lambda path: contextlib.nullcontext(0)
probe.interface.ask = lambda *_: 12
probe.tiny_guest.create = lambda _: contextlib.nullcontext(type("Guest", (), {"counts": True}))
probe.measurements.measure = lambda _: (time.sleep(60) for _ in range(2))
print(json.dumps(probe.probe(limit_s=1)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=probe.KVM.package.parents[2], capture_output=True, timeout=30, check=True)
    assert json.loads(done.stdout)["error"] == {"step": "compute", "errno": "", "text": "not done after 1 s"}


def numbered(number: int, error: Failure | None = None) -> KvmRecord:
    return KvmRecord(claim=Claim(), api_version=number, phases={}, error=error)


def test_the_probe_is_run_once_a_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [numbered(1, error=Failure(step="KVM_CREATE_VM")), numbered(2), numbered(3)]
    monkeypatch.setattr(probe, "run_probe", lambda: records.pop(0))

    def ask() -> int:
        number = probe.probe_once_a_boot(tmp_path).api_version
        assert number is not None
        return number

    assert ask() == 1
    assert ask() == 2, "a failure was remembered"
    assert ask() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kvm-probe.json"]
    monkeypatch.setattr(probe, "_key", lambda: "another boot")
    assert ask() == 3


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"key": 1}', '{"key": "KEY", "record": 7}'])
def test_what_is_remembered_wrongly_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    (tmp_path / "kvm-probe.json").write_text(kept.replace("KEY", probe._key()))
    monkeypatch.setattr(probe, "run_probe", lambda: numbered(1))
    assert probe.probe_once_a_boot(tmp_path) == numbered(1)


def test_the_key_knows_boot_modules_and_parameters(tmp_path: Path) -> None:
    parameter = tmp_path / "sys/module/kvm_amd/parameters/npt"
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    keys = {probe._key(tmp_path)}
    for path, text in ((parameter, "1"), (parameter, "0"), (boot, "a"), (boot, "b")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        keys.add(probe._key(tmp_path))
    assert len(keys) == 5
    assert probe._key(tmp_path) in keys
