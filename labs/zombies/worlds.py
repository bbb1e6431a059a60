"""The worlds in which one of the lab's claims is false, for its controls: what a script is told in such a world, beside the usual."""

from __future__ import annotations

BROKEN: dict[str, dict[str, tuple[str, ...]]] = {
    "sound": {},
    "sigchld_ignored": {"anatomy": ("--sigchld", "ignore")},
    "reading_reaps": {"anatomy": ("--second-look", "reaps")},
    "another_user": {"anatomy": ("--last-act", "setuid")},
    "another_ps": {"anatomy": ("--ps", "S    sleep 60")},
    "threads_end_together": {"anatomy": ("--leader", "exit_group")},
    "no_zombie_stays": {"accumulation": ("--parent", "ignore", "--called", "never")},
    "killing_reaps": {"accumulation": ("--kill", "and-reap")},
    "nobody_reaps": {"reaping": ("--parent", "never", "--called", "reap")},
    "sigchld_not_ignored": {"ignored": ("--parent", "never", "--called", "ignore")},
    "nothing_to_weigh": {"cost": ("--reap",)},
    "stacks_stay": {"cost": ("--stacks",)},
    "numbers_again": {"limits": ("--reuse",)},
    "pid_max_first": {"limits": ("--loose",)},
    "no_limit": {"exhaustion": ("--no-limit",)},
    "another_limit": {"exhaustion": ("--nproc-by", "pids_max")},
    "another_group": {"exhaustion": ("--stranger",)},
    "nobody_waits": {"exhaustion": ("--keep",)},
    "subreaper": {"orphans": ("--subreaper", "--patience", "3")},
    "init_reaps": {"namespaces": ("--swap", "never:reaps")},
    "init_never_reaps": {"namespaces": ("--swap", "reaps:never")},
}
"""For each world, by the observation that is another one in it: further arguments of the script, the last of which count."""


def broken(world: object, observation: str) -> tuple[str, ...]:
    """What the script behind an observation is told in a world."""
    return BROKEN[str(world)].get(observation, ())
