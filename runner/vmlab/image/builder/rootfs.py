"""A system's tar to an ext4 file system, written in place inside the disk."""

from __future__ import annotations

import re
import shlex
import tarfile
from pathlib import Path

from vmlab import process
from vmlab.image.builder import namespace
from vmlab.image.builder.workshop import Workshop

_MIB = 1 << 20
# An inode takes 256 bytes of the table, and a file at least one block.
_BLOCK = 4096
# From this version on, mke2fs -d reads a tar; before, only a directory.
_READS_TAR = (1, 47, 1)


def size_for(tar_path: Path, free_mib: int) -> int:
    """How large the file system must be, in bytes: its content, what ext4 keeps for itself, and ``free_mib``; whole MiB."""
    content = 0
    with tarfile.open(tar_path) as tar:
        for member in tar:
            content += _BLOCK + -(-member.size // _BLOCK) * _BLOCK
    # Inode tables, bitmaps and the journal take about 6 % at mke2fs's defaults; 64 MiB is the journal at this size.
    return -(-int(content * 1.06 + (free_mib + 64) * _MIB * 1.02) // _MIB) * _MIB


def write(tar_path: Path, disk: Path, *, offset: int, size: int, uuid: str, epoch_s: int, shop: Workshop) -> None:
    """Make the root file system of ``size`` bytes at ``offset`` of ``disk``, holding the tar's content, at the date ``epoch_s``."""
    options = [
        "-t", "ext4",
        "-L", "root",
        "-U", uuid,
        # No blocks are kept back for root: the guest's disk is its own. Tables are written now, not by a kernel thread that would
        # disturb every measurement in the guest's first minute.
        "-m", "0",
        "-E", f"offset={offset},hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=0",
        "-F",
    ]  # fmt: skip
    target = [str(disk), f"{size // 1024}k"]
    if _mke2fs_version(shop) >= _READS_TAR and _takes_tar(shop):
        shop.run(["mke2fs", *options, "-d", tar_path, *target])
        return
    # One namespace for both steps: the directory is full of other users' files, and the namespace's end removes nothing.
    tree = shop.directory / "tree"
    script = " && ".join(
        shlex.join(argv)
        for argv in (
            ["mkdir", str(tree)],
            # Device nodes cannot be made by an ordinary user, and devtmpfs brings them at boot.
            [
                "tar",
                "--extract",
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--exclude=./dev/*",
                "--file",
                str(tar_path),
                "-C",
                str(tree),
            ],
            [process.require("mke2fs"), *options, "-d", str(tree), *target],
            ["rm", "-rf", str(tree)],
        )
    )
    shop.run([*namespace.prefix(), "sh", "-c", script])
    _set_dates(tar_path, disk, offset, epoch_s, shop)


def _set_dates(tar_path: Path, disk: Path, offset: int, epoch_s: int, shop: Workshop) -> None:
    """Give every file the times of access and of change that no tar holds: taken from a directory, they are those of the build."""
    with tarfile.open(tar_path) as tar:
        names = ["/" + member.name.removeprefix(".").strip("/") for member in tar if not member.name.startswith("./dev/")]
    # debugfs reads a word in quotes, with a quote within it written twice.
    words = ['"' + name.replace('"', '""') + '"' for name in names]
    commands = shop.directory / "dates.debugfs"
    commands.write_text("".join(f"set_inode_field {word} {field} @{epoch_s}\n" for word in words for field in ("atime", "ctime")))
    # Named by its last part: in a path, a question mark would begin debugfs's options.
    process.run(
        [*("debugfs", "-w", "-f", str(commands)), f"{disk.name}?offset={offset}"],
        cwd=disk.parent,
        env=shop.env,
        stderr=shop.log,
        deadline=shop.deadline,
    )


def _mke2fs_version(shop: Workshop) -> tuple[int, ...]:
    """The version that ``mke2fs -V`` prints, such as (1, 47, 0)."""
    text = process.run(["mke2fs", "-V"], deadline=shop.deadline, check=False).stderr.decode(errors="replace")
    found = re.search(r"mke2fs (\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()


def _takes_tar(shop: Workshop) -> bool:
    """Whether this mke2fs was built with libarchive, which its version does not tell: ask it to read a tiny tar."""
    sample, target = shop.directory / "sample.tar", shop.directory / "sample.ext4"
    with tarfile.open(sample, "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    done = process.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(sample), str(target), "4M"], deadline=shop.deadline, check=False)
    sample.unlink()
    target.unlink(missing_ok=True)
    return done.status == 0
