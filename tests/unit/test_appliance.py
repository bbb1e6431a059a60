"""The appliance: what goes into its initrd, how it is kept, and how what it says is read. The guest that packs it is played here."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.stage import setting
from vmlab.deadline import Deadline
from vmlab.errors import BootTimeout, GuestError, GuestExited, GuestPanicked, ImageError
from vmlab.guest.inside.appliance import MARK
from vmlab.guest.intel import appliance
from vmlab.guest.intel import console as appliance_console
from vmlab.guest.intel.appliance import ApplianceStore
from vmlab.guest.workdir import WorkDir
from vmlab.image.image import Image
from vmlab.progress import Progress


def tar_of(members: dict[str, bytes | str]) -> bytes:
    """A tar as the packer writes it; a text is a link's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


PACKED = tar_of(
    {
        "python/usr/bin/python3": b"an interpreter",
        "python/kvm/__main__.pyc": b"the probe",
        "python/usr/lib/libz.so.1.3.1": b"a library",
        "python/usr/lib/libz.so.1": "libz.so.1.3.1",
        "modules/kvm_intel/00-irqbypass.ko.xz": lzma.compress(b"a module"),
        "modules/kvm_intel/01-kvm.ko": b"another",
    }
)


class Guest:
    """A guest that packs; it counts how often it was asked."""

    def __init__(self, status: int = 0, stderr: str = "") -> None:
        self.packed, self.status, self.stderr = 0, status, stderr
        self.ssh = self
        self.request = SimpleNamespace(image=SimpleNamespace(name="debian-13"))

    @contextlib.contextmanager
    def attributing(self) -> Iterator[None]:
        yield

    def put_tree(self, files: dict[str, Path], directory: str, *, deadline: Deadline) -> None:
        assert {"pack.py", "appliance.py", "kvm/__main__.py"} <= set(files)
        assert all(path.is_file() for path in files.values())

    def execute(self, command: str, **_: Any) -> SimpleNamespace:
        self.packed += 1
        return SimpleNamespace(status=self.status, stderr=self.stderr)

    def get(self, remote: str, local: Path, *, deadline: Deadline) -> None:
        local.write_bytes(PACKED)

    @contextlib.contextmanager
    def start(self) -> Iterator[Any]:
        yield self


@pytest.fixture
def image(tmp_path: Path) -> Image:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"a kernel")
    return Image("debian-13", "0" * 64, tmp_path, tmp_path / "disk", kernel, None, "", {}, "debian", {})


@pytest.fixture
def store(tmp_path: Path) -> ApplianceStore:
    return ApplianceStore(Progress(), directory=tmp_path / "appliances")


def test_it_is_made_once_and_kept(store: ApplianceStore, image: Image) -> None:
    guest = Guest()
    assert store.find(image) is None
    made = store.get(image, guest.start, Deadline(60))
    assert made == store.get(image, guest.start, Deadline(60)) == store.find(image)
    assert guest.packed == 1
    assert made.kernel.read_bytes() == b"a kernel"
    assert made.disk.read_bytes()[510:512] == b"\x55\xaa"
    assert not stat.S_IMODE(made.disk.stat().st_mode) & 0o222
    store.get(replace(image, digest="1" * 64), guest.start, Deadline(60))
    assert guest.packed == 2, "another image's appliance was taken"


def test_a_damaged_one_is_made_again(store: ApplianceStore, image: Image) -> None:
    guest = Guest()
    made = store.get(image, guest.start, Deadline(60))
    made.initrd.chmod(0o600)
    made.initrd.write_bytes(b"x" + made.initrd.read_bytes()[1:])
    assert store.find(image) is None
    assert store.get(image, guest.start, Deadline(60)) == made
    assert guest.packed == 2


def test_a_guest_that_cannot_pack_says_why_and_leaves_nothing(store: ApplianceStore, image: Image, tmp_path: Path) -> None:
    guest = Guest(1, "Traceback ...\nFileNotFoundError: modprobe\n")
    with pytest.raises(ImageError, match="cannot be packed: FileNotFoundError: modprobe"):
        store.get(image, guest.start, Deadline(60))
    assert not list((tmp_path / "appliances/partial").iterdir())


def test_an_image_without_a_kernel_beside_it_is_refused_before_a_guest_is_started(store: ApplianceStore, image: Image) -> None:
    guest = Guest()
    with pytest.raises(GuestError, match="no kernel beside its disk"):
        store.get(replace(image, kernel=None), guest.start, Deadline(60))
    assert guest.packed == 0


def test_pruning_removes_what_cannot_be_used(store: ApplianceStore, image: Image, tmp_path: Path) -> None:
    made = store.get(image, Guest().start, Deadline(60))
    assert appliance.prune(tmp_path / "appliances") == 0
    made.kernel.parent.chmod(0o700)
    (made.kernel.parent / "manifest.json").unlink()
    assert appliance.prune(tmp_path / "appliances") > 0
    assert not made.kernel.exists()


