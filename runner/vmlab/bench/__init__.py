"""What an experiment may touch: guests, the look at them from outside, and the record of what was observed.

Here the machine wing (`vmlab.guest`, `vmlab.image`, `vmlab.host`) and the evidence wing (`vmlab.lab`, `vmlab.report`) meet: neither
imports anything of the other. Of the report the bench uses the model alone, whose parts it writes down. What stands above it (`run`,
`many`, the commands) uses both wings too; a lab's experiment has only this room. labs/README.md describes it for authors.

bench       guests by name, phases, the record
guest       a running guest, as an experiment sees it
emulated    one that Bochs emulates, which runs one script a boot
notebook    what a run has written down so far
session     what it all stands on: the machine, taken and ready
"""

from vmlab.bench.bench import Bench, boot_request
from vmlab.bench.guest import GUEST_LAB_DIR, GUEST_PROBE_DIR, Guest, ScriptResult
from vmlab.bench.notebook import Notebook
from vmlab.bench.session import Session
from vmlab.errors import HostError
from vmlab.guest.frozen import FrozenDisk
from vmlab.guest.start import START_LIMIT_S
from vmlab.lab.experiment import part

__all__ = [
    "GUEST_LAB_DIR",
    "GUEST_PROBE_DIR",
    "START_LIMIT_S",
    "Bench",
    "FrozenDisk",
    "Guest",
    "HostError",
    "Notebook",
    "ScriptResult",
    "Session",
    "boot_request",
    "part",
]
