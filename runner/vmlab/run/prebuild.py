"""The templates of a lab's guests, made ahead of its first run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vmlab.bench import START_LIMIT_S, boot_request
from vmlab.deadline import Deadline
from vmlab.guest import processor
from vmlab.guest.start import with_machine_type
from vmlab.lab.lab import Lab
from vmlab.progress import Progress
from vmlab.run.session import Choice, need_of, session


def make_templates(lab: Lab, choice: Choice, progress: Progress) -> Iterator[tuple[str, str]]:
    """Each guest of the lab that may be cloned, with the name of its template, which is made unless it is there.

    Raises what a guest that does not boot raises, and TemplateError when one that booted cannot be saved.
    """
    for name, wanted in lab.definition.guests.items():
        if wanted.start != "clone" or wanted.emulator != "qemu":
            continue
        with session(lab, dataclasses.replace(choice, cold=False), progress, need_of(lab, name), "template for") as here:
            assert here.templates is not None
            request = boot_request(lab, name, wanted, here.images[name], here.accelerator.name)
            processor.require(request.processor, request.accelerator, here.deadline)
            setting = dataclasses.replace(here, deadline=Deadline(START_LIMIT_S)).setting("console.log", START_LIMIT_S)
            found = here.templates.get(with_machine_type(request, here.templates), setting)
        yield name, found.entry
