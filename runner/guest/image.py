"""Images: named in the catalogue, built when first needed, kept in a cache that trusts nothing it has not checked.

An image is an entry of a `runner.guest.cache`, known by its manifest: ``<cache>/images/debian-13-<key>/``.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from runner import paths, process
from runner.deadline import Deadline
from runner.errors import HostError, ImageError, UsageError, VmlabError
from runner.guest.build import builder
from runner.guest.build.recipe import Catalog, CatalogEntry, key_of, read_catalog, read_recipe
from runner.guest.cache import Cache, Tell, remove, sha256, size_of

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_DISK, _KERNEL, _INITRD = "disk.qcow2", "vmlinuz", "initrd.img"
_VERIFIED = (_DISK, _KERNEL, _INITRD)
# What a later build can go on from; everything else in a partial directory is scrap.
_RESUMABLE = "system.tar"

Build = Callable[[builder.Order, Tell, Deadline], builder.Product]


@dataclass(frozen=True)
class Image:
    """A disk to boot from, checked against its manifest when it was handed out."""

    name: str
    digest: str
    directory: Path
    disk: Path
    kernel: Path | None
    initrd: Path | None
    cmdline: str
    inits: Mapping[str, str]
    default_user: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class ImageStatus:
    """One row of ``vmlab image list``."""

    name: str
    title: str
    cached: bool
    size_bytes: int
    path: Path | None
    built_at: str | None


def _log_line(line: str) -> None:
    log.info("%s", line)


class ImageStore:
    """The images of one catalogue, in one cache directory.

    ``tell`` is called with short lines for the user while something takes long. ``build`` is the function that makes an image's files;
    tests put a quick one in its place.
    """

    def __init__(
        self,
        directory: Path | None = None,
        catalog: Path | None = None,
        tell: Tell = _log_line,
        *,
        build: Build = builder.build,
    ) -> None:
        self._catalog_path = catalog or paths.data_dir("images") / "catalog.yaml"
        self._directory = directory
        self._tell = tell
        self._build_files = build

    # --- the catalogue ----------------------------------------------------------------------------------------------------------

    @property
    def default(self) -> str:
        """The name of the image that is meant when none is named."""
        return self._catalog().default

    def names(self) -> list[str]:
        """Every image's name, in the catalogue's order."""
        return list(self._catalog().images)

    def entry(self, name: str) -> CatalogEntry:
        """The catalogue's entry for ``name``; UsageError with the nearest names when there is none."""
        images = self._catalog().images
        if name not in images:
            near = difflib.get_close_matches(name, images, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(images)}"
            raise UsageError(f"there is no image {name}", hint=hint)
        return images[name]

    # --- getting one ------------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Image | None:
        """The cached image if there is one and every byte of it is as it was built; never builds."""
        directory = self._final(name)
        return None if _problems(self._cache(), directory.name) else _load(name, directory)

    def get(self, name: str, deadline: Deadline) -> Image:
        """The image, built first when it is not cached or its copy is damaged."""
        return self.find(name) or self.build(name, deadline)

    def build(self, name: str, deadline: Deadline, *, force: bool = False) -> Image:
        """The image, built unless another process did so meanwhile; with ``force`` built in any case."""
        with self._cache().locked(self._entry_name(name), f"image {name}", deadline):
            final = self._final(name)
            if not force:
                # Somebody else may have built it while we waited for the lock.
                if (image := self.find(name)) is not None:
                    return image
                if final.exists():
                    self._tell(f"image {name} in the cache is damaged ({_problems(self._cache(), final.name)[0]}): building it again")
            return self._make(name, deadline, force=force)

    def verify(self, name: str) -> list[str]:
        """What is wrong with the cached copy, one line each, every byte read; empty when it is sound."""
        return _problems(self._cache(), self._entry_name(name), thorough=True)

    # --- housekeeping -----------------------------------------------------------------------------------------------------------

    def status(self) -> list[ImageStatus]:
        """One row an image of the catalogue; looks at sizes only, `verify` reads the bytes."""
        rows = []
        for name, entry in self._catalog().images.items():
            directory = self._final(name)
            manifest = _read_manifest(directory)
            cached = manifest is not None
            rows.append(
                ImageStatus(
                    name=name,
                    title=entry.title,
                    cached=cached,
                    size_bytes=size_of(directory) if cached else 0,
                    path=directory if cached else None,
                    built_at=manifest["built_at"] if manifest else None,
                )
            )
        return rows

    def prune(self) -> int:
        """Remove images that the catalogue no longer describes and what builds left behind; returns the bytes freed.

        What a running build holds is left alone.
        """
        cache = self._cache()
        current = {self._entry_name(name) for name in self._catalog().images}
        freed = sum(cache.discard(entry) for entry in cache.entries() if entry not in current)
        return freed + sum(cache.discard(entry, cache.partial(entry)) for entry in cache.leftovers())

    # --- building ---------------------------------------------------------------------------------------------------------------

    def _make(self, name: str, deadline: Deadline, *, force: bool) -> Image:
        """Build and publish; the caller holds the lock."""
        key = self._key(name)
        cache, entry = self._cache(), _directory_name(name, key)
        partial = cache.partial(entry)
        self._clear(partial, keep_resumable=not force)
        _require_space(name, partial)
        partial.mkdir(exist_ok=True)
        out = partial / "out"
        out.mkdir()
        folder = self._folder(name)
        order = builder.Order(
            name=name,
            key=key,
            folder=folder,
            recipe=read_recipe(folder),
            parameters=self.entry(name).parameters,
            partial=partial,
            out=out,
        )
        try:
            product = self._build_files(order, self._tell, deadline)
            shutil.copyfile(partial / "build.log", out / "build.log")
            _write_manifest(order, product)
        except BaseException as exc:
            self._give_up(name, partial, exc)
            raise
        final = cache.publish(out, entry)
        remove(partial)
        self._tell(f"image {name} is ready ({size_of(final) >> 20} MiB in {final})")
        return _load(name, final)

    def _give_up(self, name: str, partial: Path, exc: BaseException) -> None:
        """Clean up after a build that failed or was interrupted, and turn a full disk into words."""
        build_log = partial / "build.log"
        tail = build_log.read_bytes()[-4000:].decode(errors="replace") if build_log.exists() else ""
        # Asked before anything is removed: afterwards the disk is no longer full.
        full = _disk_is_full(partial, exc, tail)
        with contextlib.suppress(OSError, VmlabError):
            self._clear(partial, keep_resumable=not full)
        if full:
            raise HostError(
                f"the disk became full while image {name} was built",
                hint=f"free about {_gib(builder.SPACE_NEEDED)} in {partial.parent}, or choose another place: VMLAB_CACHE=/some/where",
            ) from exc
        if isinstance(exc, process.CommandError):
            raise ImageError(f"image {name} could not be built: {exc.message}", hint=exc.hint, detail=tail or exc.detail) from exc
        if isinstance(exc, OSError):
            raise HostError(f"image {name} could not be built: {exc}", detail=tail) from exc

    def _clear(self, partial: Path, *, keep_resumable: bool) -> None:
        """Leave nothing of an earlier build but what this one can go on from."""
        if not partial.exists():
            return
        for path in partial.iterdir():
            if not (keep_resumable and path.name == _RESUMABLE):
                remove(path)
        if not any(partial.iterdir()):
            partial.rmdir()

    # --- places -----------------------------------------------------------------------------------------------------------------

    def _catalog(self) -> Catalog:
        return read_catalog(self._catalog_path)

    def _folder(self, name: str) -> Path:
        folder = self._catalog_path.parent / self.entry(name).recipe
        if not folder.is_dir():
            raise UsageError(f"{self._catalog_path}: images.{name}.recipe: expected a folder beside the catalogue, found no {folder}")
        return folder

    def _key(self, name: str) -> str:
        return key_of(name, self.entry(name), self._folder(name))

    def _cache(self) -> Cache:
        return Cache(self._directory or paths.cache_dir() / "images", self._tell)

    def _entry_name(self, name: str) -> str:
        return _directory_name(name, self._key(name))

    def _final(self, name: str) -> Path:
        return self._cache().final(self._entry_name(name))


