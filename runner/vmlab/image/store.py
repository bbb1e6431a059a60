"""Images: named in the catalogue, built or fetched when first needed, kept in a cache that trusts nothing it has not checked.

An image is an entry of a `vmlab.image.cache`, known by its manifest: ``<cache>/images/debian-13-<key>/``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from vmlab import paths, process
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError, VmlabError
from vmlab.image import published
from vmlab.image.builder import disk as builder
from vmlab.image.builder.recipe import key_of, read_recipe
from vmlab.image.cache import Cache, Tell, remove, sha256, size_of
from vmlab.image.catalog import Catalog, Entry, PublishedEntry, RecipeEntry, users_catalogs
from vmlab.image.signature import check_file

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_DISK, _KERNEL, _INITRD = "disk.qcow2", "vmlinuz", "initrd.img"
# What a later build or download can go on from; everything else in a partial directory is scrap.
_RESUMABLE = ("system.tar", "download-*")

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
    firmware: str = "bios"
    """What starts its own boot loader, where it is not started by a kernel beside it: ``bios`` or ``uefi``."""


@dataclass(frozen=True)
class ImageStatus:
    """One row of ``vmlab image list``."""

    name: str
    title: str
    cached: bool
    size_bytes: int
    path: Path | None
    built_at: str | None
    kind: str = "recipe"


def _log_line(line: str) -> None:
    log.info("%s", line)


class ImageStore:
    """The images of one catalogue, in one cache directory.

    ``tell`` is called with short lines for the user while something takes long. ``build`` is the function that makes an image's files;
    tests put a quick one in its place. ``more`` are further catalogues, by default the user's own.
    """

    def __init__(
        self,
        directory: Path | None = None,
        catalog: Path | None = None,
        tell: Tell = _log_line,
        *,
        more: Sequence[Path] | None = None,
        build: Build = builder.build,
    ) -> None:
        self._catalog_path = catalog or paths.data_dir("images") / "catalog.yaml"
        self._more = users_catalogs() if more is None and catalog is None else list(more or ())
        self._directory = directory
        self._tell = tell
        self._build_files = build

    # --- the catalogue ----------------------------------------------------------------------------------------------------------

    @property
    def default(self) -> str:
        """The name of the image that is meant when none is named."""
        return self._catalog.default

    def names(self) -> list[str]:
        """Every image's name, in the catalogue's order."""
        return list(self._catalog.images)

    def entry(self, name: str) -> Entry:
        """The catalogue's entry for ``name``; UsageError with the nearest names when there is none."""
        return self._catalog.entry(name)

    def key(self, name: str) -> str:
        """What changes when the image of this name does, as far as its catalogue says: for caches of CI services."""
        return f"{name}-{self._published(name).pin or 'published'}" if self._is_published(name) else self._entry_name(name)

    def is_users_own(self, name: str) -> bool:
        """Whether an image is not one that ships with vmlab: a file, or an entry of a catalogue of the user's."""
        return is_file_name(name) or (name in self._catalog.images and self._catalog.file_of(name) != self._catalog_path)

    # --- getting one ------------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Image | None:
        """The cached image if there is one and every byte of it is as it was made; never builds or fetches."""
        entry = self._newest(name) if self._is_published(name) else self._entry_name(name)
        return None if entry is None or _problems(self._cache(), entry) else _load(name, self._cache().final(entry))

    def get(self, name: str, deadline: Deadline) -> Image:
        """The image of this name, or in the file of this name: made or fetched first when it is not cached or its copy is damaged."""
        if is_file_name(name):
            return self.take(Path(name), deadline)
        if (image := self.find(name)) is not None:
            return image
        return self.pull(name, deadline) if self._is_published(name) else self.build(name, deadline)

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

    def pull(self, name: str, deadline: Deadline, *, source: Path | None = None) -> Image:
        """The published image as its publisher has it today (or as it is pinned), fetched unless that very version is cached.

        ``source`` is a file that was fetched by other means; it is trusted for the same reasons as a download. What was cached stays until
        the new one is found right. Raises `signature.Untrusted`, and what `vmlab.image.download` raises.
        """
        entry = self._published(name)
        wanted = published.expected(entry, self._catalog.file_of(name).parent, deadline, self._tell)
        directory = _directory_name(name, wanted.digest)
        with self._cache().locked(directory, f"image {name}", deadline):
            if not _problems(self._cache(), directory):
                self._tell(f"image {name} is what its publisher has (digest {wanted.digest[:16]})")
                return _load(name, self._cache().final(directory))
            partial = self._cache().partial(directory)
            _require_space(name, partial)
            partial.mkdir(exist_ok=True)
            if source is None:
                self._tell(f"fetching image {name}")
                file = published.obtain(entry, wanted, partial, deadline, self._tell)
            else:
                check_file(source, wanted.digest, wanted.algorithm)
                file = source
            facts = {"default_user": entry.default_user, "firmware": entry.firmware, "origin": wanted.as_origin()}
            return self._keep(name, wanted.digest, file, entry.format, facts, deadline)

    def take(self, path: Path, deadline: Deadline) -> Image:
        """The image in a file of the user's own, copied into the cache unless it is there. Nobody vouches for it but the user."""
        if not path.is_file():
            raise UsageError(f"there is no image file {path}", hint="give a qcow2 or raw file, or a name that `vmlab image list` shows")
        try:
            digest = sha256(path)
        except OSError as exc:
            raise UsageError(f"cannot read {path}: {exc.strerror}", hint="give a file that you may read") from exc
        name = f"file-{re.sub('[^a-z0-9.-]', '-', path.stem.lower())[:40]}"
        directory = _directory_name(name, digest)
        with self._cache().locked(directory, f"image {path}", deadline):
            if _problems(self._cache(), directory):
                partial = self._cache().partial(directory)
                _require_space(name, partial)
                partial.mkdir(exist_ok=True)
                self._tell(f"copying {path} into the cache")
                facts = {"default_user": "student", "firmware": "bios", "origin": {"trusted_by": f"the user, as {path}"}}
                self._keep(name, digest, path, "", facts, deadline)
            return _load(name, self._cache().final(directory))

    def verify(self, name: str) -> list[str]:
        """What is wrong with the cached copy, one line each, every byte read; empty when it is sound."""
        entry = self._newest(name) if self._is_published(name) else self._entry_name(name)
        return [f"{name} was not fetched yet"] if entry is None else _problems(self._cache(), entry, thorough=True)

    # --- housekeeping -----------------------------------------------------------------------------------------------------------

    def status(self) -> list[ImageStatus]:
        """One row an image of the catalogue; looks at sizes only, `verify` reads the bytes."""
        rows = []
        for name, entry in self._catalog.images.items():
            cached = self._newest(name) if isinstance(entry, PublishedEntry) else self._entry_name(name)
            directory = self._cache().final(cached) if cached else None
            manifest = _read_manifest(directory) if directory else None
            rows.append(
                ImageStatus(
                    name=name,
                    title=entry.title,
                    cached=manifest is not None,
                    size_bytes=size_of(directory) if directory and manifest else 0,
                    path=directory if manifest else None,
                    built_at=manifest["built_at"] if manifest else None,
                    kind=entry.kind,
                )
            )
        return rows

    def prune(self) -> int:
        """Remove images that the catalogue no longer describes, older versions of published ones, the user's own files, and what builds
        left behind; returns the bytes freed.

        What a running build holds is left alone.
        """
        cache = self._cache()
        images = self._catalog.images.items()
        current = {self._newest(name) if isinstance(entry, PublishedEntry) else self._entry_name(name) for name, entry in images}
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
            parameters=self._recipe(name).parameters,
            partial=partial,
            out=out,
        )
        try:
            product = self._build_files(order, self._tell, deadline)
            shutil.copyfile(partial / "build.log", out / "build.log")
            _write_manifest(out, _facts(order, product))
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
                f"the disk became full while image {name} was made",
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
            if not (keep_resumable and any(path.match(pattern) for pattern in _RESUMABLE)):
                remove(path)
        if not any(partial.iterdir()):
            partial.rmdir()

    def _keep(
        self, name: str, key: str, source: Path, form: Literal["qcow2", "raw", ""], facts: Mapping[str, Any], deadline: Deadline
    ) -> Image:
        """Publish an image whose file was found right; the caller holds the lock and has made the partial directory."""
        entry = _directory_name(name, key)
        partial = self._cache().partial(entry)
        out = partial / "out"
        remove(out)
        out.mkdir()
        try:
            published.make_disk(source, out / _DISK, form, deadline)
            # Which program its boot loader starts as init is the image's own affair; all that we know of are systemd's.
            known = {"name": name, "key": key, "kind": "published", "cmdline": "", "inits": {"systemd": "its own"}}
            _write_manifest(out, {**known, **facts})
        except BaseException as exc:
            self._give_up(name, partial, exc)
            raise
        final = self._cache().publish(out, entry)
        remove(partial)
        self._tell(f"image {name} is ready ({size_of(final) >> 20} MiB in {final})")
        return _load(name, final)

    # --- places -----------------------------------------------------------------------------------------------------------------

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self._catalog_path, self._more)

    def _is_published(self, name: str) -> bool:
        return isinstance(self.entry(name), PublishedEntry)

    def _published(self, name: str) -> PublishedEntry:
        entry = self.entry(name)
        if not isinstance(entry, PublishedEntry):
            raise UsageError(f"the image {name} is built on this machine, not fetched", hint=f"vmlab image build {name}")
        return entry

    def _recipe(self, name: str) -> RecipeEntry:
        entry = self.entry(name)
        if not isinstance(entry, RecipeEntry):
            raise UsageError(f"the image {name} is fetched from its publisher, not built", hint=f"vmlab image pull {name}")
        return entry

    def _newest(self, name: str) -> str | None:
        """The cached version of a published image that is pinned, or without a pin the one that was fetched last."""
        pin = self._published(name).pin.partition(":")[2]
        versions = [(manifest["built_at"], entry) for entry, manifest in self._manifests() if manifest["name"] == name]
        found = [entry for _, entry in sorted(versions) if not pin or entry == _directory_name(name, pin)]
        return found[-1] if found else None

    def _manifests(self) -> list[tuple[str, dict[str, Any]]]:
        cache = self._cache()
        read = [(entry, _read_manifest(cache.final(entry))) for entry in cache.entries()]
        return [(entry, manifest) for entry, manifest in read if manifest and manifest.get("kind") == "published"]

    def _folder(self, name: str) -> Path:
        catalog = self._catalog.file_of(name)
        folder = catalog.parent / self._recipe(name).recipe
        if not folder.is_dir():
            raise UsageError(f"{catalog}: images.{name}.recipe: expected a folder beside the catalogue, found no {folder}")
        return folder

    def _key(self, name: str) -> str:
        return key_of(name, self._recipe(name).parameters, self._folder(name))

    def _cache(self) -> Cache:
        return Cache(self._directory or paths.cache_dir() / "images", self._tell)

    def _entry_name(self, name: str) -> str:
        return _directory_name(name, self._key(name))

    def _final(self, name: str) -> Path:
        return self._cache().final(self._entry_name(name))


