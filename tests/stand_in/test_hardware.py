"""Drives, networks and files of a lab's own, from lab.yaml to a guest, whose QEMU emulates nothing."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.stand_in.machine import StandIn
from tests.stand_in.test_run import guest_lab, leftovers, seen

pytestmark = pytest.mark.timeout(120)

HARDWARE = """
networks: {wire: {}}
"""


def hardware_lab(machine: StandIn, body: str) -> Path:
    folder = guest_lab(machine, body)
    text = (folder / "lab.yaml").read_text().replace("cpus: 1}", "cpus: 1, networks: [wire], disks: {data: {size_mib: 64}}}")
    (folder / "lab.yaml").write_text(text + textwrap.dedent(HARDWARE))
    return folder


def test_booted_or_cloned_a_guest_has_a_fresh_drive_and_is_on_its_network(machine: StandIn) -> None:
    hardware_lab(
        machine,
        """
        disk = guest.disk("data")
        seen["found"] = disk.find(b"written")
        disk.write(1 << 20, b"written")
        seen["at"] = disk.find(b"written")
        seen["address"] = guest.address("wire")
        with bench.network("wire").losing(50):
            seen["sent"] = bench.network("wire").statistics()["sent"]
        """,
    )
    for start in ("cold", "clone", "clone"):
        done = machine.run("run", "aa", *(["--cold"] if start == "cold" else []))
        assert done.returncode == 0, done.stdout + done.stderr
        (guest,) = machine.report("aa")["guests"]
        assert (guest["start"], guest["fallback"]) == (start, "")
        found = seen(machine)
        assert (found["found"], found["at"], found["address"], found["sent"]) == (None, 1 << 20, "10.77.1.1", 0)
        assert any(word.startswith("virtio-blk-pci,drive=drive-data,serial=data") for word in guest["argv"])
        assert any(word.startswith("socket,id=net1,fd=") for word in guest["argv"])
    assert leftovers(machine) == []


def test_a_guest_that_writes_to_its_drive_while_it_boots_is_not_cloned(machine: StandIn) -> None:
    hardware_lab(machine, 'seen["found"] = guest.disk("data").find(b"by cloud-init")')
    machine.trouble("writes")
    done = machine.run("run", "aa")
    assert done.returncode == 0, done.stdout + done.stderr
    (guest,) = machine.report("aa")["guests"]
    assert (guest["start"], guest["fallback"]) == (
        "cold",
        "the drive data was written to while the guest booted, and a clone gets a fresh one",
    )
    # What it wrote is there: it was booted, and the drive is its own.
    assert seen(machine)["found"] == 0
    assert not list((machine.root / "cache/templates").glob("*/manifest.json"))


MISTAKES = {
    'guest.disk("dat")': "guest main has no disk named 'dat'",
    "guest.disk().read(0, 1)": "the root disk cannot be read",
    'guest.address("wires")': "guest main is on no network named 'wires'",
    'guest.packets("wires")': "guest main is on no network named 'wires'",
    # (A name that can be read in the file would be found before the run.)
    'bench.network("wi" + "res")': "declares no network named 'wires'",
    'guest.write_text("relative", "x")': "names no file in the guest",
    'guest.write_text("/tmp/", "x")': "names no file in the guest",
    'guest.write_text("/.", "x")': "names no file in the guest",
    'guest.write_text("/tmp/x", "\\ud800")': "is no UTF-8",
    'guest.write_text("/tmp/x", "x", 0o10000)': "is no file's mode",
    'guest.run("true", user="nobody\\n")': "the guest has no user",
}


def test_a_mistake_of_the_experiments_is_told_in_one_sentence(machine: StandIn) -> None:
    tries = "".join(
        f"try:\n    {mistake}\nexcept Exception as exc:\n    seen[{str(number)!r}] = [type(exc).__name__, exc.message, exc.hint]\n"
        for number, mistake in enumerate(MISTAKES)
    )
    hardware_lab(machine, tries)
    assert machine.run("run", "aa", "--cold").returncode == 0
    for number, says in enumerate(MISTAKES.values()):
        kind, message, hint = seen(machine)[str(number)]
        assert kind in ("UsageError", "ScriptError")
        assert says in message
        assert hint
        assert "\n" not in message


def test_a_file_is_written_in_one_step_whatever_is_in_it(machine: StandIn) -> None:
    hardware_lab(
        machine,
        r"""
        text = "it's a \"text\" with $(echo all) of it\n\\ and \x00 \u00fc\n" + "x" * 100000
        guest.write_text("/tmp/a file", text, 0o600)
        guest.write_text("/tmp/a file", text + "again", 0o640)
        inside = Path(guest.machine.directory) / "inside" / "tmp"
        seen["same"] = (inside / "a file").read_text() == text + "again"
        seen["mode"] = (inside / "a file").stat().st_mode & 0o7777
        try:
            guest.write_text("/tmp/none/x", "x")
        except Exception as exc:
            seen["refused"] = str(exc)
        seen["files"] = sorted(each.name for each in inside.iterdir())
        """,
    )
    done = machine.run("run", "aa", "--cold")
    assert done.returncode == 0, done.stdout + done.stderr
    found = seen(machine)
    assert (found["same"], found["mode"]) == (True, 0o640)
    assert found["refused"] == "x cannot be written: the guest has no directory /tmp/none"
    assert found["files"] == [".keep", "a file"]


def test_a_processor_that_cannot_be_had_makes_it_not_observable(machine: StandIn) -> None:
    folder = guest_lab(machine, "")
    text = (folder / "lab.yaml").read_text().replace("cpus: 1}", "cpus: 1, cpu: {pcid: true}}")
    (folder / "lab.yaml").write_text(text)
    machine.trouble("exits")
    done = machine.run("run", "aa", "--cold")
    report = machine.report("aa")
    assert report["run"]["error"] is None
    assert "gives no processor with pcid: true: a stand-in that was told to end" in report["run"]["unsuitable"]
    assert "not-observable" in done.stdout
