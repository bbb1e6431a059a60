"""The catalogue of images: plain data, checked as it is read. Ours, the user's own, and any that the command line names, as one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Discriminator, Field, Tag, model_validator

from vmlab import yamlfile
from vmlab.errors import UsageError
from vmlab.image.builder.recipe import Parameters, Strict

_Address = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
# Names become names of directories.
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
_HEX_DIGITS = {"sha256": 64, "sha512": 128}


class RecipeItem(Strict):
    """An image that is built on this machine, from a folder beside the catalogue."""

    kind: Literal["recipe"]
    title: str
    recipe: str = Field(pattern=r"^[a-z0-9-]+$")
    parameters: Parameters


class Signature(Strict):
    """How the publisher signs the digest file.

    ``address`` is that of a detached signature; without one the digest file itself is clear-signed. ``key`` is a file beside the catalogue,
    of which only the keys with these ``fingerprints`` count.
    """

    key: str
    fingerprints: tuple[Annotated[str, Field(pattern=r"^[0-9A-F]{40}([0-9A-F]{24})?$")], ...] = Field(min_length=1)
    address: _Address | None = None


class Digests(Strict):
    """Where the publisher says what its files' digests are."""

    address: _Address
    algorithm: Literal["sha256", "sha512"]
    signature: Signature | None = None


class PublishedItem(Strict):
    """An image as its publisher made it. It is trusted for a ``pin`` (a digest written down here), or for the publisher's digest file."""

    kind: Literal["published"]
    title: str
    addresses: tuple[_Address, ...] = Field(min_length=1)
    format: Literal["qcow2", "raw"] = "qcow2"
    file: str = Field(default="", pattern=r"^[^/]*$", description="its name in the digest file; empty: the last part of its address")
    digests: Digests | None = None
    pin: str = Field(default="", pattern=r"^((sha256|sha512):[0-9a-f]+)?$")
    default_user: str = Field(pattern=r"^[a-z_][a-z0-9_-]*$")
    firmware: Literal["bios", "uefi"] = "bios"

    @model_validator(mode="after")
    def _is_trusted_for_something(self) -> PublishedItem:
        algorithm, _, digits = self.pin.partition(":")
        if self.pin and len(digits) != _HEX_DIGITS[algorithm]:
            raise ValueError(f"its pin must have {_HEX_DIGITS[algorithm]} hexadecimal digits after {algorithm}: (it has {len(digits)})")
        if not self.pin and self.digests is None:
            raise ValueError("nothing says which file is the right one: it needs digests, or a pin")
        return self

    @property
    def file_name(self) -> str:
        """What the digest file calls it."""
        return self.file or self.addresses[0].rpartition("/")[2]


Item = RecipeItem | PublishedItem


def _tag(value: Any) -> str:
    """Which of the two an item wants to be. (A bare "recipe" in pydantic's path to a mistake would read like the field of that name.)"""
    return f"kind:{value.get('kind') if isinstance(value, dict) else getattr(value, 'kind', None)}"


_Tagged = Annotated[
    Annotated[RecipeItem, Tag("kind:recipe")] | Annotated[PublishedItem, Tag("kind:published")],
    Discriminator(_tag, custom_error_type="kind", custom_error_message="its kind must be recipe or published", custom_error_context={}),
]
_Images = dict[_Name, _Tagged]


class _Shipped(Strict):
    default: str
    images: _Images


class _Users(Strict):
    default: str = ""
    images: _Images = Field(default_factory=dict)


class Catalog:
    """The items of several catalogue files; a later one's stand for an earlier one's of the same name."""

    def __init__(self, shipped: Path, others: Sequence[Path] = ()) -> None:
        first = yamlfile.validate(shipped, _Shipped)
        self.default: str = first.default
        self.images: dict[str, Item] = dict(first.images)
        self._files = dict.fromkeys(first.images, shipped)
        said_in = shipped
        for path in others:
            more = yamlfile.validate(path, _Users)
            self.images |= more.images
            self._files |= dict.fromkeys(more.images, path)
            if more.default:
                self.default, said_in = more.default, path
        if self.default not in self.images:
            raise UsageError(f"{yamlfile.shown(said_in)}: default: expected one of {', '.join(self.images)}, found {self.default!r}")

    def item(self, name: str) -> Item:
        """The item of this name; UsageError with the nearest names when there is none."""
        if name not in self.images:
            near = difflib.get_close_matches(name, self.images, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(self.images)}"
            raise UsageError(f"there is no image {name}", hint=hint)
        return self.images[name]

    def file_of(self, name: str) -> Path:
        """The catalogue file that an item stands in; recipes and keys lie beside it."""
        return self._files[name]


def users_catalogs() -> list[Path]:
    """The user's own catalogue in their configuration directory if there is one, and the one that VMLAB_CATALOG names."""
    own = Path(platformdirs.user_config_dir("vmlab")) / "catalog.yaml"
    named = os.environ.get("VMLAB_CATALOG")
    return [*([own] if own.is_file() else []), *([Path(named)] if named else [])]
