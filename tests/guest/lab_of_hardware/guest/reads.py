"""Reads a disk so many times, 4 KiB each, past the guest's page cache, and says how long that took.

usage: reads.py DISK TIMES
"""

import json
import mmap
import os
import sys
import time

disk = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
began = time.monotonic()
for number in range(int(sys.argv[2])):
    os.preadv(disk, [page], number * 4096)
print(json.dumps({"took_s": time.monotonic() - began}))
