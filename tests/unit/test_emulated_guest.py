"""A guest that Bochs emulates, as lab.yaml declares it and an experiment sees it; the emulator and the guest that packs are played."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.stage import stage
from vmlab.bench import GUEST_LAB_DIR, GUEST_PROBE_DIR, Bench, Guest
from vmlab.errors import HostError, ScriptError, UsageError
from vmlab.guest import start
from vmlab.guest.intel import bochs
from vmlab.guest.intel.appliance import Appliance, ApplianceStore, Job
from vmlab.guest.intel.bochs import Bochs, EmulatedPc
from vmlab.guest.intel.console import Said
from vmlab.guest.machine import BootRequest
from vmlab.guest.setting import Setting
from vmlab.image.image import Image
from vmlab.lab.collection import read_lab
from vmlab.lab.guests import GuestRequest
from vmlab.lab.lab import Lab
from vmlab.progress import Progress
from vmlab.run.prebuild import make_templates
from vmlab.run.request import Job as RunJob
from vmlab.run.request import prepare
from vmlab.run.session import Choice, share_of
from vmlab.run.shell import shell_guest

FOUND = Bochs("2.7", True, Path("/bios"), Path("/vgabios"))
LAB_YAML = """
title: T
summary: S
claims: {X1: {says: "It is so.", stands: holds}}
guests:
  main: {memory_mib: 512}
  intel: {emulator: bochs, memory_mib: 768, cpus: 1, when: {host: [ept]}}
parameters:
  host: {type: text, default: none, choices: [none, ept], help: "which"}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "labs" / "aa"
    (folder / "guest").mkdir(parents=True)
    (folder / "lab.yaml").write_text(LAB_YAML)
    (folder / "experiment.py").write_text("def experiment(bench):\n    pass\n")
    (folder / "checks.py").write_text(
        "from vmlab.lab import check, passed\n\n\n@check(points=1, claim='X1')\ndef a(evidence):\n    '''It is so.'''\n"
        "    return passed('It is.', measured='1')\n"
    )
    (folder / "guest" / "look.py").write_text("print({})\n")
    (folder / "guest" / "look.sh").write_text("echo {}\n")
    return read_lab(folder)


# --- lab.yaml -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"cpus": 1}, {"cpus": 1, "memory_mib": 2048}, {"cpus": 1, "images": ["debian-13"], "memory_mib": 512}])
def test_what_it_may_be_given(given: dict[str, Any]) -> None:
    assert GuestRequest.model_validate({"emulator": "bochs", **given}).emulator == "bochs"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "must have cpus: 1"),
        ({"cpus": 2}, "must have cpus: 1"),
        ({"cpus": 1, "memory_mib": 511}, "memory_mib from 512 to 2048"),
        ({"cpus": 1, "memory_mib": 2049}, "memory_mib from 512 to 2048"),
        ({"cpus": 1, "virtualisation": "svm"}, "has no virtualisation"),
        ({"cpus": 1, "init": "sysv"}, "has no init:"),
        ({"cpus": 1, "init": "systemd"}, "has no init:"),
        ({"cpus": 1, "kernel_args": "quiet"}, "has no kernel_args:"),
        ({"cpus": 1, "start": "cold"}, "has no start:"),
        ({"cpus": 1, "internet": True}, "has no internet:"),
        ({"cpus": 1, "needs": ["gcc"]}, "has no needs:"),
        ({"cpus": 1, "cloud_init": {"packages": []}}, "has no cloud_init:"),
        ({"cpus": 1, "small_pages": True}, "has no small_pages:"),
        ({"cpus": 1, "init": "sysv", "internet": True}, "has no init and no internet: it may have images, memory_mib, cpus: 1 and when"),
    ],
)
def test_what_it_cannot_be_given_is_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GuestRequest.model_validate({"emulator": "bochs", **given})


def test_every_other_key_is_refused() -> None:
    """A key that a guest may have some day is refused here until somebody says otherwise."""
    fine = {"emulator", "images", "memory_mib", "cpus", "when"}
    for name, field in GuestRequest.model_fields.items():
        if name not in fine:
            with pytest.raises(ValueError, match=f"has no {name}"):
                GuestRequest.model_validate(
                    {"emulator": "bochs", "cpus": 1, name: field.get_default(call_default_factory=True, validated_data={})}
                )


# --- before a run -------------------------------------------------------------------------------------------------------------------


