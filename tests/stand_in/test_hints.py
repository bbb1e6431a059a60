"""Mistakes of a lab's author that a run stops at: each names the file to look at and says what to do.

None sends the author to `vmlab doctor`, which looks at the machine.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vmlab
from tests.stand_in.machine import StandIn
from tests.stand_in.test_run import guest_lab
from vmlab.errors import ScriptError

pytestmark = pytest.mark.timeout(120)

SAYS = {
    "nothing.py": "",
    "two.py": "print('{}')\nprint('{}')\n",
    "words.py": "print('hello')\n",
    "list.py": "print('[1]')\n",
    "breaks.py": "raise SystemExit(3)\n",
    "hangs.py": "import time\ntime.sleep(60)\n",
    "much.py": "print('x' * 100000)\n",
    "once.py": "print('{}', flush=True)\n",
    "half.py": "print('{', end='', flush=True)\n",
    "deaf.py": "import os, sys\nos.close(0)\nprint('{}', flush=True)\n",
}

# What the experiment does; what the error says, the file by its name among it; and what the author can do.
MISTAKES: dict[str, tuple[str, str, str]] = {
    "prints nothing": ('guest.script("nothing.py")', "guest/nothing.py printed nothing", "must print at least one JSON object"),
    "prints two": ('guest.script("two.py").record', "guest/two.py printed 2 objects where one was expected", ".records"),
    "prints words": ('guest.script("words.py")', "what is not JSON: guest/words.py", "prints one JSON object a line"),
    "prints a list": ('guest.script("list.py")', "JSON that is not an object: guest/list.py", "prints one JSON object a line"),
    "fails": ('guest.script("breaks.py")', "guest/breaks.py failed with exit status 3", "try it by hand: vmlab shell aa"),
    "hangs": ('guest.script("hangs.py", time_limit_s=0.5)', "guest/hangs.py: it ran longer than its", "time_limit_s"),
    "prints much": (
        'guest.script("much.py", output_limit_bytes=100)',
        "guest/much.py: it printed more than 100 bytes",
        "output_limit_bytes",
    ),
    "says nothing": (
        'with guest.start("hangs.py") as talk:\n    talk.read(time_limit_s=0.5)',
        "it printed nothing for 0 s: guest/hangs.py",
        "find out what it waits for",
    ),
    "ends early": (
        'with guest.start("once.py") as talk:\n    talk.read()\n    talk.read()',
        "it ended where another line was expected: guest/once.py",
        "reads more lines of it than it prints",
    ),
    "ends in a line": (
        'with guest.start("half.py") as talk:\n    talk.read()',
        "its last line has no end: guest/half.py",
        "print whole lines",
    ),
    "says words": (
        'with guest.start("words.py") as talk:\n    talk.read()',
        "what is not JSON: guest/words.py",
        "prints one JSON object a line",
    ),
    "fails in the end": (
        'with guest.start("breaks.py") as talk:\n    talk.finish()',
        "it failed with exit status 3: guest/breaks.py",
        "any status but 0 means that it broke",
    ),
    "does not listen any more": (
        'with guest.start("once.py") as talk:\n    talk.read()\n    time.sleep(1)\n    talk.send({"a": 1})',
        "it no longer reads its input: guest/once.py",
        "more to it (talk.send) than it reads",
    ),
    "a command that fails": ('guest.run("cat /no/such/file")', "exit status 1: cat /no/such/file", "experiment.py"),
    "a file that is not there": (
        'guest.read_text("/no/such/file")',
        "/no/such/file cannot be read in guest main: No such",
        "experiment.py",
    ),
    "a file that cannot be got": ('guest.get("/no/such/file", Path("x"))', "cannot copy /no/such/file from the guest", "experiment.py"),
    "a place that is not there": ('guest.put(Path(__file__), "/no/such/place")', "to /no/such/place", "experiment.py"),
    "what is no JSON": ('bench.record("other", {"x": {1, 2}})', "the observation other is not plain JSON", "experiment.py records it"),
    "a name that is taken": ('bench.record("run", {"x": 1})', "an observation cannot be called 'run'", "another name"),
    "here, it fails": ('bench.here("breaks.py")', "guest/breaks.py failed on this machine", "try it by hand"),
    "here, it says words": ('bench.here("words.py")', "what is not JSON: guest/words.py", "prints one JSON object a line"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_an_authors_mistake_leads_to_the_file(machine: StandIn, what: str) -> None:
    body, message, hint = MISTAKES[what]
    guest_lab(machine, body, scripts=SAYS)
    done = machine.run("run", "aa", "--cold")
    error = machine.report("aa")["run"]["error"]
    assert error is not None, done.stdout + done.stderr
    assert message in error["message"]
    assert hint in error["hint"]
    assert "doctor" not in error["hint"]
    assert "Traceback" not in done.stdout + done.stderr


def test_whatever_is_added_leads_there_too() -> None:
    assert "doctor" not in ScriptError.default_hint
    assert "guest/" in ScriptError.default_hint


def test_each_place_that_raises_such_an_error_says_what_to_do() -> None:
    silent = []
    for path in sorted(Path(vmlab.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ScriptError":
                silent += [] if "hint" in {each.arg for each in node.keywords} else [f"{path.name}:{node.lineno}"]
    assert silent == []
