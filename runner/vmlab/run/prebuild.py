"""The templates of a lab's guests, made ahead of its first run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vmlab.bench import START_LIMIT_S, Notebook, boot_request
from vmlab.deadline import Deadline
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.start import with_machine_type
from vmlab.guest.workdir import work_dir
from vmlab.host import accelerator, facts
from vmlab.host.accelerator import Wanted
from vmlab.host.capacity import Need, check_fits
from vmlab.image.store import ImageStore
from vmlab.lab.definition import Lab
from vmlab.run.lab import image_for, share_of, take_slot
from vmlab.run.live import View


def make_templates(lab: Lab, images: ImageStore, view: View, *, wanted_accelerator: Wanted, image: str | None) -> Iterator[tuple[str, str]]:
    """Each guest of the lab that may be cloned, with the name of its template, which is made unless it is there.

    Raises what a guest that does not boot raises, and TemplateError when one that booted cannot be saved.
    """
    facts.require_qemu()
    chosen, notebook, store = accelerator.choose(wanted_accelerator), Notebook(), TemplateStore(view.notice)
    for name, wanted in lab.definition.guests.items():
        if wanted.start != "clone":
            continue
        need = Need({name: share_of(wanted)})
        check_fits(need, f"guest {name} of the lab {lab.name}")
        ready = image_for(lab, name, images, image, notebook, view)
        with contextlib.ExitStack() as stack:
            take_slot(stack, need, f"template for {lab.name}", notebook, view)
            work = stack.enter_context(work_dir())
            found = store.get(
                with_machine_type(boot_request(name, wanted, ready, chosen.name), store),
                work,
                console_log=work.path / "console.log",
                deadline=Deadline(START_LIMIT_S),
                waiting=view.waiting,
                phase=lambda title: notebook.phase(title, view),
            )
        yield name, found.entry
