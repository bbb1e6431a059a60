"""The probe of /dev/kvm under kvm_intel, with its second set of page tables and without; its record each time."""

from __future__ import annotations

import json
import subprocess
import sys

for setting in ("ept=1", "ept=0"):
    subprocess.run(["modprobe", "-r", "kvm_intel"], check=True)
    subprocess.run(["modprobe", "kvm_intel", setting], check=True)
    done = subprocess.run([sys.executable, "-m", "kvm", "--limit", "400"], cwd=sys.argv[1], stdout=subprocess.PIPE, check=True)
    print(json.dumps(json.loads(done.stdout)), flush=True)
