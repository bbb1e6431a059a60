"""Jobs on other machines: a client of a Dask scheduler, and the worker that offers a machine to one.

A lab is one task. Its files travel with it, its report comes back, and the worker takes a slot of its own machine for it like any run
there; images and templates are made once a machine, in that machine's cache. Which worker, and what happens to the labs of one that is
lost, is Dask's business (https://distributed.dask.org): they run again elsewhere, three times at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import platform
import queue
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import distributed

import vmlab
from vmlab.errors import HostError, UsageError, VmlabError
from vmlab.host import accelerator
from vmlab.host.capacity import Need, capacity
from vmlab.host.facts import counted, in_words
from vmlab.lab.collection import Collection
from vmlab.many.job import Result, perform, trouble_of
from vmlab.many.pool import Said
from vmlab.progress import Event, Kind, Progress, Relay
from vmlab.report import store
from vmlab.report.batch import Trouble
from vmlab.report.model import CheckPart
from vmlab.run.request import Job

# Until a scheduler answers. (Dask's own limit is 30 s, and it tries on and on.)
CONNECT_LIMIT_S = 10.0

# The names of what a worker offers and a task takes: bytes, CPUs, and whether guests run under KVM.
_MEMORY, _CPUS, _KVM = "memory", "cpus", "kvm"
_KVM_OFFERED, _KVM_TAKEN = 1.0, 0.001

_QUIET = ("distributed", "distributed.client", "distributed.worker", "distributed.core", "distributed.comm.tcp", "tornado")


@dataclass(frozen=True)
class Parcel:
    """A job with the files of its lab, for a machine that has neither."""

    job: Job
    files: Mapping[str, bytes]
    answers: bytes | None
    topic: str


@dataclass(frozen=True)
class Delivery:
    """What came of a parcel: the files of its report, or why there is none."""

    files: Mapping[str, bytes]
    trouble: Trouble | None
    cpu_s: float


class Cluster:
    """A Dask cluster as `vmlab.many.schedule` sees workers. Closing it drops what runs: a lab that has begun goes on to its end unheard."""

    def __init__(self, address: str, needs: Mapping[str, Need], *, kvm: bool, room: int) -> None:
        """Connect, and look at what is there.

        UsageError when the address is none or when a job fits no worker, HostError when nothing answers or when versions differ.
        """
        _be_quiet()
        self.room = room
        self._needs, self._kvm = needs, kvm
        self._most_cpus = 0.0
        self._topic = f"vmlab-{uuid.uuid4().hex}"
        self._heard: queue.Queue[tuple[str, Event | distributed.Future]] = queue.Queue()
        self._futures: dict[str, distributed.Future] = {}
        self._jobs: dict[str, Job] = {}
        self._client = _connect(address)
        try:
            self._look_at_workers(address)
        except BaseException:
            self._client.close()
            raise
        self._client.subscribe_topic(self._topic, self._hear)

    def start(self, job: Job) -> None:
        """Hand a job to the scheduler."""
        lab = Collection(job.labs).get(job.lab)
        files = {path.relative_to(lab.directory).as_posix(): path.read_bytes() for path in lab.files()}
        parcel = Parcel(_abroad(job), files, job.answers.read_bytes() if job.answers else None, self._topic)
        key = f"{job.id}-{uuid.uuid4().hex[:8]}"
        self._jobs[job.id] = job
        future = self._client.submit(run_parcel, parcel, key=key, resources=self._resources(self._needs[job.id]), pure=False)
        self._futures[job.id] = future
        future.add_done_callback(lambda done: self._heard.put((job.id, done)))

    def said(self, patience_s: float) -> Iterator[Said]:
        """What the workers say, and what is done."""
        with contextlib.suppress(queue.Empty):
            yield self._understood(self._heard.get(timeout=patience_s))
            while True:
                yield self._understood(self._heard.get_nowait())

    def stop(self, job: str) -> None:
        """Take a job back. One that has begun runs to its end, and is not listened to."""
        self._futures[job].cancel()

    def close(self) -> None:
        """Take all back that is not done, and disconnect."""
        with contextlib.suppress(Exception):  # (The scheduler may have gone; there is nothing to tell it then.)
            self._client.cancel([future for future in self._futures.values() if not future.done()])
        self._client.close(timeout=CONNECT_LIMIT_S)

    def _hear(self, event: tuple[Any, Any]) -> None:
        """A worker's event: (when, (job, kind, text, value)), the value being a check's part as JSON, or empty."""
        job, kind, text, value = event[1]
        self._heard.put((job, Event(Kind(kind), text, CheckPart.model_validate_json(value) if value else None)))

    def _understood(self, heard: tuple[str, Event | distributed.Future]) -> Said:
        job, what = heard
        return Said(job, what if isinstance(what, Event) else self._result(self._jobs[job], what))

    def _result(self, job: Job, future: distributed.Future) -> Result:
        if future.status != "finished":
            said = str(future.exception()) if future.status == "error" else future.status
            return Result(trouble=_lost(said))
        delivery: Delivery = future.result()
        if not delivery.files:
            return Result(trouble=delivery.trouble, cpu_s=delivery.cpu_s)
        place = store.new_directory(job.reports, job.lab)
        for name, content in delivery.files.items():
            store.write_atomically(place / name, content)
        return Result(place, cpu_s=delivery.cpu_s)

    def _resources(self, need: Need) -> dict[str, float]:
        """What a worker must have free for a lab. One with more virtual CPUs than any worker takes a worker's all, and runs there alone."""
        return {_MEMORY: need.memory_bytes, _CPUS: min(need.cpus, self._most_cpus), **({_KVM: _KVM_TAKEN} if self._kvm else {})}

    def _look_at_workers(self, address: str) -> None:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise HostError(f"the scheduler at {address} has no workers", hint=f"start one on each machine: vmlab worker {address}")
        ours = identity()
        for name, theirs in self._identities().items():
            if theirs != ours:
                differs = ", ".join(f"{key} {theirs.get(key)} there, {ours[key]} here" for key in ours if theirs.get(key) != ours[key])
                raise HostError(f"the worker {name} is not the same vmlab as this: {differs}", hint="install the same version on both")
        offers = [worker["resources"] for worker in workers.values()]
        self._most_cpus = max(offer.get(_CPUS, 0) for offer in offers)
        for job, need in self._needs.items():
            asked = self._resources(need)
            if not any(all(offer.get(key, 0) >= value for key, value in asked.items()) for offer in offers):
                best = in_words(int(max((offer.get(_MEMORY, 0) for offer in offers), default=0)))
                takes = f"{need.in_words()} of memory and {counted(need.cpus, 'CPU')}{', under KVM' * self._kvm}"
                raise UsageError(
                    f"{job} can never fit: it takes {takes}, and no worker offers that (the largest has {best})",
                    hint="give its guests less memory, or start a larger worker: vmlab worker",
                )

    def _identities(self) -> dict[str, dict[str, str]]:
        """Who the workers are; one that cannot even say it has another vmlab, or none."""
        answers = self._client.run(_identity_as_json, on_error="return")
        return {name: json.loads(said) if isinstance(said, str) else {"vmlab": f"none ({said})"} for name, said in answers.items()}


