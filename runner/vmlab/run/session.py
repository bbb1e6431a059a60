"""This machine, taken for a lab's guests: what a run, a shell and the making of templates all need first, in this order.

QEMU and the accelerator, the images, the slot, the working directory. All is given back when the block is left, guests first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmlab import paths
from vmlab.bench import Notebook, Session
from vmlab.bench.request import drives_of
from vmlab.deadline import Deadline
from vmlab.errors import HostError, UsageError
from vmlab.guest.boot import require_space
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.intel import bochs
from vmlab.guest.workdir import work_dir
from vmlab.host import accelerator, facts
from vmlab.host.accelerator import Wanted
from vmlab.host.capacity import Need, Share, check_fits
from vmlab.host.slots import Slots
from vmlab.image.catalog import users_catalogs
from vmlab.image.image import Image
from vmlab.image.store import ImageStore
from vmlab.lab.guests import GuestRequest
from vmlab.lab.lab import Lab
from vmlab.progress import Progress

# Building an image takes about a minute; a slow network or a busy machine may make many of it.
IMAGE_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Choice:
    """What a user may choose of how guests are run, the same for every command that starts some."""

    accelerator: Wanted = "auto"
    image: str | None = None
    cold: bool = False
    """Boot every guest, even where a clone of a booted one would do."""
    catalogs: tuple[Path, ...] = ()
    """Catalogues of images that the command line names, beside ours and the user's."""

    def images(self, progress: Progress) -> ImageStore:
        """The images of all catalogues; ``progress`` is told what takes long."""
        return ImageStore(progress=progress, more=[*users_catalogs(), *self.catalogs])


def share_of(guest: GuestRequest) -> Share:
    """What a guest takes of the machine."""
    return Share(guest.memory_mib << 20, guest.cpus)


def need_of(lab: Lab, name: str) -> Need:
    """What one guest of the lab takes of the machine. UsageError when the lab has none of that name."""
    guests = lab.definition.guests
    if name not in guests:
        raise UsageError(f"the lab {lab.name} has no guest named {name!r}", hint=f"it has: {', '.join(guests)}")
    return Need({name: share_of(guests[name])})


def check_emulators(lab: Lab, need: Need) -> None:
    """HostError, with the command that installs it, when a guest named in ``need`` asks for an emulator that this machine lacks."""
    for name in need.guests:
        if lab.definition.guests[name].emulator == "bochs":
            try:
                bochs.find()
            except HostError as exc:
                raise HostError(f"guest {name} of the lab {lab.name} cannot run here: {exc.message}", hint=exc.hint) from exc


def check_drives(lab: Lab, need: Need) -> None:
    """HostError when the host's disk has no room for the drives of the guests in ``need``; UsageError for content that cannot be had."""
    total_bytes = sum(drive.size_bytes for name in need.guests for drive in drives_of(lab, name, lab.definition.guests[name]))
    if total_bytes:
        require_space(paths.runs_dir(), total_bytes)


@contextlib.contextmanager
def session(lab: Lab, choice: Choice, progress: Progress, need: Need, purpose: str = "") -> Iterator[Session]:
    """Take what the guests named in ``need`` take, and wait for it as long as others have it.

    ``purpose`` is for those who look who has a slot, and part of the title; empty is a run of the lab. UsageError for what can never be;
    HostError, ImageError for what is missing here.
    """
    what = f"{purpose} {lab.name}".strip()
    facts.require_qemu()
    check_emulators(lab, need)
    check_drives(lab, need)
    chosen = accelerator.choose(choice.accelerator)
    check_fits(need, what if purpose else f"the lab {lab.name}")
    host, notebook = facts.gather(), Notebook()
    progress.subscribe(notebook)
    progress.begin(
        f"{lab.definition.title}: {purpose} {', '.join(need.guests)}" if purpose else lab.definition.title,
        [f"accelerator {chosen.sentence}", *([f"  {chosen.hint}"] if chosen.hint else []), f"host {host.cpu_model}, {host.cpus} CPUs"],
    )
    images = choice.images(progress)
    ready = {name: image_for(lab, name, images, choice.image, progress) for name in need.guests}
    with contextlib.ExitStack() as held:
        with progress.phase("Getting a slot"):
            slot = held.enter_context(Slots().hold(need, what, progress))
        progress.slot()
        work = held.enter_context(work_dir())
        yield Session(
            accelerator=chosen,
            host=host,
            images=ready,
            templates=None if choice.cold else TemplateStore(progress),
            slot=slot,
            work=work,
            logs=work.path,
            notebook=notebook,
            progress=progress,
            deadline=Deadline(lab.definition.time_limit_s),
            guests=held.enter_context(contextlib.ExitStack()),
        )


def image_for(lab: Lab, guest: str, images: ImageStore, chosen: str | None, progress: Progress) -> Image:
    """The image that a guest of the lab boots: the user's choice, else the lab's first, else the catalogue's default; made if needed.

    Of the shipped images a guest runs on those that it names; whoever brings an image of their own finds out. A choice that suits some of
    the lab's guests is for these: one that needs more than the others keeps the image that has it.
    """
    guests = lab.definition.guests

    def suits(name: str, guest: str) -> bool:
        return not guests[guest].images or name in guests[guest].images or images.is_users_own(name)

    if chosen and not any(suits(chosen, each) for each in guests):
        named = dict.fromkeys(name for each in guests.values() for name in each.images)
        raise UsageError(f"the lab {lab.name} does not run on the image {chosen}", hint=f"it runs on: {', '.join(named)}")
    name = chosen if chosen and suits(chosen, guest) else next(iter(guests[guest].images), images.default)
    with progress.phase(f"Getting image {name}"):
        return images.get(name, Deadline(IMAGE_LIMIT_S))
