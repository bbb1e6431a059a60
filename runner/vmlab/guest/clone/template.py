"""A booted guest, saved to be cloned from: its memory, its state, its disk, its keys.

Memory and disk are one unit and are never written again. What a template may be used for is told by its key, which covers everything
whose change would break a clone or, worse, let it hang without a word: a clone that meets another CPU model is loaded without complaint
and then never answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import TemplateError
from vmlab.guest import drive, qemu, seed
from vmlab.guest.boot import cold_spec, launch, require_space, seed_files
from vmlab.guest.clone import control, migration
from vmlab.guest.clone import identity as standby
from vmlab.guest.machine import Birth, BootRequest, Machine, System
from vmlab.guest.readiness import CloudInitStatus
from vmlab.guest.setting import Setting
from vmlab.guest.ssh import Connection, Knocked
from vmlab.host import facts
from vmlab.image.cache import sha256
from vmlab.progress import Progress

# Raised when what is saved, or how, changes its meaning.
FORMAT = 3

MANIFEST = "manifest.json"
# The files that a clone needs; each is checked before the template is used.
FILES = ("ram", "state", "disk.qcow2", "empty.qcow2", "seed.iso", "identity.json", "console.log")

# QEMU can open a file for a private mapping without the right to write it from this version on (memory-backend-file, rom=off).
READ_ONLY_RAM_SINCE = (8, 2)

# A guest is quiet when QEMU has used less than this share of one CPU for so many looks in a row. An idle one uses about 0.05 under
# emulation (its timer ticks); a clone of one that was saved before it was quiet stays slow for as long.
QUIET_SHARE = 0.15
QUIET_LOOKS = 3
LOOK_EVERY_S = 0.5
QUIET_LIMIT_S = 60.0

# Timers set to a time of day would all be due when a clone's clock is set to today's. systemd's are stopped; cron has none in our images.
_SETTLE = "if [ -d /run/systemd/system ]; then systemctl stop '*.timer'; fi; sync"


@dataclass(frozen=True)
class Template:
    """What a manifest says, and where its files are."""

    entry: str
    key: str
    directory: Path
    cloud_init: CloudInitStatus
    system: System
    identity: seed.Identity
    has_control: bool
    """Whether its clones are reached through `vmlab.guest.clone.control`."""

    def file(self, name: str) -> Path:
        """The path of one of `FILES`."""
        return self.directory / name


@dataclass(frozen=True)
class Host:
    """What of this machine decides which templates it can use."""

    qemu: facts.Qemu
    cpu: str
    kernel: str

    @classmethod
    def here(cls) -> Host:
        """This machine; HostError when it has no QEMU that will do."""
        kernel = Path("/proc/sys/kernel/osrelease").read_text().strip()
        return cls(facts.require_qemu(), facts.cpu_identity(), kernel)

    @property
    def machine_type(self) -> str:
        """The newest machine type of this QEMU, by the name that it will always have."""
        return qemu.versioned_machine(self.qemu.number)


def key_of(request: BootRequest, host: Host) -> str:
    """The digest of everything that decides whether a template of one guest serves for another.

    The guest's name, its keys and the paths of its files do not; a guest's own boot never shows them but in its disk.
    """
    nobody = seed.Identity("HOST", "INSTANCE", seed.KeyPair("PRIVATE", "PUBLIC"), seed.KeyPair("PRIVATE", "PUBLIC"))
    image = request.image
    anonymous = dataclasses.replace(
        request,
        name="NAME",
        image=dataclasses.replace(
            image,
            disk=Path("DISK"),
            kernel=image.kernel and Path("KERNEL"),
            initrd=image.initrd and Path("INITRD"),
        ),
        firmware=request.firmware and Path("FIRMWARE"),
        drives=tuple(dataclasses.replace(each, content=None) for each in request.drives),
        machine_type=host.machine_type,
    )
    spec = cold_spec(anonymous, Path("PLACE"), qemu.Wires(0, 0, 0, networks=(0,) * len(request.links)), ram=qemu.RamFile(Path("RAM")))
    covered = {
        "format": FORMAT,
        "inside": sha256(standby.INSIDE),
        "control": control.SCRIPT,
        "settle": _SETTLE,
        "argv": qemu.argv(dataclasses.replace(spec, generation_id="GENERATION")),
        "qemu": host.qemu.build or host.qemu.version,
        "cpu": host.cpu,
        # An accelerated guest's state is also the host kernel's.
        "kernel": host.kernel if request.accelerator == "kvm" else "",
        "image": {name: entry["sha256"] for name, entry in image.manifest["files"].items()},
        "firmware": sha256(request.firmware) if request.firmware else "",
        "seed": seed_files(request, nobody),
    }
    if request.drives:
        # The guest's kernel knows how large each disk is, and remembers what it has read of it.
        covered["drives"] = {each.name: [each.size_bytes, sha256(each.content) if each.content else ""] for each in request.drives}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def save(machine: Machine, out: Path, final: Path, deadline: Deadline, progress: Progress) -> bool:
    """Bring a guest that was booted with ``keep_in=out`` to rest and write the rest of the template there; the guest is stopped for good.

    ``final`` is where the directory will be, which the empty overlay has to know. Returns whether clones are reached through
    `vmlab.guest.clone.control`. TemplateError when the guest cannot be saved.
    """
    progress.waiting("the guest to settle")
    with machine.attributing():
        machine.ssh.execute(_SETTLE, deadline=deadline)
        has_control = control.listen(machine, deadline)
        standby.arm(machine.ssh, machine.sockets.identity, deadline)
        machine.hang_up()
    _wait_until_quiet(machine, deadline.within(QUIET_LIMIT_S))
    progress.waiting("the guest's state to be written")
    migration.save(machine, out / "state", deadline)
    machine.stop()
    drive.require_untouched(machine.request.drives, machine.directory)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(out / "disk.qcow2"), str(out / "empty.qcow2")]
    process.run(create, deadline=deadline)
    process.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", str(final / "disk.qcow2"), str(out / "empty.qcow2")],
        deadline=deadline,
    )
    (out / "console.log").write_text(machine.console.text())
    (out / "identity.json").write_text(json.dumps(dataclasses.asdict(machine.identity)))
    return has_control


def _wait_until_quiet(machine: Machine, deadline: Deadline) -> None:
    used, quiet = machine.cpu_s(), 0
    while quiet < QUIET_LOOKS:
        if deadline.expired():
            raise TemplateError(f"the guest was still at work {deadline.budget_s:.0f} s after its boot: a copy of it would be slow")
        began = time.monotonic()
        time.sleep(LOOK_EVERY_S)
        machine.check_alive()
        before, used = used, machine.cpu_s()
        quiet = quiet + 1 if (used - before) / (time.monotonic() - began) < QUIET_SHARE else 0


def manifest_of(out: Path, machine: Machine, *, key: str, has_control: bool, took_s: float) -> dict[str, Any]:
    """What is written beside the files, and read again by `load` and by ``vmlab template list``."""
    request, birth = machine.request, machine.birth
    return {
        "format": FORMAT,
        "key": key,
        "made_at_s": time.time(),
        "made_in_s": round(took_s, 1),
        "image": request.image.name,
        "accelerator": request.accelerator,
        "machine_type": request.machine_type,
        "memory_mib": request.memory_mib,
        "cpus": request.cpus,
        "init": request.init,
        "has_control": has_control,
        "system": dataclasses.asdict(birth.system),
        "cloud_init": dataclasses.asdict(birth.cloud_init),
        "files": {name: {"size": (out / name).stat().st_size, "sha256": sha256(out / name)} for name in FILES},
    }


def as_json(manifest: Mapping[str, Any]) -> str:
    """The manifest's text."""
    return json.dumps(manifest, indent=2) + "\n"


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """A template's manifest, or None where there is none that can be used."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        usable = (
            manifest["format"] == FORMAT
            and all(isinstance(manifest["files"][name]["sha256"], str) for name in FILES)
            and all(manifest[field] for field in ("key", "made_at_s", "image", "memory_mib", "cpus", "init", "cloud_init"))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if usable else None


def load(entry: str, directory: Path, manifest: Mapping[str, Any]) -> Template:
    """The template of a manifest whose files were found right. TemplateError when they are not what they should be all the same."""
    try:
        who = json.loads((directory / "identity.json").read_text())
        return Template(
            entry=entry,
            key=manifest["key"],
            directory=directory,
            cloud_init=CloudInitStatus(**manifest["cloud_init"]),
            system=System(**manifest["system"]),
            has_control=bool(manifest["has_control"]),
            identity=seed.Identity(who["hostname"], who["instance_id"], seed.KeyPair(**who["client"]), seed.KeyPair(**who["host"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TemplateError(f"the template {entry} cannot be read: {exc}") from exc


def clone_spec(template: Template, request: BootRequest, host: Host, directory: Path, wires: qemu.Wires) -> qemu.GuestSpec:
    """How to run a clone, whose disk is made in ``directory``: as its template was, with memory and disk of its own."""
    require_space(directory)
    shutil.copyfile(template.file("empty.qcow2"), directory / "disk.qcow2")
    return dataclasses.replace(
        cold_spec(request, directory, wires),
        seed=template.file("seed.iso"),
        ram=qemu.RamFile(template.file("ram"), private=True, read_only=host.qemu.number >= READ_ONLY_RAM_SINCE),
        # Kernel and command line are in the guest's memory already; all else must be as it was when it booted.
        kernel=None,
        initrd=None,
        cmdline="",
        incoming=True,
    )


@contextlib.contextmanager
def clone(template: Template, request: BootRequest, host: Host, setting: Setting) -> Iterator[Machine]:
    """A guest that goes on from where the template was saved, with an identity of its own, ended when the block is left.

    Raises TemplateError and whatever a guest may die of when it does not come to life.
    """

    def spec(directory: Path, wires: qemu.Wires) -> qemu.GuestSpec:
        return clone_spec(template, request, host, directory, wires)

    # How the guest booted is evidence about each of its clones.
    preface = template.file("console.log").read_bytes() + b"[vmlab: saved here; what follows is the clone's own]\n"
    deadline, progress = setting.deadline, setting.progress
    identity = dataclasses.replace(template.identity, hostname=seed.new_hostname(request.name))
    with launch(request, identity, setting, spec, preface=preface) as machine:
        migration.load(machine, template.file("state"), deadline)
        machine.note("running")
        progress.waiting("the clone's first sign of life")
        # sshd prepares itself while the clone becomes somebody; keys are agreed on only after its random numbers are its own.
        port = machine.control_port if template.has_control else machine.port
        with machine.attributing(), Knocked(port, deadline) as knocked:
            newborn = standby.Newborn(machine.sockets.identity, identity.hostname, deadline)
            newborn.quicken()
            machine.note("alive")
            progress.waiting("login")
            machine.talk_over(Connection.connect(port, template.identity, user="root", deadline=deadline, sock=knocked))
            machine.note("login")
            newborn.settle()
            machine.note("identity")
        machine.prove_name(deadline)
        machine.be_born(Birth(template.system, template.cloud_init, template=template.key, clock_error_s=newborn.clock_error_s))
        yield machine
