"""How an image is built, step by step, where no tool need be: what each is asked for, and what a build leaves, tells and takes up again."""

from __future__ import annotations

import io
import pwd
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError
from vmlab.image.builder import bootloader, bootstrap, dates, initrd, mirror, namespace, rootfs
from vmlab.image.builder import steps as module
from vmlab.image.builder.initrd import BootFiles
from vmlab.image.builder.mirror import Mirror
from vmlab.image.builder.recipe import Parameters, Recipe
from vmlab.image.builder.steps import Order, build
from vmlab.image.builder.workshop import Workshop
from vmlab.packages import which
from vmlab.process import Completed
from vmlab.progress import Progress, notices

RECIPE = Recipe(
    architecture="amd64",
    packages=("linux-image-cloud-amd64", "openssh-server"),
    exclude_paths=("/usr/share/doc/*",),
    initrd_modules=("virtio_blk",),
    cmdline="console=ttyS0",
    inits={"systemd": "/lib/systemd/systemd"},
    default_user="student",
    free_mib=64,
)
PARAMETERS = Parameters(suite="trixie", mmdebstrap_hooks=("merged-usr",), packages=("strace",))
STATUS = """\
Package: b
Status: install ok installed
Version: 2.0

Package: gone
Status: deinstall ok config-files
Version: 0.1

Package: a
Status: install ok installed
Version: 1.0-1
Description: a package
 Status: not a field but a line of its description
"""


class Tools:
    """A workshop whose tools only say what they were asked for."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[list[str]] = []
        self.env: dict[str, str] = {}
        self.directory = directory
        self.deadline = Deadline(60)
        self.log = io.BytesIO()

    def run(self, argv: Sequence[str | Path], *, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> None:
        self.asked.append([str(word) for word in argv])
        self.env.update(env or {})


def as_shop(tools: Tools) -> Any:
    return tools


def system(path: Path, files: Mapping[str, bytes | None]) -> Path:
    """A tar of a system; None is a directory."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                member.size, member.mode, member.mtime = len(content), 0o644, 1_700_000_000
                tar.addfile(member, io.BytesIO(content))
    return path


# --- packages to a tar ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe's folder."""
    folder = tmp_path / "recipe"
    (folder / "files/etc").mkdir(parents=True)
    (folder / "files/etc/motd").write_text("hello")
    (folder / "customise.sh").write_text("#!/bin/sh\n")
    (folder / "initrd.sh").write_text("#!/bin/sh\n")
    return folder


@pytest.mark.skipif(not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists(), reason="the archive's keys are not installed")
def test_a_system_is_asked_for_with_the_recipes_packages_files_and_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "prefix", lambda: ("as-root",))
    tools = Tools(tmp_path)
    source = Mirror(("deb http://mirror.invalid trixie main",), "a test")
    bootstrap.bootstrap(RECIPE, PARAMETERS, folder, mirror=source, tar=tmp_path / "system.tar", shop=as_shop(tools))
    (asked,) = tools.asked
    assert asked[:2] == ["as-root", "mmdebstrap"]
    assert asked[-3:] == ["trixie", str(tmp_path / "system.tar"), "deb http://mirror.invalid trixie main"]
    assert "--include=linux-image-cloud-amd64,openssh-server,strace" in asked
    assert "--dpkgopt=path-exclude=/usr/share/doc/*" in asked
    assert "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr" in asked
    assert tools.env["INITRD"] == "No"
    with tarfile.open(tmp_path / "additions.tar") as tar:
        members = {member.name: member for member in tar}
        content = tar.extractfile("etc/motd")
        assert content is not None
        assert content.read() == b"hello"
    assert set(members) == {"etc/motd", "customise.sh"}
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}, "whoever made the clone, and when"


def answers(monkeypatch: pytest.MonkeyPatch, *works: bool, uid: int) -> list[tuple[str, ...]]:
    """A machine on which one kind of namespace after the other works or does not."""
    asked: list[tuple[str, ...]] = []
    left = iter(works)

    def run(argv: Sequence[str], **_: object) -> Completed:
        asked.append(tuple(argv))
        return Completed(tuple(argv), 0 if next(left) else 1, b"", b"")

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    namespace.prefix.cache_clear()
    return asked


