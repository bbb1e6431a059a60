#!/usr/bin/env python3
"""Runs the probe of /dev/kvm while the kernel traces the faults that KVM handles, and prints one JSON object: the last of them.

Needs root, and tracefs with KVM's events. The probe's last phase is the one that is looked at: again and again the host swaps all four
table pages and the data page behind the guest, which then reads one word.

usage: walk_faults.py DIRECTORY LAST LIMIT
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from vmlab_guest.say import say

TRACING = Path("/sys/kernel/tracing")
EVENT = TRACING / "events/kvm/kvm_page_fault"
# As trace_kvm_page_fault prints it (Linux, arch/x86/kvm/trace.h).
LINE = re.compile(r"kvm_page_fault: .*address (0x[0-9a-f]+) error_code (0x[0-9a-f]+)")


def main() -> None:
    """Trace, probe, read."""
    directory, last, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if not EVENT.exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACING)], check=True)
    (TRACING / "trace").write_text("")
    (EVENT / "enable").write_text("1")
    try:
        done = subprocess.run([sys.executable, "-m", "kvm", "--limit", limit], cwd=directory, capture_output=True, text=True, check=True)
    finally:
        (EVENT / "enable").write_text("0")
    traced = [LINE.search(line) for line in (TRACING / "trace").read_text().splitlines()]
    faults = [{"address": hex(int(seen[1], 16)), "error_code": hex(int(seen[2], 16))} for seen in traced if seen]
    say(probe_error=json.loads(done.stdout)["error"], traced=len(faults), last=faults[-last:])


if __name__ == "__main__":
    main()
