"""Sends 20,006 bytes to port 7000 of a host, and says how long that took.

usage: send.py HOST
"""

import json
import socket
import sys
import time

began = time.monotonic()
with socket.create_connection((sys.argv[1], 7000), timeout=20) as connection:
    connection.sendall(b"MARKER" + b"x" * 20000)
print(json.dumps({"took_s": time.monotonic() - began}))
