"""Images: named in the catalogue, made when first needed, kept in a cache that trusts nothing it has not checked.

An image is an entry of a `vmlab.image.cache`, known by its manifest: ``<cache>/images/debian-13-<key>/``. Where images come from is the
business of `vmlab.image.sources`; the store knows no kind of source.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vmlab import paths, process
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError, VmlabError
from vmlab.image.builder import steps
from vmlab.image.cache import Cache, remove, size_of
from vmlab.image.catalog import Catalog, users_catalogs
from vmlab.image.image import Image, read_manifest, write_manifest
from vmlab.image.shelf import Shelf
from vmlab.image.sources import Build, Source, Version, Workplace, is_file_name, source_of
from vmlab.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageStatus:
    """What ``vmlab image list`` says of one image."""

    name: str
    title: str
    cached: bool
    size_bytes: int
    path: Path | None
    built_at: str | None
    kind: str = "recipe"


class ImageStore:
    """The images of one catalogue, in one cache directory.

    ``progress`` is told what takes long. ``build`` is the function that makes an image's files;
    tests put a quick one in its place. ``more`` are further catalogues, by default the user's own.
    """

    def __init__(
        self,
        directory: Path | None = None,
        catalog: Path | None = None,
        progress: Progress | None = None,
        *,
        more: Sequence[Path] | None = None,
        build: Build = steps.build,
    ) -> None:
        self._catalog_path = catalog or paths.data_dir("images") / "catalog.yaml"
        self._more = users_catalogs() if more is None and catalog is None else list(more or ())
        self._directory = directory
        self._progress = progress or Progress()
        self._build_files = build

    # --- the catalogue ----------------------------------------------------------------------------------------------------------

    @property
    def default(self) -> str:
        """The name of the image that is meant when none is named."""
        return self._catalog.default

    def names(self) -> list[str]:
        """Every image's name, in the catalogue's order."""
        return list(self._catalog.images)

    def key(self, name: str) -> str:
        """What changes when the image of this name does, as far as its catalogue says: for caches of CI services."""
        return self._source(name).key()

    def is_users_own(self, name: str) -> bool:
        """Whether an image is not one that ships with vmlab: a file, or an item of a catalogue of the user's."""
        return is_file_name(name) or (name in self._catalog.images and self._catalog.file_of(name) != self._catalog_path)

    # --- getting one ------------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Image | None:
        """The cached image if there is one and every byte of it is as it was made; never builds or fetches."""
        return self._find(self._source(name))

    def get(self, name: str, deadline: Deadline) -> Image:
        """The image of this name, or in the file of this name: made or fetched first when it is not cached or its copy is damaged."""
        source = self._source(name)
        return self._find(source) or self._get(source, deadline)

    def build(self, name: str, deadline: Deadline, *, force: bool = False) -> Image:
        """The image, built unless another process did so meanwhile; with ``force`` built in any case."""
        return self._get(self._source_for("build", name), deadline, force=force)

    def pull(self, name: str, deadline: Deadline, *, source: Path | None = None) -> Image:
        """The published image as its publisher has it today (or as it is pinned), fetched unless that very version is cached.

        ``source`` is a file that was fetched by other means; it is trusted for the same reasons as a download. What was cached stays until
        the new one is found right. Raises `signature.Untrusted`, and what `vmlab.image.download` raises.
        """
        return self._get(self._source_for("pull", name, source), deadline)

    def verify(self, name: str) -> list[str]:
        """What is wrong with the cached copy, one line each, every byte read; empty when it is sound."""
        source = self._source(name)
        entry = source.kept(self._shelf)
        return [f"{name} was not {source.made} yet"] if entry is None else self._shelf.problems(entry, thorough=True)

    # --- housekeeping -----------------------------------------------------------------------------------------------------------

    def status(self) -> list[ImageStatus]:
        """What is there of each image of the catalogue; looks at sizes only, `verify` reads the bytes."""
        return [self._status(name) for name in self.names()]

    def _status(self, name: str) -> ImageStatus:
        source = self._source(name)
        entry = source.kept(self._shelf)
        directory = self._cache.final(entry) if entry else None
        manifest = read_manifest(directory) if directory else None
        return ImageStatus(
            name=name,
            title=self._catalog.item(name).title,
            cached=manifest is not None,
            size_bytes=size_of(directory) if directory and manifest else 0,
            path=directory if manifest else None,
            built_at=manifest["built_at"] if manifest else None,
            kind=source.kind,
        )

    def prune(self) -> int:
        """Remove images that the catalogue no longer describes, older versions of published ones, the user's own files, and what builds
        left behind; returns the bytes freed.

        What a running build holds is left alone.
        """
        cache, shelf = self._cache, self._shelf
        current = {self._source(name).kept(shelf) for name in self.names()}
        freed = sum(cache.discard(entry) for entry in cache.entries() if entry not in current)
        return freed + sum(cache.discard(entry, cache.partial(entry)) for entry in cache.leftovers())

    # --- making one -------------------------------------------------------------------------------------------------------------

    def _find(self, source: Source) -> Image | None:
        entry = source.kept(self._shelf)
        return None if entry is None or self._shelf.problems(entry) else self._shelf.image(source.name, entry)

    def _get(self, source: Source, deadline: Deadline, *, force: bool = False) -> Image:
        """The newest version that the source has: made, unless it is there and nothing is wrong with it."""
        version, cache = source.latest(self._progress, deadline), self._cache
        with cache.locked(version.entry, f"image {source.name}", deadline):
            problems = self._shelf.problems(version.entry)
            if not problems and not force:
                self._progress.notice(f"image {source.name} is {source.unchanged} (digest {version.key[:16]})")
            else:
                if cache.final(version.entry).exists() and not force:
                    self._progress.notice(f"image {source.name} in the cache is damaged ({problems[0]}): it is {source.made} again")
                self._make(source, version, deadline, resume=not force)
            return self._shelf.image(source.name, version.entry)

    def _make(self, source: Source, version: Version, deadline: Deadline, *, resume: bool) -> None:
        """Make the image and put it in its place; the caller holds the lock."""
        place = Workplace(self._cache.partial(version.entry), self._cache.partial(version.entry) / "out")
        _clear(place, source.resumable if resume else ())
        _require_space(source, place)
        place.partial.mkdir(exist_ok=True)
        place.out.mkdir()
        try:
            facts = source.make(version, place, self._progress, deadline)
            write_manifest(place.out, {"name": version.name, "key": version.key, "kind": source.kind, **facts})
        except BaseException as exc:
            _give_up(source, place, exc)
            raise
        final = self._cache.publish(place.out, version.entry)
        remove(place.partial)
        self._progress.notice(f"image {source.name} is ready ({size_of(final) >> 20} MiB in {final})")

    # --- places -----------------------------------------------------------------------------------------------------------------

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self._catalog_path, self._more)

    @property
    def _cache(self) -> Cache:
        return Cache(self._directory or paths.cache_dir() / "images", self._progress)

    @property
    def _shelf(self) -> Shelf:
        return Shelf(self._cache)

    def _source(self, name: str, provided: Path | None = None) -> Source:
        return source_of(name, self._catalog, self._build_files, provided)

    def _source_for(self, command: str, name: str, provided: Path | None = None) -> Source:
        """The source of an image that is made by this command of ``vmlab image``; UsageError, which says by which, for any other."""
        source = self._source(name, provided)
        if source.command != command:
            hint = f"vmlab image {source.command} {name}" if source.command else f"vmlab run LAB --image {name}"
            raise UsageError(f"the image {name} is {source.described}", hint=hint)
        return source