def job(lab: Lab, tmp_path: Path, host: str) -> RunJob:
    return RunJob(id="aa", lab="aa", reports=tmp_path, command="x", labs=(lab.directory.parent,), given={"host": host})


def test_the_slot_counts_it_like_any_other(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bochs, "find", lambda: FOUND)
    without, with_it = (prepare(job(lab, tmp_path, host)).need for host in ("none", "ept"))
    assert list(with_it.guests) == ["main", "intel"]
    assert with_it.cpus - without.cpus == 1
    assert with_it.memory_bytes - without.memory_bytes > 768 << 20


def test_a_run_that_needs_it_ends_before_it_begins_where_there_is_no_bochs(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bochs, "which", lambda _: None)
    prepare(job(lab, tmp_path, "none"))
    prepare(job(lab, tmp_path, "ept"), here=False)
    with pytest.raises(HostError, match=r"guest intel of the lab aa cannot run here: Bochs, .* is not installed") as caught:
        prepare(job(lab, tmp_path, "ept"))
    assert caught.value.hint == bochs.INSTALL


def test_there_is_no_shell_in_it(lab: Lab) -> None:
    with (
        pytest.raises(UsageError, match="there is no shell in guest intel of the lab aa") as caught,
        shell_guest(lab, Choice(), Progress(), "intel"),
    ):
        pass
    assert caught.value.hint == "use --guest main"


def test_no_template_is_made_of_it(lab: Lab) -> None:
    definition = lab.definition.model_copy(update={"guests": {"intel": lab.definition.guests["intel"]}})
    assert list(make_templates(Lab("aa", lab.directory, definition), Choice(), Progress())) == []


# --- in an experiment -----------------------------------------------------------------------------------------------------------------


class Played:
    """What would be booted, and what that says."""

    def __init__(self) -> None:
        self.said = Said("6.12.0", "a-boot-id", 0, '{"n": 1}\n{"n": 2}\n', "")
        self.jobs: list[Job] = []
        self.memory_mib = 0
        self.packers: list[BootRequest] = []
        self.running: list[str] = []

    def run(self, pc: EmulatedPc, job: Job, setting: Setting) -> tuple[Said, list[str]]:
        assert not self.running, "the guest that packs takes the emulated one's place, and is gone before it"
        self.jobs.append(job)
        self.memory_mib = pc.memory_mib
        setting.console_log.write_text("@vmlab ...")
        return self.said, ["bochs", "-q"]

    def start(self, stack: contextlib.ExitStack, request: BootRequest, _setting: Setting, templates: object) -> object:
        assert templates is None
        self.packers.append(request)
        self.running.append(request.name)
        stack.callback(self.running.clear)
        return SimpleNamespace()

    def get(self, _image: Image, packer: Callable[[], contextlib.AbstractContextManager[Any]], _deadline: object) -> Appliance:
        with packer():
            return Appliance(Path("/vmlinuz"), Path("/initrd"))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(bochs, "find", lambda: FOUND)

    def run(pc: EmulatedPc, job: Job, setting: Setting) -> tuple[Said, list[str]]:
        return made.run(pc, job, setting)

    monkeypatch.setattr(EmulatedPc, "run", run)
    monkeypatch.setattr(ApplianceStore, "get", lambda _, *given: made.get(*given))
    monkeypatch.setattr(start, "start", made.start)
    return made


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[Bench]:
    image = Image("debian-13", "0" * 64, tmp_path, tmp_path / "disk", tmp_path / "vmlinuz", None, "", {}, "debian", {})
    images: Mapping[str, Image] = {"main": image, "intel": image}
    with stage(tmp_path, images) as here:
        yield Bench(lab, here, {"host": "ept"})


@pytest.fixture
def guest(bench: Bench, played: Played) -> Guest:
    return bench.guest("intel")


def test_what_packs_is_no_larger_than_what_the_slot_has_for_it(lab: Lab, guest: Guest, played: Played) -> None:
    (packer,) = played.packers
    share = share_of(lab.definition.guests["intel"])
    assert (packer.memory_mib << 20, packer.cpus) == (share.memory_bytes, share.cpus)
    assert played.running == []


