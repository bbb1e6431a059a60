"""Many labs at once: how much sooner two at a time are done, what the runner itself costs, and that nothing is overcommitted.

    .venv/bin/python benchmarks/many.py --json many.json                        all of it
    .venv/bin/python benchmarks/many.py --only throughput --jobs 1 2            8 runs of the zombies lab, one and two at a time
    .venv/bin/python benchmarks/many.py --only queue                            50 runs of a lab without guests, from 4 processes at once

Everything goes through the command line, as users do. What ran when is read from the reports (run.slot).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from vmlab.host.capacity import capacity

LAB = "zombies"
VMLAB = [sys.executable, "-m", "vmlab", "run"]

TINY = {
    "lab.yaml": """\
title: A lab that takes a slot and starts no guest
summary: For measuring what everything around a lab costs.
claims: {X1: {stands: holds, says: "It ran."}}
guests: {main: {memory_mib: 256, cpus: 1}}
""",
    "experiment.py": """\
import time

def experiment(bench):
    time.sleep(0.2)
    bench.record("seen", {"ran": True})
""",
    "checks.py": """\
from vmlab.lab import check, failed, passed

@check(points=1, claim="X1")
def it_ran(evidence):
    \"\"\"It ran.\"\"\"
    return passed("It did.", measured="true") if evidence["seen"].flag("ran") else failed("It did not.")
""",
}


def tiny(directory: Path) -> Path:
    """A directory with the lab `tiny`."""
    folder = directory / "labs" / "tiny"
    folder.mkdir(parents=True)
    for name, text in TINY.items():
        (folder / name).write_text(text)
    return folder.parent


def helpers_cpu_s(child: subprocess.Popen[bytes]) -> float:
    """CPU seconds of the command's own process and of multiprocessing's two helpers (not of those that run labs), until it ends."""
    own = psutil.Process(child.pid)
    found, seen = [own], {own.pid: 0.0}
    while child.poll() is None:
        with contextlib.suppress(psutil.Error):
            # (Looking for children reads all of /proc: not more often than needed.)
            found = found if len(found) == 3 else [own, *own.children()]
            for each in found:
                times = each.cpu_times()
                seen[each.pid] = times.user + times.system
        time.sleep(0.5)
    return sum(seen.values())


def run(words: list[str], reports: Path) -> dict[str, Any]:
    """One command: its seconds, the runner's CPU seconds, and the reports."""
    began = time.monotonic()
    child = subprocess.Popen([*VMLAB, *words, "--reports", str(reports), "--quiet"], stdout=subprocess.DEVNULL)
    helpers = helpers_cpu_s(child)
    took = time.monotonic() - began
    index = json.loads((reports / "index.json").read_text())
    labs = [json.loads((reports / row["report"] / "report.json").read_text()) for row in index["rows"]]
    each = [row["runner_cpu_s"] for row in index["rows"]]
    return {
        "exit_code": child.returncode,
        "seconds": round(took, 2),
        "runner_cpu_s_each": each,
        "helpers_cpu_s": round(helpers, 2),
        "verdicts": [row["verdict"] for row in index["rows"]],
        "lab_seconds": [round(lab["run"]["slot"]["until_s"] - lab["run"]["slot"]["from_s"], 2) for lab in labs],
        "slots": [lab["run"]["slot"] for lab in labs],
    }


def throughput(jobs: list[int], runs: int) -> dict[str, Any]:
    """So many runs of the lab, once for each number of them at a time."""
    found: dict[str, Any] = {}
    for number in jobs:
        with tempfile.TemporaryDirectory() as directory:
            found[f"-j {number}"] = sample = run([LAB] * runs + ["-j", str(number)], Path(directory))
        print(f"{runs} runs of {LAB}, -j {number}: {sample['seconds']} s; verdicts {sorted(set(sample['verdicts']))}; ", end="")
        print(f"a lab took {statistics.median(sample['lab_seconds'])} s (median of {sample['lab_seconds']})")
        each = sample["runner_cpu_s_each"]
        print(f"  the runner's CPU: {statistics.mean(each):.2f} s a lab ({each}), and {sample['helpers_cpu_s']} s for the command itself")
    first, *others = jobs
    for number in others:
        ratio = found[f"-j {first}"]["seconds"] / found[f"-j {number}"]["seconds"]
        print(f"throughput of -j {number} is {ratio:.2f} times that of -j {first}")
    return found


