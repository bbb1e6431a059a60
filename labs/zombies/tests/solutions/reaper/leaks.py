"""Wrong: a file is opened for each command, and stays open."""

import os
import select
import signal
import sys

wakes, bell = os.pipe()
os.set_blocking(bell, False)
os.set_blocking(wakes, False)
signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
signal.signal(signal.SIGCHLD, lambda *_: None)

number_of = {}
failures = 0


def start(command):
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", command])
    os.open("/dev/null", os.O_RDONLY)
    return pid


def reap():
    global failures
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in number_of:
            status = os.WEXITSTATUS(raw) if os.WIFEXITED(raw) else 128 + os.WTERMSIG(raw)
            failures += status != 0
            print(number_of.pop(pid), status, flush=True)


started, pending, open_ = 0, b"", True
while open_ or number_of:
    ready, _, _ = select.select([wakes] + ([0] if open_ else []), [], [])
    if wakes in ready:
        os.read(wakes, 4096)
        reap()
    if 0 in ready:
        content = os.read(0, 65536)
        open_ = bool(content)
        *lines, pending = (pending + content).split(b"\n")
        for line in lines:
            started += 1
            number_of[start(line.decode())] = started
reap()
sys.exit(1 if failures else 0)