@pytest.fixture
def forgetful() -> Iterator[None]:
    yield
    namespace.prefix.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_root_isolates_a_build_where_it_may_and_builds_without_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, True, uid=0)
    assert namespace.prefix()[:2] == ("unshare", "--mount")
    assert "--kill-child" in asked[0]
    assert "--map-root-user" not in asked[0]
    answers(monkeypatch, False, uid=0)
    assert namespace.prefix() == ()


@pytest.mark.usefixtures("forgetful")
def test_a_user_becomes_root_in_a_namespace_and_is_told_what_is_missing_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: type("Entry", (), {"pw_name": "ada"}))
    monkeypatch.setattr(process, "require", lambda _program: "/usr/bin/newuidmap")
    answers(monkeypatch, True, uid=1000)
    assert "--map-root-user" in namespace.prefix()
    for uids, gids, hint in (
        ("bob:100000:65536\n", "ada:100000:65536\n", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ada"),
        ("1000:100000:65536\n", "", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ada"),
        ("ada:100000:65536\n", "1000:100000:65536\n", "the kernel refuses user namespaces here"),
    ):
        (tmp_path / "subuid").write_text(uids)
        (tmp_path / "subgid").write_text(gids)
        monkeypatch.setattr(namespace, "Path", lambda name: tmp_path / Path(name).name)
        answers(monkeypatch, False, uid=1000)
        with pytest.raises(HostError, match="cannot be built as an ordinary user") as refused:
            namespace.prefix()
        assert refused.value.hint.startswith(hint)


# --- a tar to a file system -------------------------------------------------------------------------------------------------------------


def test_a_file_system_has_room_for_its_content_and_for_what_is_asked(tmp_path: Path) -> None:
    small = system(tmp_path / "small.tar", {"a": b"x"})
    large = system(tmp_path / "large.tar", {"a": bytes(10 << 20)})
    many = system(tmp_path / "many.tar", {f"f{number}": b"x" for number in range(3000)})
    assert rootfs.size_for(small, 64) % (1 << 20) == 0
    assert rootfs.size_for(large, 64) - rootfs.size_for(small, 64) >= 10 << 20
    assert rootfs.size_for(many, 64) - rootfs.size_for(small, 64) >= 3000 * 4096, "a small file takes a block"
    assert rootfs.size_for(small, 164) - rootfs.size_for(small, 64) >= 100 << 20


def version(monkeypatch: pytest.MonkeyPatch, printed: str, *, takes_tar: bool) -> None:
    """mke2fs as it says that it is; whether it reads a tar depends on how it was built, too."""

    def run(argv: Sequence[str], **_: object) -> Completed:
        if "-V" in argv:
            return Completed(tuple(argv), 0, b"", printed.encode())
        return Completed(tuple(argv), 0 if takes_tar else 1, b"", b"")

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(process, "require", lambda program: f"/sbin/{program}")
    monkeypatch.setattr(namespace, "prefix", lambda: ("as-root",))


WRITE: dict[str, Any] = {"offset": 1 << 20, "size": 96 << 20, "uuid": "12345678-1234-5678-1234-567812345678", "epoch_s": 1_700_000_000}


@pytest.mark.parametrize(
    ("printed", "takes_tar", "reads_tar"),
    [
        ("mke2fs 1.47.2 (1-Jan-2025)", True, True),
        ("mke2fs 1.47.1 (20-May-2024)", False, False),
        ("mke2fs 1.47.0 (5-Feb-2023)", True, False),
        ("something else", True, False),
    ],
)
def test_mke2fs_reads_the_tar_itself_only_where_version_and_build_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, takes_tar: bool, reads_tar: bool
) -> None:
    version(monkeypatch, printed, takes_tar=takes_tar)
    tar, tools = system(tmp_path / "system.tar", {"./a b'c": b"x", "./dev/null": b""}), Tools(tmp_path)
    rootfs.write(tar, tmp_path / "disk.raw", shop=as_shop(tools), **WRITE)
    (asked,) = tools.asked
    told = " ".join(asked)
    assert f"offset={1 << 20}" in told
    assert f"{96 << 10}k" in told
    assert (asked[0] == "mke2fs") == reads_tar
    if not reads_tar:
        assert asked[:3] == ["as-root", "sh", "-c"]
        assert told.index("tar --extract") < told.index("/sbin/mke2fs") < told.index("rm -rf")
        assert "--exclude=./dev/*" in told
        # Every file but the nodes has its dates set; a quote in a name is written twice.
        dates = (tmp_path / "dates.debugfs").read_text().splitlines()
        assert dates == ['set_inode_field "/a b\'c" atime @1700000000', 'set_inode_field "/a b\'c" ctime @1700000000']


@pytest.mark.skipif(which("mke2fs") is None or which("debugfs") is None, reason="e2fsprogs is not installed")
def test_a_real_file_system_holds_the_tars_files_at_its_place_in_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "prefix", tuple)
    tar = system(tmp_path / "system.tar", {"./etc": None, "./etc/motd": b"hello", './etc/a "quoted" name': b"x"})
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(100 << 20)
    with (tmp_path / "build.log").open("wb") as log:
        shop = Workshop(tmp_path, log, Deadline(60), {"E2FSPROGS_FAKE_TIME": "1700000000"})
        rootfs.write(tar, image, shop=shop, **WRITE)
    assert not (tmp_path / "tree").exists()

    def ask(request: str) -> str:
        program = which("debugfs")
        assert program is not None
        return subprocess.run([program, "-R", request, f"{image}?offset={1 << 20}"], capture_output=True, text=True, check=True).stdout

    assert ask("cat /etc/motd") == "hello"
    assert '"quoted"' in ask("ls /etc")
    for name in ("/etc/motd", '"/etc/a ""quoted"" name"'):
        told = ask(f"stat {name}")
        assert "atime: 0x6553f100" in told, told
        assert "ctime: 0x6553f100" in told
        assert "User:     0" in told