def run_parcel(parcel: Parcel) -> Delivery:
    """The task: unpack the lab, run it, pack its report. Runs on a worker."""
    worker = distributed.get_worker()
    job = parcel.job

    def send(event: Event) -> None:
        if event.kind not in (Kind.BEGIN, Kind.END):
            value = event.value.model_dump_json() if isinstance(event.value, CheckPart) else ""
            worker.log_event(parcel.topic, (job.id, event.kind.value, event.text, value))

    relay = Relay(send)
    with tempfile.TemporaryDirectory(prefix="vmlab-task-") as directory:
        base = Path(directory)
        for name, content in parcel.files.items():
            path = base / "labs" / job.lab / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        answers = base / "answers.yaml" if parcel.answers is not None else None
        if answers is not None and parcel.answers is not None:
            answers.write_bytes(parcel.answers)
        here = dataclasses.replace(job, labs=(base / "labs",), reports=base / "reports", answers=answers)
        result = perform(here, Progress(relay))
        relay.close()
        trouble = result.trouble
        if trouble is not None:
            trouble = trouble.model_copy(update={"message": f"on {socket.gethostname()}: {trouble.message}"})
        files = {} if result.directory is None else {path.name: path.read_bytes() for path in result.directory.iterdir() if path.is_file()}
        return Delivery(files, trouble, result.cpu_s)


