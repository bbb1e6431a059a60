"""What guests and benches stand on in tests, without a slot and without a screen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmlab.bench import Notebook, Session
from vmlab.deadline import Deadline
from vmlab.guest.setting import Setting
from vmlab.guest.workdir import WorkDir, work_dir
from vmlab.host import facts
from vmlab.host.accelerator import Accelerator
from vmlab.host.slots import Slot
from vmlab.progress import Event, Kind, Progress

TCG = Accelerator("tcg", "a test wants it", "", "", {})


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def texts(self, kind: Kind) -> list[str]:
        return [event.text for event in self.events if event.kind is kind]


def setting(work: WorkDir, console_log: Path, *, limit_s: float = 30, progress: Progress | None = None) -> Setting:
    return Setting(work, console_log, Deadline(limit_s), progress or Progress())


@contextlib.contextmanager
def stage(
    logs: Path, images: Mapping[str, Any] | None = None, *, limit_s: float = 60, progress: Progress | None = None
) -> Iterator[Session]:
    """A session as `vmlab.run.session` makes one, whose guests are booted and not cloned."""
    notebook, progress = Notebook(), progress or Progress()
    progress.subscribe(notebook)
    with work_dir() as work, contextlib.ExitStack() as guests:
        yield Session(
            accelerator=TCG,
            host=facts.gather(),
            images=images or {},
            templates=None,
            slot=Slot(0.0, 0.0),
            work=work,
            logs=logs,
            notebook=notebook,
            progress=progress,
            deadline=Deadline(limit_s),
            guests=guests,
        )