def test_a_script_is_a_boot_with_the_same_result_as_in_any_guest(guest: Guest, played: Played, bench: Bench) -> None:
    result = guest.script("look.py", "a b", 7, input="given")
    assert (result.records, result.stderr) == ([{"n": 1}, {"n": 2}], "")
    (job,) = played.jobs
    assert (list(job.argv), job.cwd, job.stdin) == (["python3", "-u", "./look.py", "a b", "7"], GUEST_LAB_DIR, b"given")
    assert {f"{GUEST_LAB_DIR}/look.py", f"{GUEST_PROBE_DIR}/kvm/__main__.py"} <= set(job.files)
    assert played.memory_mib == 768
    (part,) = bench._here.notebook.guests
    assert (part.name, part.boot_id, part.kernel, part.argv, part.memory_bytes) == (
        "intel",
        "a-boot-id",
        "6.12.0",
        ["bochs", "-q"],
        768 << 20,
    )
    assert guest.accelerator == "Bochs 2.7"
    assert guest.console() == "@vmlab ..."
    bench.wait(0.01, "it does not run, and cannot have died")
    assert bench.guest("intel") is guest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 3, "stderr": "Traceback ..."}, "the guest script guest/look.py failed with exit status 3"),
        ({"stdout": ""}, "printed nothing"),
        ({"stdout": "hello\n"}, "is not JSON"),
        ({"stdout": "[1]\n"}, "is not an object"),
        ({"stdout": '{"n": 1}\n' * 500_000}, "printed more than 4194304 bytes"),
    ],
)
def test_a_script_that_breaks_is_an_error_as_in_any_guest(change: dict[str, Any], words: str, guest: Guest, played: Played) -> None:
    played.said = dataclasses.replace(played.said, **change)
    with pytest.raises(ScriptError, match=words) as caught:
        guest.script("look.py")
    assert "guest/look.py" in caught.value.message
    assert "vmlab shell" not in caught.value.hint
    assert "doctor" not in caught.value.hint


def test_a_probe_is_a_boot_too_and_its_record_is_held_to_its_schema(guest: Guest, played: Played) -> None:
    record = (Path(__file__).with_name("kvm_records") / "ept-bochs-6.12.json").read_text()
    played.said = dataclasses.replace(played.said, stdout=record)
    assert guest.probe("kvm")["judged"]["kind"] == "nested"
    assert played.jobs[-1].cwd == GUEST_PROBE_DIR
    played.said = dataclasses.replace(played.said, stdout=record.replace('"vmx"', "7"))
    lying = guest.probe("kvm")
    assert lying["judged"]["kind"] == "unknown"
    assert lying["error"]["text"].startswith("the record is malformed: claim.flags")
    played.said = dataclasses.replace(played.said, status=1)
    with pytest.raises(ScriptError, match="the kvm probe failed in guest intel"):
        guest.probe("kvm")


@pytest.mark.parametrize(
    "call",
    [
        lambda guest: guest.run("true"),
        lambda guest: guest.read_text("/etc/os-release"),
        lambda guest: guest.put(Path("/etc/passwd"), "/x"),
        lambda guest: guest.get("/x", Path(os.devnull)),
        lambda guest: guest.outside(),
        lambda guest: guest.kvm_statistics(),
        lambda guest: guest.memory,
        lambda guest: guest.freeze(),
        lambda guest: guest.start("look.py").__enter__(),
        lambda guest: guest.wait_for_console("x"),
    ],
)
def test_all_else_is_refused_in_words(call: Callable[[Guest], object], guest: Guest, played: Played) -> None:
    with pytest.raises(UsageError, match="guest intel is emulated by Bochs, and there is no way into it") as caught:
        call(guest)
    assert "script() and probe()" in caught.value.hint
    assert played.jobs == []


def test_what_cannot_be_run_in_it_is_refused_before_a_boot(guest: Guest, played: Played, bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"look\.sh cannot be run in guest intel"):
        guest.script("look.sh")
    with pytest.raises(UsageError, match=r"no guest script named none\.py"):
        guest.script("none.py")
    with pytest.raises(UsageError, match="there is no probe named 'kwm'; did you mean 'kvm'"):
        guest.probe("kwm")
    with pytest.raises(UsageError, match="there is no probe named"):
        bench.probe("kwm")
    assert played.jobs == []


def test_it_has_no_cloud_init(bench: Bench, played: Played) -> None:
    with pytest.raises(UsageError, match="there is no cloud-init in it"):
        bench.guest("intel", cloud_init={"packages": []})
    assert played.packers == []