def serve(address: str) -> None:
    """Offer this machine to a scheduler until that ends it: its memory and CPUs as slots give them, and KVM where it is real.

    HostError when the scheduler does not answer, or when labs cannot run here.
    """
    asyncio.run(_serve(address))


async def _serve(address: str) -> None:
    _check_address(address)
    _be_quiet()
    whole, chosen = capacity(), accelerator.choose("auto")
    offered = {_MEMORY: float(whole.memory_bytes), _CPUS: float(whole.cpus), **({_KVM: _KVM_OFFERED} if chosen.name == "kvm" else {})}
    worker = distributed.Worker(
        address,
        nthreads=whole.cpus,
        resources=offered,
        # Guests are what takes memory here, and slots watch over that.
        memory_limit=0,
        death_timeout=CONNECT_LIMIT_S,
        dashboard=False,
    )
    try:
        await asyncio.wait_for(worker, CONNECT_LIMIT_S)
    except (TimeoutError, OSError) as exc:
        raise _unreachable(address) from exc
    print(f"{worker.address} offers {in_words(whole.memory_bytes)}, {counted(whole.cpus, 'CPU')}, {chosen.sentence}", flush=True)
    await worker.finished()


@cache
def identity() -> dict[str, str]:
    """What must be equal on both sides: data of these versions goes from one to the other."""
    home = Path(vmlab.__file__).parent
    code = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        code.update(f"{path.relative_to(home)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    python = ".".join(platform.python_version_tuple()[:2])
    return {"vmlab": vmlab.__version__, "code": code.hexdigest()[:12], "python": python, "distributed": distributed.__version__}


def _identity_as_json() -> str:
    return json.dumps(identity())


def _be_quiet() -> None:
    """What Dask logs of lost connections, we say in our own words."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _connect(address: str) -> distributed.Client:
    _check_address(address)
    try:
        return distributed.Client(address, timeout=CONNECT_LIMIT_S, set_as_default=False)
    except (TimeoutError, OSError) as exc:
        raise _unreachable(address) from exc


def _check_address(address: str) -> None:
    kind, mark, place = address.partition("://")
    host, colon, port = place.rpartition(":")
    if not (mark and kind in ("tcp", "tls") and host and colon and port.isdecimal()):
        raise UsageError(
            f"{address[:80]!r} is not the address of a scheduler", hint="for example tcp://host:8786, as `dask scheduler` prints it"
        )


def _unreachable(address: str) -> VmlabError:
    return HostError(
        f"no scheduler answers at {address} within {CONNECT_LIMIT_S:.0f} s",
        hint="start one (dask scheduler), and see that this machine may connect to it",
    )


def _abroad(job: Job) -> Job:
    """The job without places that mean something on this machine only."""
    return dataclasses.replace(job, labs=(), reports=Path(), answers=None)


def _lost(said: str) -> Trouble:
    return trouble_of(
        HostError(f"the cluster lost it: {said}", hint="see the scheduler's and the workers' output; --retry-errors N runs it again")
    )
