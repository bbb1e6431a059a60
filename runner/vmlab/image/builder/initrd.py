"""The initrd: busybox, a handful of modules in the order they load, and one script, in a newc cpio written here.

The stock initrd holds everything that any machine may need; unpacking it alone takes an emulated guest three seconds.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmlab.errors import ImageError

_DIRECTORIES = ("bin", "dev", "proc", "sys", "root", "modules")


@dataclass(frozen=True)
class Member:
    """One file of an archive: its path, its mode with the file type, its bytes, and for a device its numbers."""

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


CONSOLE = Member("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
"""The kernel opens it for the first process before that process could have mounted /dev."""


def cpio(members: Iterable[Member]) -> bytes:
    """A cpio archive in the "new ASCII" format, as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst).

    Everything belongs to root and has no date, so the same members always make the same bytes.
    """
    parts: list[bytes] = []
    for number, member in enumerate([*members, Member("TRAILER!!!", 0)], start=1):
        name = member.path.encode() + b"\0"
        fields = (
            number,               # inode: any number, but a different one each, or the kernel takes files for hard links
            member.mode,
            0, 0,                 # uid, gid
            1,                    # links
            0,                    # mtime
            len(member.content),
            0, 0,                 # device that holds the file
            *member.device,
            len(name),
            0,                    # checksum, unused in this variant
        )  # fmt: skip
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        parts += [_padded(header + name), _padded(member.content)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def load_order(wanted: Iterable[str], modules_dep: str, modules_builtin: str) -> list[str]:
    """The paths of the wanted modules and of all that they need, each after what it depends on; built-in ones are left out.

    ``modules_dep`` and ``modules_builtin`` are the texts of the two files that depmod(8) writes. ImageError for a module that the
    kernel has in neither form.
    """
    depends: dict[str, list[str]] = {}
    for line in modules_dep.splitlines():
        path, _, needs = line.partition(":")
        depends[path] = needs.split()
    by_name = {_module_name(path): path for path in depends}
    built_in = {_module_name(path) for path in modules_builtin.split()}
    order: list[str] = []

    def visit(path: str) -> None:
        if path in order:
            return
        for needed in depends[path]:
            visit(needed)
        order.append(path)

    for name in wanted:
        canonical = _module_name(name)
        if canonical in by_name:
            visit(by_name[canonical])
        elif canonical not in built_in:
            raise ImageError(f"the image's kernel has no module {name}", hint="correct initrd_modules in the recipe")
    return order


def _module_name(path: str) -> str:
    """The name a module goes by: the kernel makes no difference between - and _."""
    return PurePosixPath(path).name.split(".", 1)[0].replace("-", "_")


@dataclass(frozen=True)
class BootFiles:
    """What a direct boot needs, taken from a system: kernel, initrd, and the kernel's version."""

    kernel: bytes
    initrd: bytes
    version: str


def from_system(tar_path: Path, wanted: Iterable[str], script: bytes) -> BootFiles:
    """Take the kernel out of a system's tar and make the initrd for it; ``script`` becomes the initrd's /init."""
    with tarfile.open(tar_path) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
        version = _kernel_version(members)
        # Where /usr is merged, /lib is a link and the files lie below usr/.
        modules = f"usr/lib/modules/{version}"
        order = load_order(
            wanted,
            _content(tar, members, f"{modules}/modules.dep").decode(),
            _content(tar, members, f"{modules}/modules.builtin").decode(),
        )
        loadable = [(path, _content(tar, members, f"{modules}/{path}")) for path in order]
        return BootFiles(
            kernel=_content(tar, members, f"boot/vmlinuz-{version}"),
            initrd=cpio(_members(script, _content(tar, members, "usr/bin/busybox"), loadable)),
            version=version,
        )


def _members(script: bytes, busybox: bytes, modules: list[tuple[str, bytes]]) -> Iterator[Member]:
    for directory in _DIRECTORIES:
        yield Member(directory, stat.S_IFDIR | 0o755)
    yield CONSOLE
    yield Member("bin/busybox", stat.S_IFREG | 0o755, busybox)
    yield Member("init", stat.S_IFREG | 0o755, script)
    for number, (path, content) in enumerate(modules):
        yield Member(f"modules/{number:02}-{_module_name(path)}.ko", stat.S_IFREG | 0o644, decompressed(path, content))


def decompressed(path: str, content: bytes) -> bytes:
    """A module as busybox's insmod takes it: Debian compresses modules from Debian 13 on."""
    if path.endswith(".ko.xz"):
        return lzma.decompress(content)
    if path.endswith(".ko"):
        return content
    raise ImageError(f"cannot unpack the kernel module {path}: only .ko and .ko.xz are known")


def _kernel_version(members: Mapping[str, tarfile.TarInfo]) -> str:
    kernels = [name.removeprefix("boot/vmlinuz-") for name in members if name.startswith("boot/vmlinuz-")]
    if len(kernels) != 1:
        raise ImageError(f"expected one kernel in the system, found {len(kernels)}: {', '.join(kernels)}")
    return kernels[0]


def _content(tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes:
    member = members.get(name)
    content = tar.extractfile(member) if member is not None else None
    if content is None:
        raise ImageError(f"the system that was built has no file /{name}")
    return content.read()
