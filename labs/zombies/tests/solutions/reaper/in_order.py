"""Wrong: it waits for its commands in the order in which they began."""

import os
import sys

pids = []
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", line.strip()])
    pids.append(pid)
failures = 0
for number, pid in enumerate(pids, 1):
    _, raw = os.waitpid(pid, 0)
    status = os.WEXITSTATUS(raw) if os.WIFEXITED(raw) else 128 + os.WTERMSIG(raw)
    failures += status != 0
    print(number, status, flush=True)
sys.exit(1 if failures else 0)
