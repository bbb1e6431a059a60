"""The templates of this user, in a cache of bounded size: found, made when first needed, dropped when they fail or grow old."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vmlab import paths
from vmlab.errors import GuestExited, HostError, TemplateError, UsageError
from vmlab.guest.boot import boot_into
from vmlab.guest.clone import template
from vmlab.guest.clone.template import MANIFEST, Host, Template
from vmlab.guest.machine import BootRequest
from vmlab.guest.setting import Setting
from vmlab.image.cache import Cache, remove, size_of
from vmlab.process import CommandError
from vmlab.progress import Progress

log = logging.getLogger(__name__)

# What all templates together may take before the least recently used ones go: about fifteen of the default guest.
LIMIT_MIB = 4096
_LIMIT_VARIABLE = "VMLAB_TEMPLATES_MIB"

# A template's memory file takes what the guest has touched: a fifth of a GiB for a guest of one.
_SPACE_BESIDE_RAM_BYTES = 512 << 20


@dataclass(frozen=True)
class TemplateStatus:
    """One row of ``vmlab template list``."""

    entry: str
    image: str
    memory_mib: int
    cpus: int
    init: str
    accelerator: str
    size_bytes: int
    made_at: str
    used_at: str


class TemplateStore:
    """The templates in one cache directory that this machine can use. ``progress`` is told what takes long."""

    def __init__(
        self, progress: Progress, *, host: Host | None = None, directory: Path | None = None, limit_mib: int | None = None
    ) -> None:
        self.host = host or Host.here()
        self._cache = _cache(directory, progress)
        self._progress = progress
        self._limit_bytes = _limit_bytes() if limit_mib is None else limit_mib << 20

    def find(self, request: BootRequest) -> Template | None:
        """The template for such a guest when there is one and every file of it is as it was saved; a damaged one is dropped."""
        key = template.key_of(request, self.host)
        entry = entry_name(request, key)
        directory = self._cache.final(entry)
        if not directory.exists():
            return None
        manifest = template.read_manifest(directory)
        problems = [f"{MANIFEST} is missing or damaged"] if manifest is None else self._cache.problems(entry, manifest["files"])
        if manifest is not None and manifest["key"] != key:
            problems.append(f"{MANIFEST} is that of another template")
        if manifest is None or problems:
            self._progress.notice(f"the saved guest in {directory} is damaged ({problems[0]}): it is made again")
            self._cache.discard(entry)
            return None
        return template.load(entry, directory, manifest)

    def get(self, request: BootRequest, setting: Setting) -> Template:
        """The template for such a guest, made first when there is none.

        Raises TemplateError when none can be made, for a reason that would not hinder a cold boot; what a guest that does not boot
        raises, because it would not boot cold either.
        """
        try:
            found = self.find(request)
            if found is not None:
                return found
            key = template.key_of(request, self.host)
            entry = entry_name(request, key)
            with self._cache.locked(entry, f"the template {entry}", setting.deadline):
                # Somebody else may have made it while we waited for the lock.
                return self.find(request) or self._make(request, key, setting)
        except OSError as exc:
            raise TemplateError(_because(exc)) from exc
        except (HostError, GuestExited, CommandError) as exc:
            raise TemplateError(exc.message, hint=exc.hint, detail=exc.detail) from exc

    def _make(self, request: BootRequest, key: str, setting: Setting) -> Template:
        """Boot, save, publish; the caller holds the lock."""
        began, progress = time.monotonic(), setting.progress
        entry = entry_name(request, key)
        partial = self._cache.partial(entry)
        remove(partial)
        self._require_space(request)
        out = partial / "out"
        out.mkdir(parents=True, mode=0o700)
        try:
            with contextlib.ExitStack() as stack, progress.phase("Making a template of it, to clone from now on"):
                machine = boot_into(stack, request, setting, keep_in=out)
                has_control = template.save(machine, out, self._cache.final(entry), setting.deadline, progress)
                progress.waiting("the template to be put away")
                manifest = template.manifest_of(out, machine, key=key, has_control=has_control, took_s=time.monotonic() - began)
                (out / MANIFEST).write_text(template.as_json(manifest))
                # An older QEMU opens the memory file for writing even where it only copies from it.
                writable = "" if self.host.qemu.number >= template.READ_ONLY_RAM_SINCE else "ram"
                directory = self._cache.publish(out, entry, writable=writable)
        finally:
            with contextlib.suppress(OSError):
                remove(partial)
        _make_room(self._cache, self._limit_bytes, keep=entry)
        # The first check seals it: later ones need not read a gigabyte.
        problems = self._cache.problems(entry, manifest["files"])
        if problems:
            raise TemplateError(f"the template {entry} is damaged as soon as it is made: {problems[0]}")
        return template.load(entry, directory, manifest)

    def drop(self, found: Template) -> None:
        """Remove a template whose clone did not come to life. (One that somebody is using meanwhile keeps its files until they end.)"""
        self._cache.discard(found.entry)

    def _require_space(self, request: BootRequest) -> None:
        needed = (request.memory_mib << 19) + _SPACE_BESIDE_RAM_BYTES
        info = os.statvfs(self._cache.root)
        free = info.f_bavail * info.f_frsize
        if free < needed:
            raise TemplateError(f"{free >> 20} MiB are free in {self._cache.root}, and saving a booted guest needs {needed >> 20}")


def entry_name(request: BootRequest, key: str) -> str:
    """What a template's directory is called."""
    return f"{request.image.name}-{key[:16]}"


