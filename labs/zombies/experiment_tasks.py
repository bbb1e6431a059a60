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


@task
def leak(bench: Bench) -> None:
    """The broken guest before the fix, the fix, the guest after it, and once more after the service was started anew."""
    guest = bench.guest()
    bench.record("leak_before", guest.script("look_printshop.py").record)
    bench.record("leak_fix", guest.script("run_fix.py", time_limit_s=120).record)
    bench.record("leak_after", guest.script("look_printshop.py").record)
    bench.record("leak_again", guest.script("look_printshop.py", "--restart").record)