def test_another_versions_appliance_is_replaced(store: ApplianceStore, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.get(image, Guest().start, Deadline(60))
    monkeypatch.setattr(appliance, "FORMAT", appliance.FORMAT + 1)
    assert store.find(image) is None
    new = store.get(image, Guest().start, Deadline(60))
    assert new != old
    assert not old.disk.exists()


def test_the_initrd_holds_all_of_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(PACKED)) as packed:
        entries = {entry.path: entry for entry in appliance._entries(packed)}
    assert entries["usr/bin/python3"].mode == stat.S_IFREG | 0o755
    assert (entries["usr/lib/libz.so.1"].mode, entries["usr/lib/libz.so.1"].content) == (stat.S_IFLNK | 0o777, b"libz.so.1.3.1")
    assert entries["modules/kvm_intel/00-irqbypass.ko"].content == b"a module"
    assert entries["modules/kvm_intel/01-kvm.ko"].content == b"another"
    assert entries["init"].content.startswith(b"#!/usr/bin/python3")
    assert {"kvm/__main__.pyc", "dev/console", "proc", "sys", "usr/lib"} <= set(entries)
    names = list(entries)
    assert all(names.index(str(Path(name).parent)) < names.index(name) for name in names if "/" in name), "a file comes before its folder"


# --- what it says -------------------------------------------------------------------------------------------------------------------


def line(**event: Any) -> str:
    return f"{MARK}{json.dumps(event)}\n"


UP = line(event="up", kernel="6.12.0")
BOTH = line(event="record", module="kvm_intel", value=1, record={"n": 1}) + line(
    event="record", module="kvm_intel", value=0, record={"n": 0}
)
END = line(event="end")


def test_what_it_says_is_read_among_the_kernels_lines() -> None:
    found = appliance_console.findings(f"[    0.1] Linux\n{UP}[    1.0] noise\n{BOTH}{END}")
    assert (found.kernel, found.module, found.nested, found.shadow) == ("6.12.0", "kvm_intel", {"n": 1}, {"n": 0})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            UP + line(event="failed", why="load kvm-intel.ko: Operation not supported") + END,
            "did not run .*: load kvm-intel.ko: Operation not supp",
        ),
        (UP + END, "did not say what its probe found"),
        (UP + BOTH.splitlines(keepends=True)[0] + END, "did not say"),
        (line(event="record", value=1, record=7) + BOTH.splitlines(keepends=True)[1] + END, "did not say"),
        (f"{MARK}{{not json\n{MARK}[1]\n{MARK}7\n{END}", "did not say"),
        ("", "did not say"),
    ],
    ids=["failed", "no-records", "one-record", "record-is-a-number", "garbage", "nothing"],
)
def test_what_it_does_not_say_is_an_error(text: str, words: str) -> None:
    with pytest.raises(GuestError, match=words):
        appliance_console.findings(text)


def watch(tmp_path: Path, script: str, limit_s: float = 20) -> str:
    """Wait for an emulator that a shell script plays; it writes to the file `console`."""
    with subprocess.Popen(["sh", "-c", script], cwd=tmp_path) as child:
        try:
            place = setting(WorkDir(tmp_path), tmp_path / "console", limit_s=limit_s)
            return appliance_console.wait(child, place, said=lambda: "first words\nlast words")
        finally:
            child.kill()


def test_the_wait_ends_with_the_last_word_although_the_emulator_goes_on(tmp_path: Path) -> None:
    (tmp_path / "all").write_text(UP + BOTH + END)
    assert "kvm_intel" in watch(tmp_path, "sleep 0.3; cat all >console; exec sleep 60")


def test_a_line_that_is_not_complete_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "begun").write_text(UP + END.rstrip("\n"))
    with pytest.raises(BootTimeout, match="came as far as: up"):
        watch(tmp_path, "cat begun >console; exec sleep 60", limit_s=1)


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("exit 1", GuestExited, "ended by itself: last words"),
        (
            "echo 'Kernel panic - not syncing: no init' >console; exec sleep 60",
            GuestPanicked,
            "panicked: Kernel panic - not syncing: no init",
        ),
        ("exec sleep 60", BootTimeout, "not done after 1 s; its Linux did not even start"),
    ],
    ids=["exit", "panic", "silence"],
)
def test_other_ends_are_told_in_words(tmp_path: Path, script: str, error: type[GuestError], words: str) -> None:
    with pytest.raises(error, match=words):
        watch(tmp_path, script, limit_s=1)


# --- what runs inside, as far as it runs here -------------------------------------------------------------------------------------------


def test_the_scripts_inside_import_the_standard_library_alone() -> None:
    import ast

    for name in ("appliance.py", "pack.py"):
        tree = ast.parse((Path(appliance.__file__).parents[1] / "inside" / name).read_text())
        imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not {module.split(".")[0] for module in imported} - sys.stdlib_module_names
