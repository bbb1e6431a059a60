"""Images that are built on this machine, from a recipe folder beside the catalogue."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vmlab.deadline import Deadline
from vmlab.errors import UsageError
from vmlab.image.builder import steps
from vmlab.image.builder.recipe import key_of, read_recipe
from vmlab.image.catalog import RecipeItem
from vmlab.image.shelf import Shelf
from vmlab.image.sources.source import Version, Workplace
from vmlab.progress import Progress

Build = Callable[[steps.Order, Progress, Deadline], steps.Product]


@dataclass(frozen=True)
class RecipeSource:
    """The image of one name that a recipe makes; ``catalog`` is the file that says so."""

    kind: ClassVar[str] = "recipe"
    command: ClassVar[str] = "build"
    made: ClassVar[str] = "built"
    described: ClassVar[str] = "built on this machine, not fetched"
    unchanged: ClassVar[str] = "what its recipe describes"
    # The tar of the installed system, which is the costly part.
    resumable: ClassVar[tuple[str, ...]] = ("system.tar",)

    name: str
    item: RecipeItem
    catalog: Path
    build: Build = steps.build

    @property
    def space_bytes(self) -> int:
        """See `Source`."""
        return steps.SPACE_NEEDED

    def key(self) -> str:
        """See `Source`."""
        return self._version().entry

    def kept(self, _shelf: Shelf) -> str:
        """See `Source`."""
        return self._version().entry

    def latest(self, _progress: Progress, _deadline: Deadline) -> Version:
        """See `Source`."""
        return self._version()

    def make(self, version: Version, place: Workplace, progress: Progress, deadline: Deadline) -> Mapping[str, Any]:
        """See `Source`. Raises `process.CommandError` and OSError."""
        folder = self._folder()
        recipe = read_recipe(folder)
        order = steps.Order(
            name=version.name,
            key=version.key,
            folder=folder,
            recipe=recipe,
            parameters=self.item.parameters,
            partial=place.partial,
            out=place.out,
        )
        product = self.build(order, progress, deadline)
        shutil.copyfile(place.partial / "build.log", place.out / "build.log")
        return {
            "kernel_version": product.kernel_version,
            "cmdline": recipe.cmdline,
            "inits": recipe.inits,
            "default_user": recipe.default_user,
            "packages": "packages.txt",
        }

    def _version(self) -> Version:
        return Version(self.name, key_of(self.name, self.item.parameters, self._folder()))

    def _folder(self) -> Path:
        folder = self.catalog.parent / self.item.recipe
        if not folder.is_dir():
            raise UsageError(f"{self.catalog}: images.{self.name}.recipe: expected a folder beside the catalogue, found no {folder}")
        return folder
