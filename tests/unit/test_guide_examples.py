"""Every block of code in the authoring guide is run, or at least compiled, typed and checked as what it is."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tests.guide import EXAMPLE, GUIDE, example
from vmlab.cli.app import cli
from vmlab.errors import UsageError
from vmlab.lab.collection import read_lab
from vmlab.lab.lint import lint
from vmlab.lab.skeleton import create
from vmlab.paths import guest_library

TEXT = GUIDE.read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
YAML = [text for kind, text in BLOCKS if kind == "yaml"]
FILES = example()
OF_THE_EXAMPLE = [text for text in [*PYTHON, *YAML] if any(text.strip() in file for file in FILES.values())]
LINES = re.findall(r"^    (\S.*)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
COMMANDS = sorted({*re.findall(r"`(vmlab [^`]+)`", TEXT), *(line for line in LINES if "vmlab " in line)})

FRAGMENT = """from vmlab.bench import Bench


def fragment(bench: Bench) -> None:
    guest = bench.guest()
{lines}
"""


def said_by(script: str, folder: Path) -> str:
    """What a guest script prints on this machine."""
    environment = {**os.environ, "PYTHONPATH": str(guest_library().parent)}
    argv = [sys.executable, script]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def indented(text: str) -> str:
    return "".join(f"    {line}\n" if line.strip() else "\n" for line in text.splitlines())


def test_there_is_no_block_of_another_kind() -> None:
    assert {kind for kind, _ in BLOCKS} <= {"python", "yaml"}
    assert len(PYTHON) > 8 and len(YAML) > 6 and len(COMMANDS) > 20


def test_the_tutorials_blocks_are_the_example_lab() -> None:
    """All of its Python and YAML but one line, so that what is shown is what `vmlab new` writes, and what its tests run."""
    tutorial = TEXT.partition("\n# Part 2: Reference\n")[0]
    shown = re.findall(r"^```\w*\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    others = [text for text in shown if text not in OF_THE_EXAMPLE]
    assert len(shown) >= 7
    assert [text.count("\n") for text in others] == [1]


def test_the_example_is_shown_whole() -> None:
    """But for the end of its tests, and for what a student reads."""
    for name in ("experiment.py", "guest/touch.py", "checks.py"):
        assert FILES[name].strip() in TEXT, name
    for section in re.split(r"^(?=[a-z_]+:)", FILES["lab.yaml"], flags=re.MULTILINE)[1:]:
        assert section.strip() in TEXT, section


def test_its_python_is_typed(tmp_path: Path) -> None:
    """Each block as a module of a lab: as it stands where it imports something, else as lines of an experiment."""
    folder = create(EXAMPLE, tmp_path)
    blocks = [text for text in PYTHON if text not in OF_THE_EXAMPLE]
    for number, text in enumerate(blocks):
        if "TYPE_CHECKING" in text:
            (folder / "guest" / f"block_{number}.py").write_text(f'"""A block."""\n\n{text}\nprint(resident_kib())\n')
            continue
        whole = text if re.search(r"^(?:from|import) ", text, re.MULTILINE) else FRAGMENT.format(lines=indented(text))
        (folder / f"block_{number}.py").write_text(whole)
    argv = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(ROOT / ".mypy_cache" / "labs"), EXAMPLE]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(blocks) >= 5


@pytest.mark.parametrize(
    "text", [text for text in PYTHON if "vmlab_guest" in text and "student" not in text and text not in OF_THE_EXAMPLE]
)
def test_its_guest_scripts_run(text: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(text)
    lines = said_by("block.py", tmp_path).splitlines()
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)


def test_its_neighbours_import_each_other(tmp_path: Path) -> None:
    (block,) = [text for text in PYTHON if "TYPE_CHECKING" in text and "vmlab_guest" not in text]
    (tmp_path / "touch.py").write_text(FILES["guest/touch.py"].replace("\nmain()\n", "\n"))
    (tmp_path / "block.py").write_text(f"{block}\nprint(resident_kib())\n")
    environment = {**os.environ, "PYTHONPATH": str(guest_library().parent)}
    done = subprocess.run(
        [sys.executable, "block.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) > 0


@pytest.mark.parametrize("text", [text for text in YAML if text not in OF_THE_EXAMPLE])
def test_its_yaml_is_a_lab_yaml(text: str, tmp_path: Path) -> None:
    """Each block in the place of what the example has of the same keys. (A `unrefuted` takes the place of the control that refutes.)"""
    folder = create(EXAMPLE, tmp_path)
    keys = re.findall(r"^([a-z_]+):", text, re.MULTILINE)
    kept = [part for part in re.split(r"^(?=[a-z_]+:)", FILES["lab.yaml"], flags=re.MULTILINE)[1:] if part.partition(":")[0] not in keys]
    (folder / "lab.yaml").write_text("\n".join([*kept, text]))
    lab = read_lab(folder)
    lab.load_checks()
    lab.load_experiment()


def test_control_a_mistake_in_yaml_is_seen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown key; did you mean 'memory_mib'"):
        test_its_yaml_is_a_lab_yaml("guests:\n  main: {memory: 12}\n", tmp_path)


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_take_what_they_are_given(line: str) -> None:
    """Nothing is run: the command line is parsed as the command would."""
    called = line[line.index("vmlab ") :].partition("#")[0]
    for name, value in (("NAME", EXAMPLE), ("OTHER", "zombies"), ("DIR", "."), ("REPORT", "reports/x"), ("...", "")):
        called = re.sub(rf"\b{re.escape(name)}\b" if name.isalpha() else re.escape(name), value, called)
    _, name, *arguments = shlex.split(called)
    command = cli.commands[name]
    if not arguments:
        return  # (It is named, not called.)
    context = click.Context(cli, info_name="vmlab")
    if isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    command.make_context(name, arguments, parent=context)


def test_control_an_option_that_is_not_there_is_seen() -> None:
    with pytest.raises(click.NoSuchOption):
        test_its_commands_take_what_they_are_given("vmlab run NAME --parameter x=1")


def test_the_example_is_clean(tmp_path: Path) -> None:
    assert lint(create(EXAMPLE, tmp_path))[0] == []
    for text in PYTHON:
        ast.parse(text)