def most_at_once(slots: list[dict[str, Any]]) -> tuple[int, int, int]:
    """The most memory, CPUs and runs that held slots at any one moment."""
    moments = [[other for other in slots if other["from_s"] <= slot["from_s"] < other["until_s"]] for slot in slots]
    memory = max(sum(each["memory_bytes"] for each in moment) for moment in moments)
    return memory, max(sum(each["cpus"] for each in moment) for moment in moments), max(map(len, moments))


def queue(processes: int, runs: int) -> dict[str, Any]:
    """Runs queued by several commands at once, each willing to run all of its own at once."""
    with tempfile.TemporaryDirectory() as directory:
        labs, shares = tiny(Path(directory)), [runs // processes + (number < runs % processes) for number in range(processes)]
        began = time.monotonic()
        children = []
        for number, share in enumerate(shares):
            words = ["tiny"] * share + ["-j", str(share), "--labs", str(labs), "--reports", f"{directory}/{number}", "--quiet"]
            children.append(subprocess.Popen([*VMLAB, *words], stdout=subprocess.DEVNULL))
        codes = [child.wait() for child in children]
        took = time.monotonic() - began
        reports = [json.loads(path.read_text()) for path in Path(directory).glob("*/tiny/2*/report.json")]
        indexes = [json.loads(path.read_text()) for path in Path(directory).glob("*/index.json")]
    slots, whole = [report["run"]["slot"] for report in reports], capacity()
    memory, cpus, most = most_at_once(slots)
    waited = sorted(slot["from_s"] - slot["asked_s"] for slot in slots)
    cpu = [row["runner_cpu_s"] for index in indexes for row in index["rows"]]
    print(f"{len(reports)} of {runs} runs from {processes} processes done in {took:.1f} s, exit codes {codes}")
    print(f"  at most {most} at once: {memory >> 20} of {whole.memory_bytes >> 20} MiB, {cpus} of {whole.cpus} CPUs")
    print(f"  waited {waited[0]:.2f} to {waited[-1]:.2f} s; the runner's CPU a run, waiting included: {min(cpu)} to {max(cpu)} s")
    if len(reports) != runs or any(codes) or memory > whole.memory_bytes or cpus > whole.cpus:
        sys.exit("the slots were exceeded, or a run was lost")
    return {"seconds": took, "most_at_once": most, "slots": slots, "runner_cpu_s": cpu}


def shards(number: int) -> dict[str, Any]:
    """A run of so many jobs, and the same in as many shards, merged: whether the two are the same but for times and places."""

    def rows(index: Path) -> list[dict[str, Any]]:
        kept = ("job", "lab", "title", "key", "verdict", "score", "attention", "trouble")
        return [{key: row[key] for key in kept} for row in json.loads(index.read_text())["rows"]]

    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        words = ["tiny"] * number + ["--labs", str(tiny(base)), "--quiet"]
        # (Slots of their own: what is compared is what came out, not when; others' runs on this machine need not be waited for.)
        env = {**os.environ, "VMLAB_SLOTS": f"{base}/slots"}

        def one(shard: int) -> int:
            mine = [*words, "--shard", f"{shard}/{number}", "--reports", f"{base}/shard-{shard:03}"]
            return subprocess.run([*VMLAB, *mine], stdout=subprocess.DEVNULL, env=env, check=False).returncode

        began = time.monotonic()
        subprocess.run([*VMLAB, *words, "--reports", f"{base}/whole"], stdout=subprocess.DEVNULL, env=env, check=True)
        whole_s = time.monotonic() - began
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(one, range(1, number + 1)))
        began = time.monotonic()
        merge = [*VMLAB[:-1], "merge", *map(str, sorted(base.glob("shard-*"))), "--into", f"{base}/merged"]
        subprocess.run(merge, stdout=subprocess.DEVNULL, check=True)
        merge_s = time.monotonic() - began
        same = rows(base / "merged" / "index.json") == rows(base / "whole" / "index.json")
    print(f"{number} shards merged in {merge_s:.1f} s; equal to the run that was not sharded ({whole_s:.1f} s): {same}")
    if not same or any(codes):
        sys.exit("the merged run differs from the whole one")
    return {"equal": same, "merge_s": merge_s, "whole_s": whole_s}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--only", choices=["throughput", "queue", "shards"])
    options.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    options.add_argument("--runs", type=int, default=8)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    found: dict[str, Any] = {}
    if chosen.only in (None, "throughput"):
        found["throughput"] = throughput(chosen.jobs, chosen.runs)
    if chosen.only in (None, "queue"):
        found["queue"] = queue(4, 50)
    if chosen.only in (None, "shards"):
        found["shards"] = shards(100)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
