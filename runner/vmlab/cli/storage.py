"""The commands that look after what is kept between runs: images, templates, and what killed runs left."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmlab.cli.options import (
    ImageName,
    LabName,
    accel_option,
    catalogs_of,
    collection_of,
    image_option,
    images_of,
    json_option,
    labs_option,
)
from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_PASS

if TYPE_CHECKING:
    from vmlab.host.accelerator import Wanted


@click.group()
def image() -> None:
    """List, fetch, build, verify and remove the images that guests boot from."""


@image.command("list")
@json_option
def image_list(as_json: bool) -> None:
    """List the images of the catalogue, and which are there."""
    rows = images_of().status()
    if as_json:
        click.echo(json.dumps([{**row.__dict__, "path": str(row.path)} for row in rows], indent=2, default=str))
        return
    for row in rows:
        made, missing = ("built", "not built") if row.kind == "recipe" else ("fetched", "not fetched")
        state = f"{row.size_bytes >> 20} MiB, {made} {(row.built_at or '')[:16]}, {row.path}" if row.cached else missing
        click.echo(f"{row.name:<20}{row.title:<44}{state}")


@image.command("key")
@click.argument("names", nargs=-1, type=ImageName(), metavar="[NAME]...")
@labs_option
def image_key(names: tuple[str, ...], lab_dirs: tuple[Path, ...]) -> None:
    """Print a digest of the recipes of images (by default those that all labs boot): a key to cache the built images by."""
    import hashlib

    store, collection = images_of(), collection_of(lab_dirs)
    guests = [guest for name in collection.names() for guest in collection.get(name).definition.guests.values()]
    wanted = sorted(set(names or [guest.images[0] if guest.images else store.default for guest in guests]))
    click.echo(hashlib.sha256("\n".join(map(store.key, wanted)).encode()).hexdigest()[:16])


@image.command("build")
@click.argument("name", required=False, type=ImageName())
@click.option("--force", is_flag=True, help="Build it again even if it is there.")
def image_build(name: str | None, force: bool) -> None:
    """Build an image (by default the default one), unless it is there."""
    from vmlab.deadline import Deadline
    from vmlab.run.session import IMAGE_LIMIT_S

    store = images_of(click.echo)
    built = store.build(name or store.default, Deadline(IMAGE_LIMIT_S), force=force)
    click.echo(f"{built.name}: {built.directory}")


@image.command("pull")
@click.argument("name", type=ImageName())
def image_pull(name: str) -> None:
    """Fetch an image from its publisher, unless the version that is there now was fetched already.

    An interrupted download is gone on from. Without this, an image is fetched when a lab first needs it and then stays as it is.
    """
    from vmlab.deadline import Deadline
    from vmlab.run.session import IMAGE_LIMIT_S

    pulled = images_of(click.echo).pull(name, Deadline(IMAGE_LIMIT_S))
    click.echo(f"{name}: {pulled.directory}\n  trusted by {pulled.manifest['origin']['trusted_by']}")


@image.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("name", type=ImageName())
def image_import(file: Path, name: str) -> None:
    """Take an image of the catalogue from a FILE that was fetched by other means. Its digest must be what its publisher says.

    (An image that is in no catalogue is used by its file's name: `vmlab run LAB --image FILE`.)
    """
    from vmlab.deadline import Deadline
    from vmlab.run.session import IMAGE_LIMIT_S

    taken = images_of(click.echo).pull(name, Deadline(IMAGE_LIMIT_S), source=file)
    click.echo(f"{name}: {taken.directory}\n  trusted by {taken.manifest['origin']['trusted_by']}")


@image.command("verify")
@click.argument("name", required=False, type=ImageName())
def image_verify(name: str | None) -> None:
    """Compare an image's files with their digests. Exit code 3 when they differ."""
    store = images_of(click.echo)
    problems = store.verify(name or store.default)
    for problem in problems:
        click.echo(problem)
    if not problems:
        click.echo(f"{name or store.default}: sound")
    sys.exit(EXIT_COULD_NOT_RUN if problems else EXIT_PASS)


@image.command("prune")
def image_prune() -> None:
    """Remove images that no current recipe describes, and what interrupted builds left."""
    click.echo(f"freed {images_of(click.echo).prune() >> 20} MiB")


@click.group()
def template() -> None:
    """List, make and remove the booted guests that clones start from.

    One is made when a lab is first run; together they take 4096 MiB at most (VMLAB_TEMPLATES_MIB), and the least recently used go first.
    """


@template.command("list")
@json_option
def template_list(as_json: bool) -> None:
    """List the templates, the most recently used first."""
    from vmlab.guest.clone.store import status

    rows = status()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        guest = f"{row.image}, {row.memory_mib} MiB, {row.cpus} CPU{'s' if row.cpus > 1 else ''}, {row.init}, {row.accelerator}"
        click.echo(f"{row.entry}  {row.size_bytes >> 20:>4} MiB  {guest}; made {row.made_at}, used {row.used_at or 'never'}")
    if not rows:
        click.echo("there are none; the first run of a lab makes what it needs")


@template.command("build")
@click.argument("labs", nargs=-1, type=LabName(), metavar="[LAB]...")
@accel_option
@image_option
@labs_option
def template_build(labs: tuple[str, ...], accel: Wanted, image: str | None, lab_dirs: tuple[Path, ...]) -> None:
    """Make the templates that labs need (by default all labs), unless they are there. Images are built first."""
    from vmlab.progress import Progress
    from vmlab.run.prebuild import make_templates
    from vmlab.run.screen import choose_screen, shown
    from vmlab.run.session import Choice

    collection, choice, progress = collection_of(lab_dirs), Choice(accelerator=accel, image=image, catalogs=catalogs_of()), Progress()
    with shown(progress, choose_screen()):
        for name in labs or collection.names():
            for guest, entry in make_templates(collection.get(name), choice, progress):
                progress.notice(f"{name}, guest {guest}: {entry}")


@template.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove every template.")
def template_prune(everything: bool) -> None:
    """Remove templates that are damaged, half made or over the limit; a clone that runs is not disturbed."""
    from vmlab.guest.clone.store import prune

    click.echo(f"freed {prune(everything=everything) >> 20} MiB")


@click.command()
def clean() -> None:
    """Remove what killed runs left behind: guests, working directories, half-built images and templates, images of old recipes."""
    from vmlab.guest.clone.store import prune
    from vmlab.guest.intel import appliance
    from vmlab.guest.workdir import sweep

    removed = sweep()
    freed = images_of(click.echo).prune() + prune() + appliance.prune()
    click.echo(f"removed {len(removed)} working directories and {freed >> 20} MiB of images and templates")