def _directory_name(name: str, key: str) -> str:
    return f"{name}-{key[:16]}"


def _write_manifest(order: builder.Order, product: builder.Product) -> None:
    files = {path.name: {"sha256": sha256(path), "size": path.stat().st_size} for path in sorted(order.out.iterdir()) if path.is_file()}
    manifest = {
        "name": order.name,
        "key": order.key,
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "vmlab": _version(),
        "kernel_version": product.kernel_version,
        "cmdline": order.recipe.cmdline,
        "inits": order.recipe.inits,
        "default_user": order.recipe.default_user,
        "packages": "packages.txt",
        "files": files,
    }
    (order.out / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _version() -> str:
    try:
        return metadata.version("vmlab")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a clone that was never installed


def _load(name: str, directory: Path) -> Image:
    manifest = _read_manifest(directory)
    if manifest is None:
        raise ImageError(f"image {name} vanished from the cache", hint="try again")
    return Image(
        name=name,
        digest=manifest["files"][_DISK]["sha256"],
        directory=directory,
        disk=directory / _DISK,
        kernel=directory / _KERNEL,
        initrd=directory / _INITRD,
        cmdline=manifest["cmdline"],
        inits=manifest["inits"],
        default_user=manifest["default_user"],
        manifest=manifest,
    )


def _read_manifest(directory: Path) -> dict[str, Any] | None:
    """An image's manifest, or None where there is none that can be used."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        usable = all(isinstance(manifest["files"][name]["sha256"], str) for name in _VERIFIED) and all(
            manifest[field] for field in ("name", "key", "built_at", "cmdline", "inits", "default_user")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if usable else None


def _problems(cache: Cache, entry: str, *, thorough: bool = False) -> list[str]:
    """Everything that differs from what the manifest says, the quick looks first."""
    directory = cache.final(entry)
    if not directory.is_dir():
        return [f"{directory} does not exist"]
    manifest = _read_manifest(directory)
    if manifest is None:
        return [f"{_MANIFEST} is missing or damaged"]
    if directory.name != _directory_name(manifest["name"], manifest["key"]):
        return [f"{_MANIFEST} is that of another image"]
    return cache.problems(directory.name, {name: manifest["files"][name] for name in _VERIFIED}, thorough=thorough)


def _require_space(name: str, partial: Path) -> None:
    free = shutil.disk_usage(partial.parent).free
    if free < builder.SPACE_NEEDED:
        raise HostError(
            f"not enough disk space to build image {name}: {_gib(free)} free in {partial.parent}, {_gib(builder.SPACE_NEEDED)} needed",
            hint="free some, or choose another place: VMLAB_CACHE=/some/where",
        )


def _disk_is_full(partial: Path, exc: BaseException, log_tail: str) -> bool:
    """Whether an exception came from a full disk; tools only say so in their own words, or leave no room to say anything."""
    if isinstance(exc, OSError):
        return exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if not isinstance(exc, process.CommandError):
        return False
    words = f"{exc.message}\n{exc.detail}\n{log_tail}"
    return any(os.strerror(code) in words for code in (errno.ENOSPC, errno.EDQUOT)) or (shutil.disk_usage(partial.parent).free < 16 << 20)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
