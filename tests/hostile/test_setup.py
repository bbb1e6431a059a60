"""Set-up on machines where it cannot be done: two lines, exit status 2, nothing half-made.

Each machine is a directory of programs that stands in for PATH: links to the ordinary ones, and scripts that play apt-get, sudo, id
or python3. The checkout is a copy with a table of packages of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDINARY = [
    "sh",
    "cat",
    "cksum",
    "cut",
    "dirname",
    "basename",
    "env",
    "flock",
    "grep",
    "head",
    "mktemp",
    "rm",
    "sed",
    "sort",
    "tail",
    "tr",
    "cp",
    "touch",
]
PACKAGES = "# probe package purpose\nno-such-program-a  package-a  does a\n/no/such/file  package-b  does b\nsh  package-c  is there\n"
NAMED = "package-a package-b"


class Machine:
    """A checkout and a PATH."""

    def __init__(self, root: Path) -> None:
        self.checkout = root / "a checkout"
        self.bin = root / "bin"
        (self.checkout / "runner/host").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "runner/host/install.sh", self.checkout / "runner/host/install.sh")
        (self.checkout / "runner/packages.txt").write_text(PACKAGES)
        (self.checkout / "runner/packages-test.txt").write_text("no-such-program-t  package-t  tests\n")
        (self.checkout / "pyproject.toml").write_text("[project]\nname = 'nothing'\n")
        for name in ORDINARY:
            (self.bin / name).symlink_to(shutil.which(name) or "")
        self.program("id", "echo 1000")
        self.program("python3", f'exec {sys.executable} "$@"')

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def setup(self, what: str = "run") -> tuple[int, list[str]]:
        done = subprocess.run(
            ["sh", "runner/host/install.sh", what],
            cwd=self.checkout,
            env={"PATH": str(self.bin), "HOME": str(self.checkout), "TMPDIR": str(self.checkout)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == "", "set-up must leave standard output to vmlab"
        return done.returncode, done.stderr.splitlines()

    def left_behind(self) -> list[str]:
        return sorted(path.name for path in self.checkout.iterdir() if path.name not in {"runner", "pyproject.toml"})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def two_lines(machine: Machine, what: str = "run") -> tuple[str, str]:
    status, lines = machine.setup(what)
    assert status == 2
    told = [line for line in lines if "installing system packages" not in line]
    assert len(told) == 2, lines
    assert all(line.startswith("vmlab: ") for line in told)
    assert machine.left_behind() == []
    return told[0], told[1]


def test_no_apt(machine: Machine) -> None:
    wrong, remedy = two_lines(machine)
    assert wrong == f"vmlab: missing system packages: {NAMED} (and this machine has no apt-get)"
    assert f"sudo apt-get install {NAMED}" in remedy


def test_no_sudo(machine: Machine) -> None:
    machine.program("apt-get", "exit 0")
    wrong, remedy = two_lines(machine)
    assert NAMED in wrong
    assert remedy == f"vmlab: ask an administrator to run: apt-get install {NAMED}"


def test_sudo_wants_a_password_and_nobody_is_there(machine: Machine) -> None:
    machine.program("apt-get", "exit 0")
    machine.program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    wrong, remedy = two_lines(machine)
    assert wrong == f"vmlab: missing system packages: {NAMED} (sudo wants a password)"
    assert f"sudo apt-get install {NAMED}" in remedy


def test_no_network(machine: Machine) -> None:
    machine.program("id", "echo 0")
    failing = "echo \"E: Failed to fetch http://x  Temporary failure resolving 'x'\" >&2; exit 100"
    machine.program("apt-get", f'echo "$@" >>{machine.bin}/calls; {failing}')
    wrong, remedy = two_lines(machine)
    assert NAMED in wrong
    assert "Temporary failure resolving 'x'" in wrong
    assert f"apt-get install {NAMED}" in remedy
    assert "sudo" not in remedy
    update, install = (machine.bin / "calls").read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith(f"install -y --no-install-recommends {NAMED}")


def test_apt_says_it_worked_but_it_did_not(machine: Machine) -> None:
    machine.program("id", "echo 0")
    machine.program("apt-get", "exit 0")
    assert "apt-get said nothing" in two_lines(machine)[0]


def test_the_tests_packages_are_named_too(machine: Machine) -> None:
    assert "package-a package-b package-t" in two_lines(machine, "test")[0]


def test_python_too_old(machine: Machine) -> None:
    # Answers as Python 3.10 does: the version test fails, the version is told.
    machine.program("python3", "case $2 in *version_info*) exit 1 ;; *) echo is 3.10.12 ;; esac")
    wrong, remedy = two_lines(machine)
    assert wrong == "vmlab: Python 3.11 or newer is needed; python3 here is 3.10.12"
    assert "make PYTHON=" in remedy


def test_no_python(machine: Machine) -> None:
    (machine.bin / "python3").unlink()
    assert "python3 here is missing" in two_lines(machine)[0]


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    machine.program("python3", "exit 1")
    machine.program("python3.12", f'exec {sys.executable} "$@"')
    assert NAMED in two_lines(machine)[0]


def test_python_without_venv_asks_for_its_package(machine: Machine) -> None:
    machine.program("python3", f'case $2 in *ensurepip*) exit 1 ;; esac; exec {sys.executable} "$@"')
    assert f"{NAMED} python3-venv" in two_lines(machine)[0]


def test_venv_that_cannot_be_made_leaves_nothing(machine: Machine) -> None:
    (machine.checkout / "runner/packages.txt").write_text("")
    machine.program("python3", f'case $1 in -m) mkdir .venv; echo "disk full"; exit 1 ;; esac; exec {sys.executable} "$@"')
    status, lines = machine.setup()
    assert (status, len(lines), machine.left_behind()) == (2, 3, [])
    assert "disk full" in lines[1]


MAKES_VENVS = r"""
case "$*" in
*"-m venv"*)
    echo venv >>"$HOME/../bin/calls"
    mkdir -p .venv/bin
    printf '#!%s/.venv/bin/python\n' "$PWD" >.venv/bin/pip
    cp "$HOME/../bin/venv-python" .venv/bin/python ;;
