"""What a bench stands on: this machine, with everything taken and ready that a lab's guests need of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmlab.bench.notebook import Notebook
from vmlab.deadline import Deadline
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.setting import Setting
from vmlab.guest.workdir import WorkDir
from vmlab.host.accelerator import Accelerator
from vmlab.host.facts import HostFacts
from vmlab.host.slots import Slot
from vmlab.image.image import Image
from vmlab.progress import Progress


@dataclass(frozen=True)
class Session:
    """One stay on this machine, from the moment that its slot was given (`vmlab.run.session.session` makes one)."""

    accelerator: Accelerator
    host: HostFacts
    images: Mapping[str, Image]
    """By the guest that boots it."""
    templates: TemplateStore | None
    """None: every guest is booted."""
    slot: Slot
    work: WorkDir
    logs: Path
    """Where the guests' consoles are kept: the report's directory, or the working directory where there is no report."""
    notebook: Notebook
    progress: Progress
    deadline: Deadline
    guests: contextlib.ExitStack
    """Ends the guests, the youngest first."""

    def setting(self, console: str, limit_s: float) -> Setting:
        """What a guest is started in that prints to a log of this name; ready within ``limit_s``."""
        return Setting(self.work, self.logs / console, self.deadline.within(limit_s), self.progress)