def _clear(place: Workplace, resumable: Sequence[str]) -> None:
    """Leave nothing of an earlier attempt but what this one can go on from."""
    if not place.partial.exists():
        return
    for path in place.partial.iterdir():
        if path.name not in resumable:
            remove(path)
    if not any(place.partial.iterdir()):
        place.partial.rmdir()


def _require_space(source: Source, place: Workplace) -> None:
    parent = place.partial.parent
    free = shutil.disk_usage(parent).free
    if free < source.space_bytes:
        raise HostError(
            f"not enough disk space for image {source.name}: {_gib(free)} free in {parent}, {_gib(source.space_bytes)} needed",
            hint="free some, or choose another place: VMLAB_CACHE=/some/where",
        )


def _give_up(source: Source, place: Workplace, exc: BaseException) -> None:
    """Clean up after an attempt that failed or was interrupted, and turn a full disk into words."""
    build_log = place.partial / "build.log"
    tail = build_log.read_bytes()[-4000:].decode(errors="replace") if build_log.exists() else ""
    # Asked before anything is removed: afterwards the disk is no longer full.
    full = _disk_is_full(place, exc, tail)
    with contextlib.suppress(OSError, VmlabError):
        _clear(place, () if full else source.resumable)
    if full:
        raise HostError(
            f"the disk became full while image {source.name} was made",
            hint=f"free about {_gib(source.space_bytes)} in {place.partial.parent}, or choose another place: VMLAB_CACHE=/some/where",
        ) from exc
    what = f"image {source.name} could not be {source.made}"
    if isinstance(exc, process.CommandError):
        raise ImageError(f"{what}: {exc.message}", hint=exc.hint, detail=tail or exc.detail) from exc
    if isinstance(exc, OSError):
        raise HostError(f"{what}: {exc}", detail=tail) from exc


def _disk_is_full(place: Workplace, exc: BaseException, log_tail: str) -> bool:
    """Whether an exception came from a full disk; tools only say so in their own words, or leave no room to say anything."""
    if isinstance(exc, OSError):
        return exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if not isinstance(exc, process.CommandError):
        return False
    words = f"{exc.message}\n{exc.detail}\n{log_tail}"
    full = any(os.strerror(code) in words for code in (errno.ENOSPC, errno.EDQUOT))
    return full or shutil.disk_usage(place.partial.parent).free < 16 << 20


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