*) exec PYTHON "$@" ;;
esac
"""
IN_A_VENV = r"""
case "$*" in
*"pip install"*)
    echo pip >>"$HOME/../bin/calls"
    PIP
    printf '#!%s/.venv/bin/python\n' "$PWD" >.venv/bin/vmlab
    chmod +x .venv/bin/vmlab ;;
esac
"""


def a_venv_that_counts(machine: Machine, *, pip: str = ":") -> None:
    """A python3 whose ``-m venv`` makes the least that set-up believes in, and which writes down each call."""
    (machine.checkout / "runner/packages.txt").write_text("sh package-c is there\n")
    for name in ("mkdir", "chmod"):
        (machine.bin / name).symlink_to(shutil.which(name) or "")
    machine.program("venv-python", IN_A_VENV.replace("PIP", pip))
    machine.program("python3", MAKES_VENVS.replace("PYTHON", sys.executable))


def calls(machine: Machine) -> list[str]:
    path = machine.bin / "calls"
    told = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return told


def test_the_second_run_does_nothing_until_something_changes(machine: Machine) -> None:
    a_venv_that_counts(machine)
    assert machine.setup() == (0, ["vmlab: installing Python packages into .venv"])
    assert calls(machine) == ["venv", "pip"]

    assert machine.setup() == (0, [])
    assert calls(machine) == []

    os.utime(machine.checkout / "pyproject.toml")
    assert machine.setup() == (0, []), "a new time without new contents is no change"

    (machine.checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert machine.setup()[0] == 0
    assert calls(machine) == ["pip"]

    assert machine.setup("lint") == (0, ["vmlab: installing Python packages into .venv with [test]"])
    assert calls(machine) == ["pip"]
    assert machine.setup() == (0, [])


def test_a_moved_or_broken_venv_is_made_again(machine: Machine) -> None:
    a_venv_that_counts(machine)
    machine.setup()
    calls(machine)

    moved = machine.checkout.with_name("moved")
    machine.checkout.rename(moved)
    machine.checkout = moved
    assert machine.setup()[0] == 0
    assert calls(machine) == ["venv", "pip"]

    (machine.checkout / ".venv/bin/python").unlink()
    assert machine.setup()[0] == 0
    assert calls(machine) == ["venv", "pip"]


def test_pip_that_fails_leaves_nothing(machine: Machine) -> None:
    a_venv_that_counts(machine, pip='echo "ERROR: No matching distribution found for click" >&2; exit 1')
    status, lines = machine.setup()
    assert (status, machine.left_behind()) == (2, [])
    assert lines[-2] == "vmlab: pip could not install the Python packages: ERROR: No matching distribution found for click"
    assert lines[-1].startswith("vmlab: ")
