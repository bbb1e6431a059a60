"""``python -m tests.mutants LAB``: every mutant of the lab's checks that its tests do not notice.

A mutant that means the same as what it was made from, or that no evidence can tell from it, is listed with its reason in
``labs/LAB/tests/mutants.yaml``: file, then key, then reason. Exit status 0 when none is left over, 1 when some are or an entry is stale,
2 for a wrong request.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

import yaml

from tests.mutants.run import NotSound, Task, tasks_of, unnoticed

LABS = Path(__file__).resolve().parents[2] / "labs"


def accepted_of(lab: Path) -> dict[str, str]:
    """The reasons of the mutants that need not be noticed, by `Task.key`."""
    path = lab / "tests" / "mutants.yaml"
    if not path.is_file():
        return {}
    listed = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {f"{file}: {key}": str(reason) for file, entries in listed.items() for key, reason in entries.items()}


def main() -> int:
    """Say what is left over."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="which mutants of a lab's checks its tests do not notice")
    parser.add_argument("lab", help="a lab's name, or its folder")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of the mutants, chosen by the seed (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--file", help="only the mutants of this file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    asked = parser.parse_args()
    lab = Path(asked.lab) if Path(asked.lab, "lab.yaml").is_file() else LABS / asked.lab
    if not (lab / "lab.yaml").is_file():
        print(
            f"there is no lab named {asked.lab}\n  labs: {', '.join(sorted(each.parent.name for each in LABS.glob('*/lab.yaml')))}",
            file=sys.stderr,
        )
        return 2
    lab = lab.resolve()
    every = tasks_of(lab)
    tasks = [task for task in every if not asked.file or task.file == asked.file]
    if asked.sample:
        tasks = random.Random(asked.seed).sample(tasks, min(asked.sample, len(tasks)))
    accepted, began, left, noticed, stale = accepted_of(lab), time.monotonic(), list[Task](), 0, list[str]()
    print(f"{lab.name}: {len(tasks)} of {len(every)} mutants, {asked.jobs} at a time", flush=True)
    try:
        for count, (task, survived) in enumerate(unnoticed(lab, tasks, asked.jobs), start=1):
            noticed += not survived
            if survived and task.key not in accepted:
                left.append(task)
                print(f"labs/{lab.name}/{task.file}:{task.mutant.line}: {task.mutant.key}", flush=True)
            elif not survived and task.key in accepted:
                stale.append(f"{task.key} (a test notices it)")
            if count % 100 == 0:
                print(f"  {count} done, {time.monotonic() - began:.0f} s", flush=True)
    except NotSound:
        print(f"the tests of {lab.name} do not pass as they are\n  python -m pytest labs/{lab.name}/tests says why", file=sys.stderr)
        return 2
    stale += [f"{key} (there is no such mutant)" for key in set(accepted) - {task.key for task in every}]
    listed = len(tasks) - noticed - len(left)
    print(f"{lab.name}: {len(tasks)} mutants, {noticed} noticed, {listed} listed with a reason, {len(left)} left over")
    for entry in stale:
        print(f"stale in labs/{lab.name}/tests/mutants.yaml: {entry}")
    if asked.json:
        result = {
            "lab": lab.name,
            "mutants": len(tasks),
            "of": len(every),
            "noticed": noticed,
            "listed": listed,
            "left": [{"file": task.file, "line": task.mutant.line, "key": task.mutant.key} for task in left],
            "stale": stale,
            "duration_s": round(time.monotonic() - began, 1),
        }
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if left or stale else 0


sys.exit(main())
