"""The cache of templates under attack: damaged files, other machines, builders at once or killed, full and read-only disks.

A quick stand-in boots and saves, so that these tests take seconds; what they test is the store around it. tests/guest/test_clone.py
does the same to real templates.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.stage import Heard, setting
from tests.unit.test_template_key import HOST, REQUEST
from vmlab.errors import GuestPanicked, HostError, RunError, SshError, TemplateError, UsageError
from vmlab.guest import start as starting
from vmlab.guest.clone import store as templates
from vmlab.guest.clone import template as saved
from vmlab.guest.clone.store import TemplateStore, prune, status
from vmlab.guest.clone.template import FILES, MANIFEST, Template
from vmlab.guest.machine import Birth, BootRequest, System
from vmlab.guest.readiness import CloudInitStatus
from vmlab.guest.seed import Identity
from vmlab.guest.workdir import WorkDir
from vmlab.progress import Kind, Progress, notices


class Maker:
    """Boots and saves nothing, at once, and counts how often. ``during`` is called with the stage and the directory."""

    def __init__(self, during: Callable[[str, Path], None] = lambda stage, out: None) -> None:
        self.calls = 0
        self.during = during

    def boot_into(self, _stack: Any, request: BootRequest, *_: Any, keep_in: Path | None = None, fallback: str = "") -> Any:
        self.calls += 1
        if keep_in is not None:
            self.during("boot", keep_in)
        return SimpleNamespace(
            request=request,
            identity=Identity.new("main"),
            birth=Birth(System("6.1", "Debian", "boot"), CloudInitStatus("done", 0), fallback=fallback),
        )

    def save(self, machine: Any, out: Path, *_: Any) -> bool:
        for name in FILES:
            (out / name).write_bytes(f"{name}\n".encode() * 1000)
        (out / "identity.json").write_text(json.dumps(asdict(machine.identity)))
        self.during("saved", out)
        return False


class World:
    """A store in a directory of its own, with what it told the user."""

    def __init__(self, root: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.maker = root, maker
        self.told: list[str] = []
        self.work = WorkDir(root)
        # Looked up at each call: a test may put another maker in this one's place.
        monkeypatch.setattr(templates, "boot_into", lambda *args, **named: self.maker.boot_into(*args, **named))  # noqa: PLW0108
        monkeypatch.setattr(saved, "save", lambda *args: self.maker.save(*args))  # noqa: PLW0108

    def store(self, **changes: Any) -> TemplateStore:
        usual: dict[str, Any] = {"host": HOST, "directory": self.root / "templates", "limit_mib": 100}
        return TemplateStore(Progress(notices(self.told.append)), **usual | changes)

    def get(self, request: BootRequest = REQUEST, *, limit_s: float = 30, **changes: Any) -> Template:
        return self.store(**changes).get(request, setting(self.work, self.root / "console.log", limit_s=limit_s))

    @property
    def entries(self) -> list[str]:
        return sorted(path.name for path in (self.root / "templates").glob("debian-*"))

    @property
    def leftovers(self) -> list[Path]:
        return list((self.root / "templates/partial").iterdir())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, Maker(), monkeypatch)


def test_one_is_made_once_and_found_afterwards(world: World) -> None:
    made = world.get()
    assert world.get() == made
    assert world.maker.calls == 1
    assert made.identity.hostname.startswith("main-")
    assert made.system == System("6.1", "Debian", "boot")
    assert world.leftovers == []


@pytest.mark.parametrize(("version", "mode"), [("7.2.22", 0o600), ("8.1.9", 0o600), ("8.2.0", 0o444), ("10.0.2", 0o444)])
def test_all_is_read_only_but_the_memory_that_an_older_qemu_opens_for_writing(version: str, mode: int, world: World) -> None:
    made = world.get(host=replace(HOST, qemu=replace(HOST.qemu, version=version, build=version)))
    modes = {name: made.file(name).stat().st_mode & 0o777 for name in (*FILES, MANIFEST)}
    assert modes.pop("ram") == mode
    assert set(modes.values()) == {0o444}
    assert made.directory.stat().st_mode & 0o777 == 0o555
    # The keys in it are for this user's eyes: nobody else gets as far as this directory.
    assert made.directory.parent.stat().st_mode & 0o077 == 0


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Change one bit and put size and time back, as a failing disk or a clever user would."""
    before = path.stat()
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    path.parent.chmod(0o700)
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip, remove])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_damaged_one_is_never_used_and_made_again(damage: Callable[[Path], None], name: str, world: World) -> None:
    if (damage, name) == (flip, MANIFEST):
        pytest.skip("a flipped bit may leave a manifest that says the same; what matters of it is covered by the rest")
    damage(world.get().file(name))
    assert world.store().find(REQUEST) is None
    assert world.entries == []
    assert any("damaged" in line for line in world.told)
    world.get()
    assert world.maker.calls == 2


