#!/usr/bin/env python3
"""A small service that leaks zombies: installed, started, and left to leak until there are some. The guest that a student repairs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vmlab_guest.proc import children_of
from vmlab_guest.say import say
from vmlab_guest.wait import wait_until

ENOUGH = 5
LIMIT_S = 30.0

SERVICE = '''\
#!/usr/bin/python3
"""A print shop: three printers that always run, and a short job now and then. On SIGHUP it reads its own program again, in place."""
import os
import signal
import sys
import time

DONE = "/run/printshop/done"


def printer():
    while True:
        time.sleep(3600)


def job():
    with open(DONE, "a") as done:
        done.write("job\\n")


def started(work):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        work()
        os._exit(0)
    return pid


def reload(*_):
    # The process stays, with all its children: only the program in it is new.
    os.execv(sys.argv[0], [sys.argv[0], "again"])


def main():
    signal.signal(signal.SIGHUP, reload)
    # (A signal that is blocked stays so across exec: SIGHUP may have been, while its handler ran.)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    if sys.argv[1:] != ["again"]:
        for _ in range(3):
            started(printer)
    while True:
        started(job)
        time.sleep(0.2)


main()
'''
UNIT = """\
[Unit]
Description=A print shop

[Service]
RuntimeDirectory=printshop
ExecStart=/usr/local/sbin/printshop
ExecReload=/bin/kill -HUP $MAINPID

[Install]
WantedBy=multi-user.target
"""


def main() -> None:
    """Install the service, start it, and wait for zombies."""
    program = Path("/usr/local/sbin/printshop")
    program.write_text(SERVICE)
    program.chmod(0o755)
    Path("/etc/systemd/system/printshop.service").write_text(UNIT)
    subprocess.run(["systemctl", "start", "printshop.service"], check=True)
    pid = int(
        subprocess.run(["systemctl", "show", "--value", "-p", "MainPID", "printshop.service"], check=True, capture_output=True).stdout
    )
    leaks = wait_until(lambda: zombies(pid) >= ENOUGH, limit_s=LIMIT_S, every_s=0.05)
    say(pid=pid, leaks=leaks, zombies=zombies(pid))


def zombies(parent: int) -> int:
    """How many of its children are zombies."""
    return len(children_of(parent)[0])


if __name__ == "__main__":
    os.umask(0o022)
    main()
