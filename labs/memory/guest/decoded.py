#!/usr/bin/env python3
"""For a control of the lab: the probe of /dev/kvm with a guest whose computing loop KVM decodes by software, because it asks for that.

KVM knows a prefix by which a guest says "emulate the next instruction" (Linux, Documentation/admin-guide/kernel-parameters.txt,
kvm.force_emulation_prefix). Nothing else is changed, and the results are the same. Prints the probe's record.

usage: decoded.py DIRECTORY LIMIT
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

SWITCH = Path("/sys/module/kvm/parameters/force_emulation_prefix")
# ud2, and the letters k v m, before each `inc rax`; then `loop` back to there, and hlt.
DECODED = bytes.fromhex("0f0b 6b766d 48ffc0 e2f6 f4".replace(" ", ""))
# (Each is an exit and takes long where the processor is emulated.)
TIMES = 2000


def main() -> None:
    """Switch it on, put the other loop in the place of the probe's, run the probe, switch it off."""
    directory, limit = sys.argv[1:]
    sys.path.insert(0, directory)
    vars(importlib.import_module("kvm.programs"))["COMPUTE"] = DECODED
    vars(importlib.import_module("kvm.measurements"))["COMPUTE_N"] = TIMES
    before = SWITCH.read_text()
    SWITCH.write_text("1")
    try:
        sys.argv[1:] = ["--limit", limit]
        importlib.import_module("kvm.__main__").main()
    finally:
        SWITCH.write_text(before)


main()
