"""The command line with real guests: two runs at once, an interrupted one, and a disk that fills up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.guest.conftest import LAB, world_of
from vmlab.errors import HostError, RunError
from vmlab.guest import boot
from vmlab.image.image import Image

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("runs")]


def start(reports: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The lab of faults, as a user would run it."""
    labs = reports.parent / "labs"
    labs.mkdir(exist_ok=True)
    if not (labs / "faults").exists():
        (labs / "faults").symlink_to(LAB)
    argv = [sys.executable, "-u", "-m", "vmlab", "run", "faults", "--labs", str(labs), "--reports", str(reports), *words]
    return subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.usefixtures("debian13", "debian12")
def test_two_runs_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    quiet, talks_json = start(reports, "--quiet"), start(reports, "--json", "--image", "debian-12")
    (out, err), (document, other_err) = quiet.communicate(timeout=600), talks_json.communicate(timeout=600)
    assert (quiet.returncode, talks_json.returncode) == (0, 0), err + other_err
    assert len(out.splitlines()) == 1
    assert "pass, 2/2 points" in out
    assert {check["verdict"] for check in json.loads(document)["checks"]} == {"pass"}
    directories = [path for path in (reports / "faults").iterdir() if not path.is_symlink()]
    assert len(directories) == 2
    assert all((path / "report.html").exists() and (path / "console.log").stat().st_size > 0 for path in directories)


@pytest.mark.usefixtures("debian13")
def test_a_lab_whose_programs_the_image_lacks_is_not_observable_in_it(tmp_path: Path) -> None:
    shutil.copytree(LAB, tmp_path / "labs" / "faults")
    definition = tmp_path / "labs" / "faults" / "lab.yaml"
    definition.write_text(definition.read_text().replace("main: {", "main: {needs: [strace, no-such-program], "))
    done = start(tmp_path / "reports", "--json")
    document, err = done.communicate(timeout=600)
    report = json.loads(document)
    assert done.returncode == 0, err
    assert {check["verdict"] for check in report["checks"]} == {"not-observable"}
    assert report["run"]["error"] is None
    for check in report["checks"]:
        assert "no-such-program" in check["rationale"]
        assert "strace" not in check["rationale"]


@pytest.mark.usefixtures("debian13")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    reports = tmp_path / "reports"
    run = start(reports, "--cold")
    assert run.stdout is not None
    for line in run.stdout:
        if "waiting for sshd" in line:
            break
    guests = [child for child in psutil.Process(run.pid).children(recursive=True) if "vmlab" in child.name()]
    assert len(guests) == 1
    work = Path(
        next(word for word in guests[0].cmdline() if word.endswith("disk.qcow2,format=qcow2,cache=unsafe,discard=unmap"))
        .split("file=")[1]
        .split(",")[0]
    ).parents[1]
    assert work.exists()
    began = time.monotonic()
    run.send_signal(number)
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert run.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert psutil.wait_procs(guests, timeout=2)[1] == []
    assert not work.exists()
    assert [path for path in reports.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("debian13")
def test_a_shell_in_the_guest_is_the_students(tmp_path: Path) -> None:
    labs = tmp_path / "labs"
    labs.mkdir()
    (labs / "faults").symlink_to(LAB)
    argv = [sys.executable, "-m", "vmlab", "shell", "faults", "--guest", "other", "--labs", str(labs)]
    typed = "id -un; hostname; sudo id -u; cd /run/vmlab/lab; python3 hello.py typed < /dev/null; "
    typed += "cd; python3 -c 'from vmlab_guest.say import say; say(found=True)'; exit 7\n"
    done = subprocess.run(argv, cwd=ROOT, input=typed, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 7, done.stdout + done.stderr
    user, host, *rest = done.stdout.splitlines()[-5:]
    assert user == "debian"
    assert host.startswith("other-")
    assert rest == ["0", '{"hello": "typed", "input": ""}', '{"found": true}']
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path, debian13: Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory on a file system of 600 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "vmlab-test", str(mount)], check=True)
    (mount / "images").symlink_to(debian13.directory.parent)
    monkeypatch.setenv("VMLAB_CACHE", str(mount))
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_disk_that_is_full_before_the_run_is_said_so(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (200 << 20))
    run = start(tmp_path / "reports")
    out, err = run.communicate(timeout=120)
    assert run.returncode == 3
    assert "MiB are free" in out + err
    assert "free some disk space" in out + err
    assert list((small_disk / "runs").glob("run-*")) == []


def test_a_disk_that_fills_up_during_the_run_ends_it_at_once(small_disk: Path, debian13: Image, tmp_path: Path) -> None:
    with world_of(debian13, tmp_path) as world:
        guest = world.guest
        began = time.monotonic()
        with pytest.raises(RunError) as caught:
            guest.run("dd if=/dev/zero of=/ballast bs=1M count=1000 conv=fsync", time_limit_s=300)
        assert isinstance(caught.value, HostError), caught.value
        assert "disk is full" in caught.value.message
        assert time.monotonic() - began < 200
    assert boot.LEAST_FREE_BYTES < 600 << 20
