"""The steps that make an image, in their order."""

from __future__ import annotations

import dataclasses
import logging
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

from vmlab.deadline import Deadline
from vmlab.errors import ImageError
from vmlab.image.builder import bootloader, bootstrap, dates, initrd, mirror, rootfs
from vmlab.image.builder.recipe import Parameters, Recipe
from vmlab.image.builder.workshop import Workshop
from vmlab.progress import Progress

log = logging.getLogger(__name__)

# What a build takes at its height: the tar, the unpacked tree, and the disk twice (raw and qcow2).
SPACE_NEEDED = 3 << 30

_STATUS = "var/lib/dpkg/status"
_HEARTBEAT_S = 10.0


@dataclass(frozen=True)
class Order:
    """What to build, and where: the product goes to ``out``, ``partial`` keeps what a later attempt can go on from."""

    name: str
    key: str
    folder: Path
    recipe: Recipe
    parameters: Parameters
    partial: Path
    out: Path


@dataclass(frozen=True)
class Product:
    """What is known of an image once it is built, beyond its files."""

    kernel_version: str


def build(order: Order, progress: Progress, deadline: Deadline) -> Product:
    """Make ``disk.qcow2``, ``vmlinuz``, ``initrd.img`` and ``packages.txt`` in ``order.out``.

    The tar of the installed system is the costly part. It is kept in ``order.partial`` once it is whole, so that a build that was
    killed later goes on from there.
    """
    recipe, out = order.recipe, order.out
    work = order.partial / "work"
    work.mkdir()
    with (order.partial / "build.log").open("ab") as build_log:
        shop = Workshop(work, build_log, deadline)
        heartbeat = _Heartbeat(order.name, progress, order.partial / "build.log", build_log)
        tar = order.partial / "system.tar"
        if not tar.exists():
            with heartbeat.step("installing packages"):
                source = mirror.choose(order.parameters.suite, deadline)
                progress.notice(f"image {order.name}: packages come from {source.origin}")
                began_s, fresh, clamped = time.time(), work / "system.tar", work / "clamped.tar"
                bootstrap.bootstrap(recipe, order.parameters, order.folder, mirror=source, tar=fresh, shop=shop)
                dates.clamp(fresh, clamped, build_began_s=began_s)
                fresh.unlink()
                clamped.rename(tar)
        epoch_s = dates.newest_s(tar)
        shop = dataclasses.replace(shop, env=dates.environment(epoch_s))

        with heartbeat.step("making the initrd"):
            files = initrd.from_system(tar, recipe.initrd_modules, (order.folder / "initrd.sh").read_bytes())
            (out / "vmlinuz").write_bytes(files.kernel)
            (out / "initrd.img").write_bytes(files.initrd)
            (out / "packages.txt").write_text(_packages(tar))

        layout = bootloader.Layout(root_size=rootfs.size_for(tar, recipe.free_mib))
        seed = UUID(order.key[:32])
        raw = work / "disk.raw"
        with raw.open("wb") as file:
            file.truncate(layout.disk_size)
        with heartbeat.step("making the root file system"):
            rootfs.write(tar, raw, offset=layout.root_start, size=layout.root_size, uuid=str(seed), epoch_s=epoch_s, shop=shop)
        with heartbeat.step("making the boot loader"):
            config = bootloader.grub_config(recipe.cmdline, next(iter(recipe.inits.values())))
            bootloader.write(raw, layout, seed, kernel=out / "vmlinuz", initrd=out / "initrd.img", config=config, shop=shop)
        with heartbeat.step("compressing the disk"):
            shop.run(["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", raw, out / "disk.qcow2"])
        return Product(kernel_version=files.version)


class _Heartbeat:
    """Says which step is running: at its start, and every ten seconds with the last line of the build's log."""

    def __init__(self, name: str, progress: Progress, log_path: Path, build_log: IO[bytes]) -> None:
        self._name = name
        self._progress = progress
        self._log_path = log_path
        self._log = build_log

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        self._progress.notice(f"building image {self._name}: {what} (this is done once)")
        self._write(f"== {what}")
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(what, start, over), name="vmlab-build-heartbeat", daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
        self._write(f"== {what}: {time.monotonic() - start:.1f} s")

    def _beat(self, what: str, start: float, over: threading.Event) -> None:
        while not over.wait(_HEARTBEAT_S):
            last = last_line(self._log_path)
            self._progress.notice(f"building image {self._name}: {what}, {time.monotonic() - start:.0f} s so far: {last}")

    def _write(self, line: str) -> None:
        self._log.write(f"{line}\n".encode())
        self._log.flush()


def last_line(path: Path) -> str:
    """The last line of a log that says something, short enough for a terminal."""
    tail = path.read_bytes()[-4000:].decode(errors="replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:100] if lines else "nothing printed yet"


def _packages(tar_path: Path) -> str:
    """ "name version" of every package in the system, from dpkg's own database."""
    with tarfile.open(tar_path) as tar:
        member = next((member for member in tar if member.name.removeprefix("./") == _STATUS), None)
        content = tar.extractfile(member) if member is not None else None
        if content is None:
            raise ImageError(f"the system that was built has no file /{_STATUS}")
        status = content.read().decode()
    rows = []
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            rows.append(f"{fields['Package']} {fields['Version']}")
    return "\n".join(sorted(rows)) + "\n"
