"""How soon a clone is there, by which way in, and what it costs; and how much of `make lab` is not the lab.

    .venv/bin/python benchmarks/clone.py --runs 9 --json clone.json

The arms are taken in turn, so that whatever else the machine does meets all of them alike. Times count from the start of QEMU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.guest.boot import launch
from vmlab.guest.clone import identity as standby
from vmlab.guest.clone import migration
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.clone.template import Host, Template, clone, clone_spec
from vmlab.guest.machine import BootRequest, Machine
from vmlab.guest.setting import Setting
from vmlab.guest.ssh import Connection
from vmlab.guest.start import with_machine_type
from vmlab.guest.workdir import WorkDir, work_dir
from vmlab.image.store import ImageStore
from vmlab.progress import Progress, notices

Sample = dict[str, float]
LIMIT_S = 400.0
LAB = "zombies"

# The ways into a clone, without the head start that labs give the first.
SERVERS: dict[str, Callable[[Machine], int]] = {"dropbear": lambda machine: machine.control_port, "OpenSSH": lambda machine: machine.port}


@contextlib.contextmanager
def started(template: Template, request: BootRequest, host: Host, work: WorkDir) -> Iterator[Machine]:
    """A clone that knows who it is, and that nobody has logged in to."""
    setting = Setting(work, work.path / "console.log", Deadline(LIMIT_S), Progress())
    with launch(request, template.identity, setting, lambda place, wires: clone_spec(template, request, host, place, wires)) as machine:
        migration.load(machine, template.file("state"), Deadline(LIMIT_S))
        newborn = standby.Newborn(machine.sockets.identity, machine.identity.hostname, Deadline(LIMIT_S))
        newborn.quicken()
        machine.note("alive")
        yield machine


def steps(machine: Machine) -> Sample:
    """The times of a start, in seconds after the start of QEMU."""
    at = {step.name: step.at_s for step in machine.reached}
    return {name: round(value - at["exec"], 4) for name, value in at.items() if name not in ("disk", "exec")}


def by_port(machine: Machine, port: int) -> Sample:
    """Log in by TCP and run one command, without having knocked before; seconds, and MiB of the clone's own memory then."""
    with contextlib.closing(Connection.connect(port, machine.identity, user="root", deadline=Deadline(LIMIT_S))) as connection:
        machine.note("login")
        at_login = smaps_mib(machine.pid, of_ram=True)
        connection.execute("read -r name </proc/sys/kernel/hostname; echo $name", deadline=Deadline(LIMIT_S))
        machine.note("first-command")
        return {**steps(machine), "MiB of own RAM at login": at_login, "MiB after the command": smaps_mib(machine.pid, of_ram=True)}


def memory(machine: Machine) -> Sample:
    """MiB: of the guest's memory that is the clone's own, and of QEMU's anonymous memory after a hundred commands."""
    own = smaps_mib(machine.pid, of_ram=True)
    for _ in range(100):
        machine.ssh.execute("true", deadline=Deadline(LIMIT_S))
    return {"own RAM after the first command": own, "QEMU's after 100 commands": smaps_mib(machine.pid, of_ram=False)}


def smaps_mib(pid: int, *, of_ram: bool) -> float:
    """Anonymous memory (proc_pid_smaps(5)) in the mapping of the memory file, which is what was copied of it, or in all others, in MiB."""
    total, here = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *rest = line.split()
        if "-" in key and not key.endswith(":"):
            here = line.endswith("/ram") == of_ram
        elif here and key == "Anonymous:":
            total += int(rest[0])
    return round(total / 1024, 1)


def crowd(template: Template, request: BootRequest, host: Host, work: WorkDir, number: int) -> float:
    """Seconds until so many clones that are started at once have all run their first command."""
    with contextlib.ExitStack() as stack:

        def one(index: int) -> None:
            named = BootRequest(**{**vars(request), "name": f"crowd{index}"})
            log = work.path / f"{named.name}.log"
            stack.enter_context(clone(template, named, host, Setting(work, log, Deadline(LIMIT_S), Progress())))

        began = time.monotonic()
        with ThreadPoolExecutor(number) as pool:
            list(pool.map(one, range(number)))
        return round(time.monotonic() - began, 2)


def front_door(reports: Path) -> Sample:
    """One ``make lab``: seconds from the shell to the report without what the lab's own phases took."""
    began = time.monotonic()
    done = subprocess.run(["make", "-s", "lab", f"LAB={LAB}", f"REPORTS={reports}", "QUIET=1"], capture_output=True, text=True, check=False)
    whole = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"make lab failed:\n{done.stdout}{done.stderr}")
    report = json.loads((reports / LAB / "latest" / "report.json").read_text())
    ready = max(phase["end_s"] for phase in report["phases"] if phase["name"].startswith("Cloning guest"))
    measured = max(phase["end_s"] for phase in report["phases"]) - ready
    return {"whole": round(whole, 2), "the lab's own": round(measured, 2), "everything else": round(whole - measured, 2)}


def table(name: str, samples: list[Sample], unit: str) -> None:
    """Print n, median, minimum and maximum of each figure, and all samples."""
    print(f"\n{name} (n={len(samples)}), {unit}: median (min - max)")
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        print(f"  {key:<26} {statistics.median(values):8.3f}  ({min(values):.3f} - {max(values):.3f})   {values}")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--runs", type=int, default=9)
    options.add_argument("--image", default="debian-13")
    options.add_argument("--cpus", type=int, default=2)
    options.add_argument("--crowd", type=int, default=16, help="how many clones at once; 0: none")
    options.add_argument("--no-lab", action="store_true", help="do not run `make lab`")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    image, store = ImageStore(progress=Progress(notices(print))).get(chosen.image, Deadline(1800)), TemplateStore(Progress(notices(print)))
    host = store.host
    request = with_machine_type(BootRequest("main", image, "tcg", cpus=chosen.cpus), store)
    results: dict[str, list[Sample]] = {}

    def measure(arm: str, take: Callable[[], Sample]) -> None:
        results.setdefault(arm, []).append(take())

    with contextlib.ExitStack() as stack:
        work = stack.enter_context(work_dir())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        log = work.path / "console.log"
        template = store.get(request, Setting(work, log, Deadline(LIMIT_S), Progress()))
        for run in range(chosen.runs):
            print(f"run {run + 1} of {chosen.runs}", flush=True)
            with clone(template, request, host, Setting(work, log, Deadline(LIMIT_S), Progress())) as machine:
                measure("as labs start", partial(steps, machine))
                measure("memory", partial(memory, machine))
            for server, port_of in SERVERS.items():
                with started(template, request, host, work) as machine:
                    measure(f"{server} by TCP", partial(by_port, machine, port_of(machine)))
            if chosen.crowd:
                measure("crowd", lambda: {f"{chosen.crowd} at once": crowd(template, request, host, work, chosen.crowd)})
        if not chosen.no_lab:
            front_door(scratch / "reports")  # (The first makes the lab's template.)
            for _ in range(chosen.runs):
                measure(f"make lab LAB={LAB}", lambda: front_door(scratch / "reports"))
    for arm, samples in results.items():
        table(arm, samples, "MiB" if arm == "memory" else "seconds")
    if chosen.json:
        chosen.json.write_text(json.dumps({"image": image.name, "cpus": chosen.cpus, "results": results}, indent=1))


if __name__ == "__main__":
    main()
