#!/usr/bin/env python3
"""Runs the probe of /dev/kvm while the kernel traces the faults that KVM handles, and prints one JSON object: the last of them.

Needs root, and tracefs. The probe's last phase is the one whose walks are told apart: the host swaps all four table pages and the data
page, and the guest reads one word.

usage: walk_faults.py DIRECTORY [--last N]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

TRACING = Path("/sys/kernel/tracing")
EVENT = TRACING / "events/kvm/kvm_page_fault"
# trace_kvm_page_fault (Linux, arch/x86/kvm/trace.h) prints "... address 0x... error_code 0x...".
LINE = re.compile(r"kvm_page_fault: .*address (0x[0-9a-f]+) error_code (0x[0-9a-f]+)")


def main() -> None:
    """Trace, probe, read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", help="where the probe's package `kvm` lies")
    parser.add_argument("--last", type=int, default=160, help="how many faults to print")
    options = parser.parse_args()
    if not EVENT.exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACING)], check=True)
    (TRACING / "trace").write_text("")
    (EVENT / "enable").write_text("1")
    try:
        done = subprocess.run([sys.executable, "-m", "kvm"], cwd=options.directory, capture_output=True, text=True, check=True)
    finally:
        (EVENT / "enable").write_text("0")
    faults = [
        {"address": seen[1], "error_code": seen[2]} for seen in map(LINE.search, (TRACING / "trace").read_text().splitlines()) if seen
    ]
    print(json.dumps({"probe_error": json.loads(done.stdout)["error"], "traced": len(faults), "faults": faults[-options.last :]}))


if __name__ == "__main__":
    main()
