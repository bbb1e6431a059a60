"""What every guest of a run shares with the others: a place, a clock, and somebody to tell."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.guest.workdir import WorkDir
from vmlab.progress import Progress


@dataclass(frozen=True)
class Setting:
    """In what a guest is started: ``work`` holds its files, ``console_log`` what it prints, and all of it ends by ``deadline``."""

    work: WorkDir
    console_log: Path
    deadline: Deadline
    progress: Progress

    def within(self, seconds: float) -> Setting:
        """The same with a deadline for a part: ``seconds`` from now, but never later than this one's."""
        return dataclasses.replace(self, deadline=self.deadline.within(seconds))

    def with_log(self, console_log: Path) -> Setting:
        """The same for a guest that prints elsewhere."""
        return dataclasses.replace(self, console_log=console_log)
