"""The catalogue and the keys: what makes an image another image, and what a mistake in the files is answered with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab import paths
from vmlab.errors import UsageError
from vmlab.image.builder import recipe
from vmlab.image.catalog import Catalog, PublishedItem, RecipeItem
from vmlab.image.store import ImageStore


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A copy of the real recipes, to be spoilt."""
    return Path(shutil.copytree(paths.data_dir("images"), tmp_path / "images"))


def key(images: Path, name: str = "debian-13") -> str:
    item = Catalog(images / "catalog.yaml").item(name)
    assert isinstance(item, RecipeItem)
    return recipe.key_of(name, item.parameters, images / "debian")


def test_the_catalogue_that_ships_is_sound(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.default in store.names()
    for name in store.names():
        item = Catalog(paths.data_dir("images") / "catalog.yaml").item(name)
        if isinstance(item, RecipeItem):
            assert recipe.read_recipe(paths.data_dir("images") / item.recipe).inits.keys() == {"systemd", "sysv"}


def test_nothing_in_the_recipes_names_a_mirror() -> None:
    for path in recipe.recipe_files(paths.data_dir("images") / "debian"):
        assert "http" not in path.read_text(), path


def test_the_key_is_that_of_the_content_wherever_it_lies(images: Path) -> None:
    assert key(images) == key(paths.data_dir("images"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file's content": lambda folder: (folder / "customise.sh").write_text("exit 0\n"),
    "a new file": lambda folder: (folder / "files/new").write_text(""),
    "a file that is gone": lambda folder: (folder / "files/etc/fstab").unlink(),
    "a file's name": lambda folder: (folder / "files/etc/fstab").rename(folder / "files/etc/fstab2"),
    "the recipe itself": lambda folder: (folder / "recipe.yaml").open("a").write("# another\n"),
    "the initrd's script": lambda folder: (folder / "initrd.sh").write_text("#!/bin/busybox sh\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_changes_with_every_part_of_the_recipe(images: Path, change: str) -> None:
    before = key(images)
    CHANGES[change](images / "debian")
    assert key(images) != before


def test_the_key_changes_with_the_parameters_and_the_builder(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(images)
    assert key(images, "debian-12") != before
    monkeypatch.setattr(recipe, "BUILDER_VERSION", recipe.BUILDER_VERSION + 1)
    assert key(images) != before


def test_the_key_changes_with_packages_of_its_own_and_stays_without() -> None:
    """Images that have none keep the key that they had before there could be any, so that nobody has to build them again."""
    folder = paths.data_dir("images") / "debian"
    plain, more = (recipe.Parameters(suite="trixie", packages=packages) for packages in ((), ("qemu-system-x86",)))
    assert "packages" not in recipe.told(plain)
    assert recipe.key_of("x", plain, folder) != recipe.key_of("x", more, folder)


def test_the_key_does_not_change_with_the_mirror(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(images)
    monkeypatch.setenv("MIRROR", "http://mirror.invalid/debian")
    assert key(images) == before


def test_an_unknown_image_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ImageStore(tmp_path).find("debain-13")
    assert "debian-13" in caught.value.hint


ENTRY = "{kind: recipe, title: T, recipe: debian, parameters: {suite: trixie}}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default: [", "catalog.yaml"),
        ("- a list\n", "mapping"),
        ("default: a\n", "images"),
        (f"default: b\nimages: {{a: {ENTRY}}}\n", "expected one of a"),
        (f"default: a\nimages: {{a: {ENTRY}}}\nextra: 1\n", "extra"),
        (f"default: a\nimages: {{a: {ENTRY.replace('recipe,', 'magic,', 1)}}}\n", "kind"),
        (f"default: a\nimages: {{a: {ENTRY.replace('trixie', '13')}}}\n", "suite"),
        (f"default: a\nimages: {{a: {ENTRY.replace('recipe: debian', 'recipe: ../etc')}}}\n", "recipe"),
        (f"default: a\nimages: {{../a: {ENTRY}}}\n", "images"),
    ],
)
def test_a_malformed_catalogue_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        ImageStore(tmp_path / "cache", path).names()
    assert "catalog.yaml" in caught.value.message
    assert words in caught.value.message


def test_a_missing_catalogue_or_recipe_is_named(tmp_path: Path, images: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml"):
        ImageStore(tmp_path, tmp_path / "none.yaml").names()
    shutil.rmtree(images / "debian")
    with pytest.raises(UsageError, match="expected a folder"):
        ImageStore(tmp_path, images / "catalog.yaml").find("debian-13")


def test_every_key_that_the_catalogue_names_is_the_one_with_its_fingerprint(tmp_path: Path) -> None:
    catalog = Catalog(paths.data_dir("images") / "catalog.yaml")
    signed = [item.digests.signature for item in catalog.images.values() if isinstance(item, PublishedItem) and item.digests]
    wanted = [signature for signature in signed if signature]
    assert wanted
    for signature in wanted:
        argv = ["gpg", "--homedir", str(tmp_path), "--with-colons", "--show-keys", str(paths.data_dir("images") / signature.key)]
        shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        there = {line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:")}
        assert set(signature.fingerprints) <= there
