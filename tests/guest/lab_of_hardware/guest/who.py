"""Says as whom it runs, and waits for a line; with `abandoned`, a child of it waits too, for ever.

usage: who.py [abandoned]
"""

import json
import os
import subprocess
import sys
from pathlib import Path

if sys.argv[1:] == ["abandoned"]:
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
ids = next(line.split()[1:] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
print(json.dumps({"uid": os.getuid(), "groups": os.getgroups(), "capabilities": ids[0], "home": os.environ["HOME"]}), flush=True)
sys.stdin.readline()
