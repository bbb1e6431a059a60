"""How long a cold boot takes, step by step, beside debvm in turn in the same run.

    .venv/bin/python benchmarks/cold_boot.py [--runs 5] [--image debian-13] [--json FILE] [--no-debvm]

Ours includes cloud-init; debvm's image has none, so its "login" is the fair yardstick for our "cloud-init". debvm (Debian package) is
forced to emulation (TCG), as ours is, with the same CPU model, processors and memory; its image is made once, outside the measurement.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import paramiko
import psutil

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.guest.boot import boot
from vmlab.guest.machine import BootRequest
from vmlab.guest.seed import KeyPair
from vmlab.guest.setting import Setting
from vmlab.guest.workdir import work_dir
from vmlab.image.image import Image
from vmlab.image.store import ImageStore
from vmlab.progress import Progress, notices

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # It logs a traceback for each attempt before sshd is there.

LIMIT_S = 400.0
MEMORY_MIB = 1024
CPUS = 2

Sample = dict[str, float]


def own_cpu_s() -> float:
    """CPU seconds of this process; QEMU's are not in it."""
    times = os.times()
    return times.user + times.system


def boot_ours(image: Image) -> Sample:
    """One cold boot of ours: seconds after exec at which each step came true, and the CPU seconds of QEMU and of the runner."""
    before = own_cpu_s()
    with tempfile.TemporaryDirectory() as logs, work_dir() as work:
        request = BootRequest("main", image, "tcg", memory_mib=MEMORY_MIB, cpus=CPUS)
        with boot(request, Setting(work, Path(logs, "console.log"), Deadline(LIMIT_S), Progress())) as guest:
            sample = {step.name: step.at_s for step in guest.reached}
            sample["qemu cpu"] = guest.cpu_s()
    sample["runner cpu"] = round(own_cpu_s() - before, 3)
    return sample


def make_debvm_image(directory: Path, mirror: str) -> tuple[Path, Path]:
    """debvm's own image with our key in it, made by its own tool."""
    pair = KeyPair.new("benchmark")
    key = directory / "key"
    key.write_text(pair.private)
    key.chmod(0o600)
    (directory / "key.pub").write_text(pair.public + "\n")
    disk = directory / "debvm.ext4"
    print("making debvm's image (once, not measured) ...", flush=True)
    argv = ["debvm-create", "-r", "trixie", "-o", str(disk), "-k", str(directory / "key.pub")]
    process.run([*argv, *(["--", mirror] if mirror else [])], deadline=Deadline(1800))
    return disk, key


def boot_debvm(disk: Path, key: Path) -> Sample:
    """One boot of debvm to its first command."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    started = time.monotonic()
    options = ["-machine", "accel=tcg", "-cpu", "max", "-smp", str(CPUS), "-m", f"{MEMORY_MIB}M", "-snapshot"]
    child = process.spawn(["debvm-run", "-i", str(disk), "-s", str(port), "--", *options])
    try:
        login = first_command_s(port, key, started)
        family = psutil.Process(child.pid).children(recursive=True)
        cpu = sum(sum(member.cpu_times()[:2]) for member in family)
    finally:
        process.stop(child)
    return {"login": login, "qemu cpu": round(cpu, 2)}


def first_command_s(port: int, key: Path, started: float) -> float:
    """Seconds after ``started`` at which a command over SSH succeeded."""
    loaded = paramiko.Ed25519Key.from_private_key_file(str(key))
    while time.monotonic() - started < LIMIT_S:
        try:
            with paramiko.SSHClient() as client:
                client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
                client.connect(
                    "127.0.0.1",
                    port,
                    username="root",
                    pkey=loaded,
                    timeout=1,
                    banner_timeout=60,
                    auth_timeout=60,
                    allow_agent=False,
                    look_for_keys=False,
                )
                _, stdout, _ = client.exec_command("true")
                if stdout.channel.recv_exit_status() == 0:
                    return round(time.monotonic() - started, 3)
        except (paramiko.SSHException, OSError, EOFError):
            time.sleep(0.1)
    raise TimeoutError(f"debvm did not answer within {LIMIT_S:.0f} s")


def table(name: str, samples: list[Sample]) -> None:
    """Print n, median, minimum and maximum of each figure."""
    print(f"\n{name} (n={len(samples)}), seconds: median (min - max)")
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        print(f"  {key:<12} {statistics.median(values):7.2f}  ({min(values):.2f} - {max(values):.2f})")


def main() -> None:
    """Measure and print."""
    # debvm's QEMU is a grandchild of this process, so it must be ended by hand even when we are told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--image", default="debian-13")
    options.add_argument("--json", type=Path)
    options.add_argument("--mirror", default=os.environ.get("MIRROR", ""), help="for debvm-create")
    options.add_argument("--no-debvm", action="store_true")
    chosen = options.parse_args()
    image = ImageStore(progress=Progress(notices(print))).get(chosen.image, Deadline(1800))
    ours: list[Sample] = []
    theirs: list[Sample] = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        debvm = None
        if chosen.no_debvm or shutil.which("debvm-run") is None:
            print("debvm is not measured: " + ("not asked for" if chosen.no_debvm else "it is not installed (package debvm)"))
        else:
            debvm = make_debvm_image(Path(directory), chosen.mirror)
        for number in range(chosen.runs):
            print(f"run {number + 1}/{chosen.runs}, load {os.getloadavg()[0]:.1f}", flush=True)
            ours.append(boot_ours(image))
            print(f"  ours  {ours[-1]}", flush=True)
            if debvm:
                theirs.append(boot_debvm(*debvm))
                print(f"  debvm {theirs[-1]}", flush=True)
    table(f"vmlab, {image.name}", ours)
    ratios: list[float] = []
    if theirs:
        table("debvm, trixie, without cloud-init", theirs)
        ratios = [mine["cloud-init"] / other["login"] for mine, other in zip(ours, theirs, strict=True)]
        print(
            f"\nours with cloud-init done / debvm's first command, pair by pair: median {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} - {max(ratios):.2f})"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps({"image": image.name, "ours": ours, "debvm": theirs, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
