"""How the student's own work is tried. Nothing is judged here: see checks_tasks.py."""

from __future__ import annotations

from vmlab.bench import Bench, task


@task
def reaper(bench: Bench) -> None:
    """The supervisor runs three times, under the conditions that try_reaper.py describes; each run is told as it ends."""
    with bench.guest().start("try_reaper.py") as talk:
        for seen in talk:
            bench.record(f"reaper_{seen['run']}", seen)
        talk.finish()