def _directory_name(name: str, key: str) -> str:
    return f"{name}-{key[:16]}"


def is_file_name(name: str) -> bool:
    """Whether an image is named by its file, not by the catalogue's word for it."""
    return "/" in name or name.endswith((".qcow2", ".img", ".raw"))


def _facts(order: builder.Order, product: builder.Product) -> dict[str, Any]:
    return {
        "name": order.name,
        "key": order.key,
        "kind": "recipe",
        "kernel_version": product.kernel_version,
        "cmdline": order.recipe.cmdline,
        "inits": order.recipe.inits,
        "default_user": order.recipe.default_user,
        "packages": "packages.txt",
    }


def _write_manifest(out: Path, facts: Mapping[str, Any]) -> None:
    """Write down what an image is, when it was made (or fetched), and the digest of each of its files."""
    files = {path.name: {"sha256": sha256(path), "size": path.stat().st_size} for path in sorted(out.iterdir()) if path.is_file()}
    # To the microsecond: of two versions that were fetched one after the other, the later is the newer one.
    manifest = {**facts, "built_at": datetime.now(UTC).isoformat(timespec="microseconds"), "vmlab": _version(), "files": files}
    (out / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


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
        kernel=directory / _KERNEL if _KERNEL in manifest["files"] else None,
        initrd=directory / _INITRD if _INITRD in manifest["files"] else None,
        cmdline=manifest["cmdline"],
        inits=manifest["inits"],
        default_user=manifest["default_user"],
        manifest=manifest,
        firmware=manifest.get("firmware", "bios"),
    )


def _read_manifest(directory: Path) -> dict[str, Any] | None:
    """An image's manifest, or None where there is none that can be used."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        usable = all(isinstance(manifest["files"][name]["sha256"], str) for name in _verified(manifest)) and all(
            manifest[field] for field in ("name", "key", "built_at", "inits", "default_user")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if usable else None


def _verified(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that an image boots from."""
    return (_DISK,) if manifest.get("kind") == "published" else (_DISK, _KERNEL, _INITRD)


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
    return cache.problems(directory.name, {name: manifest["files"][name] for name in _verified(manifest)}, thorough=thorough)


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
