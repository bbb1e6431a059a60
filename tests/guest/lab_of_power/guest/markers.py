"""Fill 64 pages with a marker, tell their page frames, and keep them until the input is closed.

usage: markers.py MARKER
"""

import json
import mmap
import struct
import sys
from pathlib import Path

PAGES = 64
MARKER = (sys.argv[1].encode() * mmap.PAGESIZE)[: mmap.PAGESIZE]

memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE)
for page in range(PAGES):
    memory[page * mmap.PAGESIZE : (page + 1) * mmap.PAGESIZE] = MARKER
with Path("/proc/self/maps").open() as maps:
    sizes = [line.split()[0].split("-") for line in maps if "zero (deleted)" in line or "/dev/zero" in line]
start = next(int(low, 16) for low, high in sizes if int(high, 16) - int(low, 16) == len(memory))
with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
    pagemap.seek(start // mmap.PAGESIZE * 8)
    entries = struct.unpack(f"={PAGES}Q", pagemap.read(8 * PAGES))
print(json.dumps({"frames": [entry & ((1 << 55) - 1) for entry in entries]}), flush=True)
sys.stdin.read()
