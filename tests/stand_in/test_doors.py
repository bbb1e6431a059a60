"""The other doors to a guest than a run: a shell in one, and templates that are made ahead."""

from __future__ import annotations

import json

import pytest

from tests.stand_in.machine import StandIn
from tests.tinylab import write_lab

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("words", "user"), [(["--root"], "root"), ([], "student")])
def test_a_shell_is_opened_with_the_guests_own_keys_and_gives_its_exit_status(machine: StandIn, words: list[str], user: str) -> None:
    write_lab(machine.labs, "aa", "guest")
    shell = machine.start("shell", "aa", "--cold", *words)
    out, err = shell.communicate(timeout=60)
    assert shell.returncode == 5, out + err
    lines = out.splitlines()
    (asked,) = (line for line in lines if line.startswith("ssh "))
    assert asked.endswith(f" {user}@127.0.0.1")
    assert "-F none " in asked
    assert "StrictHostKeyChecking=yes" in asked
    port = asked.split(" -p ")[1].split()[0]
    assert lines[lines.index("key 600") + 1] == "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert any(line.startswith(f"known [127.0.0.1]:{port} ssh-ed25519 ") for line in lines)
    assert f"{user}@main: the lab's scripts are in /run/vmlab/lab" in out
    assert list((machine.root / "cache/runs").iterdir()) == [], "the guest is gone, and the keys with it"


def test_a_guest_that_the_lab_has_not_is_named_before_anything_starts(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    done = machine.run("shell", "aa", "--guest", "other")
    assert done.returncode == 2
    assert "has no guest named 'other'" in done.stderr
    assert "it has: main" in done.stderr
    assert not (machine.root / "cache/templates").exists()


def test_templates_are_made_ahead_once_and_removed_when_asked(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    made = machine.run("template build", "aa")
    assert made.returncode == 0, made.stdout + made.stderr
    (row,) = json.loads(machine.run("template list", "--json").stdout)
    assert f"aa, guest main: {row['entry']}" in made.stdout
    again = machine.run("template build", "aa")
    assert f"aa, guest main: {row['entry']}" in again.stdout
    assert "Making a template" not in again.stdout
    assert "512 MiB, 1 CPU, systemd, tcg" in machine.run("template list").stdout
    assert machine.run("template prune", "--all").returncode == 0
    assert "there are none" in machine.run("template list").stdout
    assert machine.run("clean").stdout.startswith("removed 0 working directories")


def test_a_guest_that_cannot_be_saved_makes_no_template_and_says_why(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    machine.trouble("unsaved")
    done = machine.run("template build", "aa")
    assert done.returncode == 3
    assert "State blocked by a stand-in" in done.stderr
    assert "Traceback" not in done.stderr
    assert "there are none" in machine.run("template list").stdout
