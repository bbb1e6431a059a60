"""The recipes that images are built from: plain data, checked as it is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vmlab import yamlfile

# Counts changes to runner/vmlab/image/builder/ that make a different image from the same recipe; part of every image's key.
BUILDER_VERSION = 1


class Strict(BaseModel):
    """Data from a file: unknown fields are mistakes, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameters(Strict):
    """What differs between images of one recipe."""

    suite: str = Field(pattern=r"^[a-z]+$")
    mmdebstrap_hooks: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Packages beside the recipe's."""


class Recipe(Strict):
    """A recipe folder's ``recipe.yaml``; see the comments in that file."""

    architecture: Literal["amd64"]
    packages: tuple[str, ...]
    exclude_paths: tuple[str, ...] = ()
    initrd_modules: tuple[str, ...]
    cmdline: str
    inits: dict[str, str] = Field(min_length=1)
    default_user: str
    free_mib: int = Field(gt=0)


def read_recipe(folder: Path) -> Recipe:
    """The recipe in ``folder``; UsageError naming file and field when it is not one."""
    return yamlfile.validate(folder / "recipe.yaml", Recipe)


def key_of(name: str, parameters: Parameters, folder: Path) -> str:
    """The SHA-256 of everything that decides an image's content: builder, parameters, and each file of the recipe folder.

    The mirror is not part of it: it says where the packages come from, not which they are.
    """
    digest = hashlib.sha256()
    head = {"builder": BUILDER_VERSION, "name": name, "parameters": told(parameters)}
    digest.update(json.dumps(head, sort_keys=True).encode())
    for path in recipe_files(folder):
        content = path.read_bytes()
        # The length stands before the bytes, so that no two different folders run together into one stream.
        line = f"\n{path.relative_to(folder).as_posix()} {len(content)}\n"
        digest.update(line.encode() + content)
    return digest.hexdigest()


def told(parameters: Parameters) -> dict[str, object]:
    """The parameters as a key has them. An image without packages of its own keeps the key that it had before there could be any."""
    return parameters.model_dump(exclude=None if parameters.packages else {"packages"})


def recipe_files(folder: Path) -> list[Path]:
    """The files of a recipe folder in an order that is the same everywhere."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.as_posix())