def test_one_that_was_renamed_is_not_taken_for_another(world: World) -> None:
    made = world.get()
    other = replace(REQUEST, cpus=1)
    name = templates.entry_name(other, saved.key_of(other, HOST))
    made.directory.rename(made.directory.with_name(name))
    assert world.store().find(other) is None


def test_one_that_was_copied_here_whole_is_read_once_and_used(world: World) -> None:
    made = world.get()
    kept = world.root / "kept"
    shutil.copytree(made.directory, kept)
    made.directory.chmod(0o700)
    shutil.rmtree(made.directory)
    kept.rename(made.directory)
    assert world.get() == made
    assert world.maker.calls == 1


OTHER_QEMU = replace(HOST, qemu=replace(HOST.qemu, version="7.2.23", build="other"))


@pytest.mark.parametrize("host", [OTHER_QEMU, replace(HOST, cpu="vendor_id B")])
def test_another_qemu_or_processor_gets_one_of_its_own(host: Any, world: World) -> None:
    world.get()
    assert world.store(host=host).find(REQUEST) is None
    world.get(host=host)
    assert len(world.entries) == 2
    world.get()
    assert world.maker.calls == 2


def test_two_builders_at_once_make_one(world: World) -> None:
    world.maker = Maker(lambda stage, out: time.sleep(0.2))
    found: list[Template] = []
    threads = [threading.Thread(target=lambda: found.append(world.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4
    assert len({each.key for each in found}) == 1
    assert world.maker.calls == 1


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from vmlab.image import cache
from tests.hostile.test_template_store import Maker, World
def die(stage, out):
    if stage == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
world = World(Path(sys.argv[1]), Maker(die), pytest.MonkeyPatch())
plain_sync, syncs = cache.sync, []
def sync(path):
    plain_sync(path)
    syncs.append(path)
    die(f"publishing {len(syncs)}", path)
cache.sync = sync
world.get()
"""


# Each file and the manifest, their directory, and (after the rename) the directory above are made sure of on the disk.
LAST = len(FILES) + 3


@pytest.mark.parametrize("stage", ["boot", "saved", *(f"publishing {number}" for number in (1, 4, LAST - 1, LAST))])
def test_a_builder_that_is_killed_leaves_nothing_that_hinders(stage: str, world: World) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(world.root), stage], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Killed after the last of it was in its place, it is whole; else it is absent.
    published = world.entries != []
    assert published == (stage == f"publishing {LAST}")
    world.get()
    assert world.maker.calls == (0 if published else 1)
    prune(directory=world.root / "templates")
    assert world.leftovers == []


def raising(error: BaseException, when: str) -> Maker:
    def during(stage: str, out: Path) -> None:
        if stage == when:
            raise error

    return Maker(during)


@pytest.mark.parametrize("when", ["boot", "saved"])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), TemplateError, "disk became full"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), TemplateError, "Read-only"),
        (HostError("no memory"), TemplateError, "no memory"),
        (TemplateError("never quiet"), TemplateError, "never quiet"),
        (GuestPanicked("it panicked"), GuestPanicked, "it panicked"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_a_failure_leaves_nothing_behind(when: str, error: BaseException, expected: type, message: str, world: World) -> None:
    world.maker = raising(error, when)
    with pytest.raises(expected, match=message or None):
        world.get()
    assert world.entries == []
    assert world.leftovers == []


def test_a_disk_that_is_too_full_is_seen_before_anything_is_booted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1 << 10, f_frsize=1 << 12))
    with pytest.raises(TemplateError, match="4 MiB are free"):
        world.get()
    assert world.maker.calls == 0


def test_a_directory_that_cannot_be_made_is_a_reason_for_a_cold_boot(world: World) -> None:
    (world.root / "templates").write_text("in the way")
    with pytest.raises(TemplateError, match="cannot create"):
        world.get()


@pytest.fixture
def read_only(world: World) -> Iterator[None]:
    """The templates' directory on a file system that becomes read-only, with one template in it."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    directory = world.root / "templates"
    directory.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=700", "vmlab", str(directory)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this container may not mount a file system")
    try:
        world.get()
        subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_cache_still_gives_what_is_in_it_and_a_reason_for_what_is_not(world: World) -> None:
    assert world.store().find(REQUEST) is not None
    with pytest.raises(TemplateError, match="Read-only"):
        world.get(replace(REQUEST, cpus=1))


def test_whoever_waits_for_another_builder_boots_at_the_deadline(world: World) -> None:
    entered, leave = threading.Event(), threading.Event()

    def during(stage: str, out: Path) -> None:
        entered.set()
        leave.wait(20)

    world.maker = Maker(during)
    builder = threading.Thread(target=world.get)
    builder.start()
    entered.wait(10)
    with pytest.raises(TemplateError, match="another process is still building"):
        world.get(limit_s=0.3)
    leave.set()
    builder.join(20)


def test_the_least_recently_used_goes_first(world: World) -> None:
    requests = [replace(REQUEST, cpus=number) for number in (1, 2, 3)]
    one = world.get(requests[0])
    size_mib = sum(one.file(name).stat().st_blocks * 512 for name in (*FILES, MANIFEST)) / (1 << 20)
    seals = world.root / "templates/seals"
    world.get(requests[1])
    for age_s, request in ((1000, requests[1]), (500, requests[0])):
        seal = seals / f"{templates.entry_name(request, saved.key_of(request, HOST))}.json"
        os.utime(seal, (time.time() - age_s, time.time() - age_s))
    # There is room for two and a half.
    store = world.store()
    store._limit_bytes = int(2.5 * size_mib * (1 << 20))
    world.maker.calls = 0
    store.get(requests[2], setting(world.work, world.root / "console.log"))
    assert store.find(requests[0]) is not None
    assert store.find(requests[1]) is None
    assert store.find(requests[2]) is not None


def test_the_list_names_the_last_used_first_and_prune_removes_all(world: World) -> None:
    directory = world.root / "templates"
    world.get()
    world.get(replace(REQUEST, cpus=1))
    old = directory / "seals" / f"{templates.entry_name(REQUEST, saved.key_of(REQUEST, HOST))}.json"
    os.utime(old, (1000, 1000))
    rows = status(directory)
    assert [row.cpus for row in rows] == [1, 2]
    assert rows[1].used_at == "1970-01-01T00:16:40+00:00"
    assert prune(directory=directory) == 0
    assert prune(everything=True, directory=directory) == sum(row.size_bytes for row in rows)
    assert status(directory) == []
    assert list((directory / "seals").iterdir()) == []


def test_a_limit_that_is_no_number_is_the_users_mistake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMLAB_TEMPLATES_MIB", "4GB")
    with pytest.raises(UsageError, match="no number of MiB"):
        world.get(limit_mib=None)


# What becomes of a lab's guest when cloning fails.


@pytest.mark.parametrize(
    "error", [TemplateError("it hangs"), SshError("lost"), HostError("no QEMU"), OSError(errno.ENOENT, "gone", "/t/ram")]
)
def test_a_clone_that_fails_is_booted_instead_and_its_template_dropped(
    error: Exception, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.get()

    @contextlib.contextmanager
    def fails(*_: Any, **__: Any) -> Iterator[None]:
        raise error
        yield

    heard = Heard()
    monkeypatch.setattr(starting, "clone", fails)
    monkeypatch.setattr(starting, "boot_into", world.maker.boot_into)
    with contextlib.ExitStack() as stack:
        machine = starting.start(stack, REQUEST, setting(world.work, world.root / "c", progress=Progress(heard)), world.store())
    said = error.message if isinstance(error, RunError) else "gone"
    assert said in machine.birth.fallback
    assert said in heard.texts(Kind.PHASE)[0]
    assert world.entries == []


def test_a_guest_that_does_not_boot_is_not_booted_twice(world: World) -> None:
    world.maker = raising(GuestPanicked("it panicked"), "boot")
    with contextlib.ExitStack() as stack, pytest.raises(GuestPanicked):
        starting.start(stack, REQUEST, setting(world.work, world.root / "c"), world.store())
    assert world.maker.calls == 1
