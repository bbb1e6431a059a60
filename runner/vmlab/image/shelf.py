"""The images that are kept: entries of a cache, each known by its manifest and trusted no further than its digests."""

from __future__ import annotations

from vmlab.image.cache import Cache
from vmlab.image.image import MANIFEST, Image, boots_from, load, read_manifest


def entry_name(name: str, key: str) -> str:
    """The cache's entry for the image of this name and key, ``debian-13-<key>``."""
    return f"{name}-{key[:16]}"


class Shelf:
    """The finished images in one cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def image(self, name: str, entry: str) -> Image:
        """The image in an entry that `problems` found right; ImageError when it has gone meanwhile."""
        return load(name, self._cache.final(entry))

    def problems(self, entry: str, *, thorough: bool = False) -> list[str]:
        """Everything that differs from what the manifest says, one line each, the quick looks first; ``thorough`` reads every byte."""
        directory = self._cache.final(entry)
        if not directory.is_dir():
            return [f"{directory} does not exist"]
        manifest = read_manifest(directory)
        if manifest is None:
            return [f"{MANIFEST} is missing or damaged"]
        if entry != entry_name(manifest["name"], manifest["key"]):
            return [f"{MANIFEST} is that of another image"]
        return self._cache.problems(entry, {name: manifest["files"][name] for name in boots_from(manifest)}, thorough=thorough)

    def fetched(self, name: str) -> list[str]:
        """The entries of a published image's versions, in the order in which they were fetched."""
        read = [(entry, read_manifest(self._cache.final(entry))) for entry in self._cache.entries()]
        versions = [(manifest["built_at"], entry, manifest) for entry, manifest in read if manifest and manifest["name"] == name]
        return [entry for _, entry, manifest in sorted(versions, key=lambda row: row[:2]) if manifest.get("kind") == "published"]
