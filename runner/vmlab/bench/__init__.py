"""What an experiment may touch: guests, the look at them from outside, and the record of what was observed.

Here the machine wing (`vmlab.guest`, `vmlab.image`, `vmlab.host`) and the evidence wing (`vmlab.lab`, `vmlab.report`) meet: neither
imports anything of the other. Of the report the bench uses the model alone, whose parts it writes down. What stands above it (`run`,
`many`, the commands) uses both wings too; a lab's experiment has only this room. labs/README.md describes it for authors.

bench       guests by name, phases, the record
request     from what lab.yaml asks for to what the machine wing understands
guest       a running guest, as an experiment sees it
emulated    one that Bochs emulates, which runs one script a boot
noise       what else this machine did while something was measured
quietest    a measurement that is repeated until it was quiet
power       what a guest needs to be switched on again
notebook    what a run has written down so far
session     what it all stands on: the machine, taken and ready
"""

from vmlab.bench.bench import Bench
from vmlab.bench.guest import GUEST_LAB_DIR, GUEST_PROBE_DIR, Guest, ScriptResult
from vmlab.bench.noise import NoiseMeter
from vmlab.bench.notebook import Notebook
from vmlab.bench.request import boot_request
from vmlab.bench.session import Session
from vmlab.errors import (
    GuestEnded,
    GuestError,
    GuestExited,
    GuestPanicked,
    HostError,
    RunError,
    ScriptError,
    SshError,
    UnsuitableProcessor,
    UsageError,
)
from vmlab.guest.expected import ExpectedEnd
from vmlab.guest.frozen import FrozenDisk
from vmlab.guest.look.disk import DiskView
from vmlab.guest.look.packets import Capture
from vmlab.guest.network import Network
from vmlab.guest.start import START_LIMIT_S
from vmlab.lab.experiment import part

__all__ = [
    "GUEST_LAB_DIR",
    "GUEST_PROBE_DIR",
    "START_LIMIT_S",
    "Bench",
    "Capture",
    "DiskView",
    "ExpectedEnd",
    "FrozenDisk",
    "Guest",
    "GuestEnded",
    "GuestError",
    "GuestExited",
    "GuestPanicked",
    "HostError",
    "Network",
    "NoiseMeter",
    "Notebook",
    "RunError",
    "ScriptError",
    "ScriptResult",
    "Session",
    "SshError",
    "UnsuitableProcessor",
    "UsageError",
    "boot_request",
    "part",
]
