"""How long a Python takes that imports a module of the library, and one that imports nothing; prints every sample in milliseconds.

usage: imports.py SAMPLES MODULE...
"""

import os
import sys

from vmlab_guest.say import say
from vmlab_guest.timing import sampled


def python(program: str) -> None:
    """Run a Python to its end."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit(f"it failed: {program}")


def main(samples: int, modules: list[str]) -> None:
    """By turns, so that what disturbs the machine disturbs all."""
    programs = {"nothing": "pass", **{name: f"import {name}" for name in modules}}
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(samples + 1):
        for name, program in programs.items():
            took_ns = sampled(lambda program=program: python(program))["wall_ns"]  # type: ignore[misc]
            if turn:  # (The first compiles.)
                taken[name].append(round(took_ns / 1e6, 2))
    say(took_ms=taken)


main(int(sys.argv[1]), sys.argv[2:])
