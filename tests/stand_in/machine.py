"""A machine on which guests boot within a second, because its QEMU emulates nothing (`tests.stand_in.qemu`).

For tests of all that lies around a guest: slots, jobs, clones, connections, reports. What a guest *does* is tested in tests/guest.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.conftest import ROOT
from vmlab.cli import app

_QEMU = """#!/bin/sh
# (It is no part of vmlab, so it is not measured either.)
unset COVERAGE_PROCESS_CONFIG COVERAGE_PROCESS_START
PYTHONPATH={root}:{root}/runner exec {python} -m tests.stand_in.qemu "$@"
"""

# The disk's name is the last word when one is made, and the second-last but one of a conversion.
_QEMU_IMG = """#!/bin/sh
case $1 in
create) for last; do :; done; printf 'QFI\\373 a stand-in' >"$last" ;;
convert) for last; do before=$this; this=$last; done; cp "$before" "$last" ;;
rebase) ;;
info) printf '{"format": "qcow2", "virtual-size": 1048576}' ;;
*) exit 1 ;;
esac
"""

# A shell in a guest: says how it was asked for one, and what lies in the files that it is to use.
_SSH = """#!/bin/sh
printf 'ssh %s\\n' "$*"
for word; do
    case $word in
    */id_ed25519) stat -c 'key %a' "$word"; head -n 1 "$word" ;;
    UserKnownHostsFile=*) printf 'known '; cat "${word#*=}" ;;
    esac
done
exit 5
"""


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """A command decides what ends it; the tests' process goes on after it."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class StandIn:
    """Programs, a cache and slots in a directory of its own, and the command line that uses them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.labs = root / "labs"
        self.reports = root / "reports"
        self.image = root / "tiny.qcow2"
        self.image.write_bytes(b"QFI\xfb" + bytes(508))
        programs = root / "bin"
        programs.mkdir()
        for name, text in (("qemu-system-x86_64", _QEMU.format(root=ROOT, python=sys.executable)), ("qemu-img", _QEMU_IMG), ("ssh", _SSH)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "VMLAB_CACHE": str(root / "cache"),
            "VMLAB_SLOTS": str(root / "slots"),
        }

    def trouble(self, *words: str) -> None:
        """From now on guests fail so (`tests.stand_in.qemu.trouble`)."""
        self.env["VMLAB_STAND_IN"] = " ".join(words)

    def argv(self, command: str, *words: str) -> list[str]:
        """Where labs, reports and the image are goes before ``words``, which may say otherwise."""
        guests = ["labs", "accel", "image"]
        here = {"run": ["reports", *guests], "shell": guests, "template build": guests}
        values = {"labs": str(self.labs), "reports": str(self.reports), "accel": "tcg", "image": str(self.image)}
        options = [word for name in here.get(command, []) for word in (f"--{name}", values[name])]
        return [sys.executable, "-m", "vmlab", *command.split(), *options, *words]

    def run(self, *words: str) -> Done:
        """A command in this process, which has imported all that it needs."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.env, clear=True),
            mock.patch.object(sys, "argv", ["vmlab", *self.argv(*words)[3:]]),
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _signals_kept(),
            pytest.raises(SystemExit) as ended,
        ):
            app.main()
        return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command in a process of its own."""
        argv, out = self.argv(*words), subprocess.PIPE
        return subprocess.Popen(argv, cwd=self.root, env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, text=True)

    def on_terminal(self, *words: str) -> tuple[int, str]:
        """A command on a terminal of its own: its exit status, and all that it drew."""
        ours, theirs = pty.openpty()
        env = {**self.env, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        process = subprocess.Popen(self.argv(*words), cwd=self.root, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        drawn = b""
        # (Linux says that a terminal has no other end any more by an error.)
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 1 << 16):
                drawn += chunk
        os.close(ours)
        return process.wait(60), drawn.decode()

    def report(self, lab: str) -> Any:
        """The lab's newest report."""
        return json.loads((self.reports / lab / "latest" / "report.json").read_text())
