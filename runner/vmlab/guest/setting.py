"""What every guest of a run shares with the others: a place, a clock, somebody to tell, and wires between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.guest.network import Network
from vmlab.guest.workdir import WorkDir
from vmlab.progress import Progress


@dataclass(frozen=True)
class Setting:
    """In what a guest is started: ``work`` holds its files, ``console_log`` what it prints, and all of it ends by ``deadline``.

    A guest whose link leads to none of the ``networks`` has a loose cable there.
    """

    work: WorkDir
    console_log: Path
    deadline: Deadline
    progress: Progress
    networks: Mapping[str, Network] = field(default_factory=dict)

    def within(self, seconds: float) -> Setting:
        """The same with a deadline for a part: ``seconds`` from now, but never later than this one's."""
        return dataclasses.replace(self, deadline=self.deadline.within(seconds))

    def with_log(self, console_log: Path) -> Setting:
        """The same for a guest that prints elsewhere."""
        return dataclasses.replace(self, console_log=console_log)