# --- the steps in their order -----------------------------------------------------------------------------------------------------------


class Steps:
    """Every step but the last replaced by one that writes down that it was done, and its product."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.told: list[str] = []
        self.broken = ""
        self.status: bytes | None = STATUS.encode()
        self.root = root
        monkeypatch.setattr(mirror, "choose", lambda suite, deadline: Mirror((f"deb http://mirror.invalid {suite} main",), "a test"))
        monkeypatch.setattr(bootstrap, "bootstrap", lambda *_args, tar, **_named: self._bootstrap(tar))
        monkeypatch.setattr(dates, "clamp", lambda fresh, clamped, **_named: shutil.copyfile(fresh, clamped))
        monkeypatch.setattr(initrd, "from_system", lambda *_args: self._initrd())
        monkeypatch.setattr(rootfs, "write", lambda *_args, **_named: self._step("rootfs"))
        monkeypatch.setattr(bootloader, "write", lambda *_args, **_named: self._step("bootloader"))
        monkeypatch.setattr(Workshop, "run", lambda _shop, argv, **_named: self._compress([str(word) for word in argv]))

    def _step(self, name: str) -> None:
        self.done.append(name)
        if self.broken == name:
            raise ImageError(f"{name} is broken")

    def _initrd(self) -> BootFiles:
        self._step("initrd")
        return BootFiles(kernel=b"kernel", initrd=b"initrd", version="6.1.0")

    def _bootstrap(self, tar: Path) -> None:
        system(tar, {"./etc/motd": b"hello"} | ({} if self.status is None else {"./var/lib/dpkg/status": self.status}))
        self._step("bootstrap")

    def _compress(self, argv: list[str]) -> None:
        assert argv[:2] == ["qemu-img", "convert"]
        Path(argv[-1]).write_bytes(b"QFI\xfb")
        self._step("compress")

    def order(self, folder: Path) -> Order:
        for name in ("partial", "out"):
            (self.root / name).mkdir(exist_ok=True)
        shutil.rmtree(self.root / "partial/work", ignore_errors=True)
        return Order("tiny", "ab" * 32, folder, RECIPE, PARAMETERS, self.root / "partial", self.root / "out")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(tmp_path, monkeypatch)


def test_a_build_makes_all_files_of_an_image_and_says_what_it_does(steps: Steps, folder: Path) -> None:
    product = build(steps.order(folder), Progress(notices(steps.told.append)), Deadline(60))
    assert product.kernel_version == "6.1.0"
    assert steps.done == ["bootstrap", "initrd", "rootfs", "bootloader", "compress"]
    out = steps.root / "out"
    assert {path.name for path in out.iterdir()} == {"disk.qcow2", "vmlinuz", "initrd.img", "packages.txt"}
    assert ((out / "vmlinuz").read_bytes(), (out / "initrd.img").read_bytes()) == (b"kernel", b"initrd")
    assert (out / "packages.txt").read_text() == "a 1.0-1\nb 2.0\n", "what is installed, and nothing that was removed"
    assert [line for line in steps.told if "packages come from a test" in line]
    assert [line.partition(": ")[2] for line in steps.told if line.startswith("building")] == [
        f"{what} (this is done once)"
        for what in (
            "installing packages",
            "making the initrd",
            "making the root file system",
            "making the boot loader",
            "compressing the disk",
        )
    ]
    log = (steps.root / "partial/build.log").read_text()
    assert log.count("== ") == 10, "each step's begin and how long it took"


def test_a_build_that_was_broken_goes_on_from_the_installed_system(steps: Steps, folder: Path) -> None:
    steps.broken = "rootfs"
    with pytest.raises(ImageError, match="rootfs is broken"):
        build(steps.order(folder), Progress(notices(steps.told.append)), Deadline(60))
    steps.broken, steps.done = "", []
    build(steps.order(folder), Progress(notices(steps.told.append)), Deadline(60))
    assert steps.done == ["initrd", "rootfs", "bootloader", "compress"]


def test_packages_that_were_not_all_installed_are_installed_again(steps: Steps, folder: Path) -> None:
    steps.broken = "bootstrap"
    with pytest.raises(ImageError, match="bootstrap is broken"):
        build(steps.order(folder), Progress(notices(steps.told.append)), Deadline(60))
    steps.broken, steps.done = "", []
    build(steps.order(folder), Progress(notices(steps.told.append)), Deadline(60))
    assert steps.done[0] == "bootstrap"


def test_a_system_without_a_list_of_its_packages_is_none(steps: Steps, folder: Path) -> None:
    steps.status = None
    with pytest.raises(ImageError, match="no file /var/lib/dpkg/status"):
        build(steps.order(folder), Progress(notices(steps.told.append)), Deadline(60))


def test_a_long_step_shows_the_last_line_of_its_log(steps: Steps, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = threading.Event()

    def listen(line: str) -> None:
        steps.told.append(line)
        if "so far" in line:
            heard.set()

    def slow(*_args: object, **_named: object) -> None:
        with (steps.root / "partial/build.log").open("a") as log:
            log.write("unpacking libc6\n\n")
        assert heard.wait(10), "nothing was said for ten seconds"

    monkeypatch.setattr(module, "_HEARTBEAT_S", 0.02)
    monkeypatch.setattr(rootfs, "write", slow)
    began = time.monotonic()
    build(steps.order(folder), Progress(notices(listen)), Deadline(60))
    assert time.monotonic() - began < 10
    assert [line for line in steps.told if "making the root file system, 0 s so far: unpacking libc6" in line]


def test_a_log_that_says_nothing_yet_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\n  \n")
    assert module.last_line(tmp_path / "log") == "nothing printed yet"
    (tmp_path / "log").write_bytes(b"x" * 5000 + b"\xff\n")
    assert len(module.last_line(tmp_path / "log")) == 100
