"""What several commands share: names that the shell completes, options, and the things that options name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from vmlab.errors import HostError

if TYPE_CHECKING:
    from vmlab.host.accelerator import Wanted
    from vmlab.image.store import ImageStore
    from vmlab.lab.collection import Collection
    from vmlab.run.session import Choice


class LabName(click.ParamType[str]):
    """A lab's name, completed by the shell."""

    name = "lab"

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The labs whose names begin like this."""
        from vmlab.lab.collection import Collection

        return [CompletionItem(name) for name in Collection().names() if name.startswith(incomplete)]


class ImageName(click.ParamType[str]):
    """An image's name, completed by the shell."""

    name = "image"

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The images of the catalogue whose names begin like this."""
        from vmlab.image.store import ImageStore

        return [CompletionItem(name) for name in ImageStore().names() if name.startswith(incomplete)]


labs_option = click.option(
    "--labs", "lab_dirs", multiple=True, type=click.Path(path_type=Path), metavar="DIR", help="Another directory of labs; may be repeated."
)
reports_option = click.option(
    "--reports", type=click.Path(path_type=Path), default=Path("reports"), show_default=True, metavar="DIR", help="Where reports go."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else.")


accel_option = click.option(
    "--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True, help="kvm means: or fail."
)
catalog_option = click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Another catalogue of images, beside ours and ~/.config/vmlab/catalog.yaml; may be repeated.",
)
image_option = click.option("--image", type=ImageName(), help="The image to boot, by name or as a file; by default the lab's first.")
cold_option = click.option("--cold", is_flag=True, help="Boot every guest, even where a clone of a booted one would do.")


def collection_of(directories: tuple[Path, ...]) -> Collection:
    """The labs that ship with vmlab, and those of further directories."""
    from vmlab.lab.collection import Collection

    return Collection(directories)


def catalogs_of() -> tuple[Path, ...]:
    """The catalogues that the command line names."""
    named: tuple[Path, ...] = click.get_current_context().find_root().params.get("catalogs", ())
    return named


def images_of(say: Callable[[str], None] | None = None) -> ImageStore:
    """The images of all catalogues, those of the command line included; ``say`` is given lines for the user."""
    from vmlab.image.catalog import users_catalogs
    from vmlab.image.store import ImageStore
    from vmlab.progress import Progress, notices

    more = [*users_catalogs(), *catalogs_of()]
    return ImageStore(progress=Progress(notices(say)) if say else None, more=more)


@dataclass(frozen=True)
class GuestOptions:
    """How a command's guests are run, and where its labs are: the options that several commands have."""

    accel: Wanted
    image: str | None
    cold: bool
    lab_dirs: tuple[Path, ...]

    @property
    def choice(self) -> Choice:
        """The same as a session wants it."""
        from vmlab.run.session import Choice

        return Choice(accelerator=self.accel, image=self.image, cold=self.cold, catalogs=catalogs_of())

    def labs(self) -> Collection:
        """The labs that there are."""
        return collection_of(self.lab_dirs)


def guest_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command those options, as its ``options``."""

    @accel_option
    @image_option
    @cold_option
    @labs_option
    @functools.wraps(command)
    def told(**given: Any) -> None:
        fields = {each.name: given.pop(each.name) for each in dataclasses.fields(GuestOptions)}
        command(options=GuestOptions(**fields), **given)

    return told


@contextlib.contextmanager
def cluster_extra() -> Iterator[None]:
    """What is imported within needs the extra that not everybody installs: HostError where it is missing."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in {"distributed", "dask"}:
            raise
        raise HostError("Dask is not installed here", hint="install it with vmlab: pip install 'vmlab[cluster]'") from exc
