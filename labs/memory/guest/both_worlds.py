#!/usr/bin/env python3
"""Loads KVM's module with each of some settings in turn and runs the probe of /dev/kvm each time; prints one JSON object a setting.

For a guest that is booted for each script: so all is measured in one boot.

usage: both_worlds.py DIRECTORY kvm_intel ept=1 ept=0
"""

from __future__ import annotations

import json
import subprocess
import sys

from vmlab_guest.say import say

TYPE_CHECKING = False  # (mypy takes it for true.)
if TYPE_CHECKING:
    from .kvm_module import load
else:
    from kvm_module import load

# Where a processor is emulated step by step, what takes another a second takes some more.
LIMIT_S = 240


def main() -> None:
    """One after the other."""
    directory, module, *settings = sys.argv[1:]
    for setting in settings:
        loaded = load(module, setting)
        probe = [sys.executable, "-m", "kvm", "--limit", str(LIMIT_S)]
        done = subprocess.run(probe, cwd=directory, stdout=subprocess.PIPE, check=True)
        say(module=loaded, probe=json.loads(done.stdout))


if __name__ == "__main__":
    main()
