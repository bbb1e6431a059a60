"""Where images come from: three kinds of source, of which the store knows what they have in common.

source     what that is
recipe     built on this machine from a recipe folder
published  fetched from a publisher, or taken from a file that was
file       a file of the user's own
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from vmlab.image.catalog import Catalog, PublishedItem, RecipeItem
from vmlab.image.sources.file import FileSource, is_file_name
from vmlab.image.sources.published import PublishedSource
from vmlab.image.sources.recipe import Build, RecipeSource
from vmlab.image.sources.source import Source, Version, Workplace

__all__ = ["Build", "Source", "Version", "Workplace", "is_file_name", "source_of"]


def source_of(name: str, catalog: Catalog, build: Build, provided: Path | None = None) -> Source:
    """The source of the image of this name, or in the file of this name; UsageError with the nearest names when there is none.

    ``build`` makes the files of an image that has a recipe. ``provided`` is a file that stands for a published image's download.
    """
    if is_file_name(name):
        return FileSource(Path(name))
    match catalog.item(name):
        case RecipeItem() as item:
            return RecipeSource(name, item, catalog.file_of(name), build)
        case PublishedItem() as item:
            return PublishedSource(name, item, catalog.file_of(name), provided)
        case _ as never:
            assert_never(never)