def _because(exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk became full while a booted guest was saved"
    return (
        f"a booted guest cannot be saved: {exc.strerror or exc} ({exc.filename})"
        if exc.filename
        else f"a booted guest cannot be saved: {exc}"
    )


def _limit_bytes() -> int:
    given = os.environ.get(_LIMIT_VARIABLE, "")
    if given and not given.isdecimal():
        raise UsageError(f"{_LIMIT_VARIABLE} is {given!r}, which is no number of MiB", hint=f"for example {_LIMIT_VARIABLE}={LIMIT_MIB}")
    return int(given or LIMIT_MIB) << 20


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""


def status(directory: Path | None = None) -> list[TemplateStatus]:
    """One row a template, the most recently used first."""
    cache, rows = _cache(directory), []
    for entry in sorted(cache.entries(), key=cache.last_used, reverse=True):
        place = cache.final(entry)
        manifest = template.read_manifest(place)
        if manifest is not None:
            rows.append(
                TemplateStatus(
                    entry=entry,
                    image=manifest["image"],
                    memory_mib=manifest["memory_mib"],
                    cpus=manifest["cpus"],
                    init=manifest["init"],
                    accelerator=manifest["accelerator"],
                    size_bytes=size_of(place),
                    made_at=_moment(manifest["made_at_s"]),
                    used_at=_moment(cache.last_used(entry)),
                )
            )
    return rows


def prune(*, everything: bool = False, directory: Path | None = None) -> int:
    """Remove what is damaged, what killed builds left and what is over the limit, or all; returns the bytes freed."""
    cache = _cache(directory)
    freed = sum(cache.discard(entry, cache.partial(entry)) for entry in cache.leftovers())
    for entry in cache.entries():
        if everything or template.read_manifest(cache.final(entry)) is None:
            freed += cache.discard(entry)
    return freed + _make_room(cache, _limit_bytes(), keep="")


def _make_room(cache: Cache, limit_bytes: int, *, keep: str) -> int:
    """Remove the least recently used templates until the rest is within the limit."""
    sizes = {entry: size_of(cache.final(entry)) for entry in cache.entries()}
    total, freed = sum(sizes.values()), 0
    for entry in sorted(sizes, key=cache.last_used):
        if total - freed > limit_bytes and entry != keep:
            log.info("removing the template %s to make room", entry)
            freed += cache.discard(entry)
    return freed


def _cache(directory: Path | None, progress: Progress | None = None) -> Cache:
    return Cache(directory or paths.cache_dir() / "templates", progress or Progress())
