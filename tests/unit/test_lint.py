"""`vmlab lint`, and what a run says before it waits for its slot: each mistake of an author's, with file and line and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vmlab.errors import UsageError
from vmlab.host.slots import Slots
from vmlab.lab.lint import lint
from vmlab.lab.skeleton import create
from vmlab.run.request import Job, prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The skeleton's lab, which has nothing wrong."""
    return create("page_touch", tmp_path / "labs")


def said(folder: Path) -> list[str]:
    found, _ = lint(folder)
    assert all(each.hint for each in found), "each says what to do"
    return [each.what for each in found]


LABS = sorted(path.parent for path in (ROOT / "labs").glob("*/lab.yaml"))


@pytest.mark.parametrize("lab", LABS, ids=lambda path: path.name)
def test_our_labs_are_clean(lab: Path) -> None:
    assert said(lab) == []


def test_the_skeleton_is_clean(folder: Path) -> None:
    assert said(folder) == []


def edit(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text, (file, old)
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def add(file: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        with (folder / file).open("a") as stream:
            stream.write(text)

    return change


def gone(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


SCRIPTS = {
    "a guest script that Python cannot read": (add("guest/bad.py", "x = 1\ndef f(:\n"), "guest/bad.py:2: invalid syntax"),
    "one that needs a newer Python": (add("guest/new.py", "type X = int\n"), "guest/new.py:1: "),
    "one that is not text": (lambda folder: (folder / "guest/bin.py").write_bytes(b"\0\0x"), "guest/bin.py"),
    "a shell script that the shell cannot read": (add("guest/bad.sh", "echo\nif true; then\n"), "guest/bad.sh:3: "),
    "one by its first line": (add("guest/bad", "#!/bin/sh\ncase x in\n"), "guest/bad:3: "),
    "Python by its first line": (add("guest/tool", "#!/usr/bin/env python3\n)\n"), "guest/tool:2: "),
    "a script that is not there": (
        edit("experiment.py", '"touch.py"', '"tuch.py"'),
        "experiment.py:12: there is no guest script named 'tuch.py'; did you mean",
    ),
    "a guest that is not there": (
        edit("experiment.py", "bench.guest()", 'bench.guest("mian")'),
        "experiment.py:8: there is no guest named 'mian'; did you mean 'main'",
    ),
    "a parameter that is not there": (
        edit("experiment.py", '"populate"]', '"populated"]'),
        "experiment.py:11: there is no parameter named 'populated'; did you mean 'populate'",
    ),
    "a name that is not there": (
        edit("experiment.py", "guest.script", "gest.script"),
        "experiment.py:12: the name 'gest' is not defined; did you mean",
    ),
    "a parameter that a check reads": (
        edit("checks.py", "    memory = evidence", '    evidence.parameters.integer("size")\n    memory = evidence'),
        "checks.py:13: there is no parameter named 'size'",
    ),
    "data that is not there": (
        edit("experiment.py", "guest = bench.guest()", 'guest = bench.guest()\n    bench.data("x.yaml")'),
        "experiment.py:9: the lab has no file x.yaml",
    ),
    "a network that is not there": (
        edit("experiment.py", "guest = bench.guest()", 'guest = bench.guest()\n    bench.network("lan")'),
        "experiment.py:9: there is no network named 'lan'",
    ),
    "an experiment that breaks at its import": (
        edit("experiment.py", "from vmlab.bench import Bench", "from vmlab.bench import Bench\n1 / 0"),
        "experiment.py:4: ZeroDivisionError",
    ),
    "checks that do not compile": (add("checks.py", "def broken(:\n"), "checks.py:"),
    "a claim that lab.yaml does not have": (
        edit("checks.py", 'claim="L2"', 'claim="L3"'),
        "checks.py:23: the check touching_takes_frames tests the claim 'L3'",
    ),
    "a question's check that there is not": (
        edit("lab.yaml", "check: touching_takes_frames", "check: touching"),
        "lab.yaml:55: questions[0].check: the question after_half is shown with the check 'touching'",
    ),
    "a mistake in lab.yaml": (
        edit("lab.yaml", "memory_mib: 1024", "memory_mib: lots"),
        "lab.yaml:17: guests.main.memory_mib: expected a whole number",
    ),
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_mistake_is_told_by_lint_and_before_a_run_waits_for_its_slot(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "hold", None)  # (Whoever asked for a slot would break here.)
    change, words = SCRIPTS[what]
    change(folder)
    assert any(words in each for each in said(folder)), said(folder)
    with pytest.raises(UsageError) as caught:
        prepare(Job(folder.name, folder.name, folder.parent / "reports", "", labs=(folder.parent,)), here=False)
    assert words in caught.value.message + caught.value.detail
    assert caught.value.exit_code == 2


ONLY_LINT = {
    "a claim that no check tests": (
        edit("lab.yaml", "  L2:", "  L9:\n    stands: holds\n    says: More.\n  L2:"),
        "lab.yaml:11: claims.L9: no check tests this claim",
    ),
    "a measured place that leads nowhere": (
        edit("lab.yaml", "measured_by: memory.after_half_percent", "measured_by: memory.half"),
        "questions[0].measured_by: 'memory.half' leads nowhere: memory has no half; it has: ",
    ),
    "one whose observation is not there": (
        edit("lab.yaml", "measured_by: memory.a", "measured_by: memroy.a"),
        "leads nowhere; the observations are: memory",
    ),
    "one that is no number": (
        edit("lab.yaml", "measured_by: memory.after_half_percent", "measured_by: memory.samples"),
        "measured_by: expected a number there",
    ),
    "rows that are not there": (
        edit("lab.yaml", "rows: memory.samples", "rows: memory.sample"),
        "plots[0].series[0].rows: 'memory.sample' leads nowhere",
    ),
    "rows that are no list": (
        edit("lab.yaml", "rows: memory.samples", "rows: memory.size_kib"),
        "plots[0].series[0].rows: expected a list of objects there",
    ),
    "a member that is not there": (
        edit("lab.yaml", "x: touched_kib,", "x: touched,"),
        "plots[0].series[0].x: no object of memory.samples has a member 'touched'",
    ),
    "no README": (gone("README.md"), "README.md does not exist"),
    "a README without its name": (edit("README.md", "# page_touch", "page_touch"), "README.md:1: expected the lab's name as a heading"),
    "a README without a heading": (
        edit("README.md", "## After the run", "## Later"),
        "README.md:13: there is no heading `## After the run`",
    ),
    "a heading in a listing": (
        edit("README.md", "## Before the run", "```\n## Before the run\n```"),
        "there is no heading `## Before the run`",
    ),
    "no tests": (gone("tests/test_page_touch.py"), "tests has no test_*.py"),
    "no tests folder": (gone("tests"), "tests has no test_*.py"),
    "no sound set": (gone("tests/sound.json"), "tests/sound.json does not exist"),
    "a sound set that is none": (edit("tests/sound.json", '"format": 1', '"format": 7'), "tests/sound.json is no sound set of format 1"),
    "a sound set that is not sound": (
        edit("tests/sound.json", '"resident_kib":68,', '"resident_kib":60000,'),
        "tests/sound.json: the check mapping_takes_no_frames comes out as fail",
    ),
    "no package": (gone("__init__.py"), "__init__.py does not exist"),
    "tests that are no package": (gone("tests/__init__.py"), "tests/__init__.py does not exist"),
    "a module that no guest has": (add("guest/more.py", "import os\nimport numpy\n"), "guest/more.py:2: no guest has the module numpy"),
    "one that the library has not": (
        add("guest/more.py", "from vmlab_guest.nothing import say\n"),
        "guest/more.py:1: the library for guests has no module vmlab_guest.nothing",
    ),
}


@pytest.mark.parametrize("what", ONLY_LINT)
def test_what_does_not_fit_together_is_told(folder: Path, what: str) -> None:
    change, words = ONLY_LINT[what]
    change(folder)
    assert any(words in each for each in said(folder)), said(folder)


def test_every_mistake_is_told_at_once(folder: Path) -> None:
    for name in ("a guest script that Python cannot read", "a script that is not there", "a shell script that the shell cannot read"):
        SCRIPTS[name][0](folder)
    for name in ("no README", "rows that are not there"):
        ONLY_LINT[name][0](folder)
    assert len(said(folder)) == 5
    assert all(str(folder.name) in each for each in said(folder)), "each names its file"


@pytest.mark.parametrize(
    "text",
    [
        "import os, sys\nfrom vmlab_guest import say\nimport vmlab_guest.proc\n",
        "import touch\n",
        "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from .touch import main\nelse:\n    from touch import main\n",
    ],
)
def test_what_a_guest_script_may_import(folder: Path, text: str) -> None:
    (folder / "guest" / "more.py").write_text(text)
    assert said(folder) == []


def test_calls_that_are_none_of_the_benchs_are_left_alone(folder: Path) -> None:
    """Names that a lab gives its own things, and words in quotes that name nothing."""
    add(
        "model.py",
        "import re\n\nCOUNT = 0\n\n\ndef look(text, data, render):\n    global LATER\n    LATER = 1\n"
        "    found = re.match('(?P<x>.)', text)\n"
        "    return found.start('x'), data.render('y'), render.data('z'), LATER, [len(each) for each in text]\n",
    )(folder)
    assert said(folder) == []


def test_a_lab_may_be_listed_and_linted_while_all_slots_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from vmlab.cli.app import cli

    monkeypatch.setattr(Slots, "hold", None)
    for words in (["list"], ["lint", "page_touch"]):
        done = CliRunner().invoke(cli, [*words, "--labs", str(folder.parent)])
        assert done.exit_code == 0, done.output
        assert "page_touch" in done.output


def test_the_command_says_one_line_of_a_good_lab_and_all_of_a_bad_one(folder: Path) -> None:
    from click.testing import CliRunner

    from vmlab.cli.app import cli

    def asked(*words: str) -> tuple[int, list[str]]:
        done = CliRunner().invoke(cli, ["lint", *words, "--labs", str(folder.parent)])
        return done.exit_code, done.output.splitlines()

    assert asked("page_touch") == (
        0,
        ["page_touch: nothing is wrong (2 checks, 1 guest file; no check looks at 1 place of the sound evidence)"],
    )
    assert asked("page_touch", "--unread")[1][1:] == ["  memory.after_half_percent"]
    ONLY_LINT["no README"][0](folder)
    code, lines = asked("page_touch")
    assert (code, len(lines)) == (2, 2)
    assert lines[1].startswith("       ")
    code, lines = asked("all")
    assert code == 2
    assert sum("nothing is wrong" in line for line in lines) == len(LABS)
