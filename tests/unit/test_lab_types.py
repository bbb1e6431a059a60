"""What mypy and pytest make of a lab in a folder of its own, with no settings but theirs: from within, from around it, beside others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vmlab.lab.skeleton import create

CACHE = ROOT / ".mypy_cache" / "labs"
LABS = sorted(path.parent.name for path in ROOT.glob("labs/*/lab.yaml"))
MODEL = '''"""What experiment and checks share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """A service."""

    name: str
    cost_s: float
'''
SHOW = "from . import model\nfrom .model import Service\n\nreveal_type(model.Service)\nreveal_type(Service('a', 1.0).cost_s)\n"
SCRIPT = '''"""Prints twice two."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .helper import twice
else:
    from helper import twice
print(twice(2) + 1)
'''
TEST = '''"""A test of the model, and of what it is for the lab."""

from vmlab.lab import read_lab

from .. import model
from ..experiment import experiment
from ..guest.helper import twice
from ..model import Service


def test_the_model() -> None:
    assert model.Service("a", 1.0) == Service("a", 1.0)
    assert callable(experiment)
    assert twice(21) == 42
'''

pytestmark = pytest.mark.xdist_group("types of labs")  # (So that they share mypy's cache, and do not wait for its lock.)


def tool(*arguments: str, here: Path, status: int = 0) -> str:
    """What a tool says, run where no settings of ours are."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY", "PYTEST"))}
    argv = [sys.executable, "-m", *arguments]
    done = subprocess.run(argv, cwd=here, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def mypy(where: str, *, here: Path, status: int = 0) -> str:
    return tool("mypy", "--strict", "--cache-dir", str(CACHE), where, here=here, status=status)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labs as they are written for an author, each with a model, a guest script's neighbour and tests of both."""
    shelf = tmp_path_factory.mktemp("author")
    for name in ("mylab", "other"):
        folder = create(name, shelf)
        (folder / "model.py").write_text(MODEL)
        (folder / "guest" / "helper.py").write_text("def twice(x: int) -> int:\n    return 2 * x\n")
        (folder / "guest" / "double.py").write_text(SCRIPT)
        (folder / "tests" / "test_model.py").write_text(TEST)
        for part in ("checks", "experiment"):
            text = (folder / f"{part}.py").read_text()
            (folder / f"{part}.py").write_text(
                text + "\n\nfrom . import model\nfrom .model import Service\n\nHERE: Service = model.Service('a', 1.0)\n"
            )
    return shelf


def test_a_new_lab_is_typed(tmp_path: Path) -> None:
    create("mylab", tmp_path)
    mypy("mylab", here=tmp_path)
    mypy(".", here=tmp_path / "mylab")


@pytest.mark.parametrize(("where", "inside"), [("mylab", ""), (".", ""), (".", "mylab"), ("tests", "mylab"), ("checks.py", "mylab")])
def test_labs_with_models_and_tests_are_typed(shelf: Path, where: str, inside: str) -> None:
    mypy(where, here=shelf / inside)


def test_the_types_are_the_real_ones(shelf: Path) -> None:
    show = shelf / "mylab" / "checks_show.py"
    show.write_text(SHOW)
    try:
        said = mypy("mylab", here=shelf)
    finally:
        show.unlink()
    assert 'Revealed type is "def (name: str, cost_s: float) -> mylab.model.Service"' in said.replace("builtins.", "")
    assert 'Revealed type is "float"' in said.replace("builtins.", "")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("from .model import Service\n\nx: int = Service('a', 1.0)\n", "assignment"),
        ("from . import model\n\nmodel.Servce\n", "attr-defined"),
        ("from vmlab.lab import Evidence\n\n\ndef f(evidence: Evidence) -> int:\n    return evidence['a'].text('b')\n", "return-value"),
        ("from vmlab.bench import Bench\n\n\ndef f(bench: Bench) -> int:\n    return bench.guest().run('x').stdout\n", "return-value"),
    ],
)
def test_control_a_fault_is_seen(shelf: Path, code: str, says: str) -> None:
    wrong = shelf / "mylab" / "checks_wrong.py"
    wrong.write_text(code)
    try:
        assert f"[{says}]" in mypy("mylab", here=shelf, status=1)
    finally:
        wrong.unlink()


@pytest.mark.parametrize("name", LABS)
def test_our_own_labs_would_be_typed_anywhere(name: str) -> None:
    # (What students write, or begin with, has no types: starters and solutions.)
    exclude = ("--exclude", "/tasks/", "--exclude", "/tests/solutions/")
    tool("mypy", "--strict", "--config-file=", "--cache-dir", str(CACHE), *exclude, str(ROOT / "labs" / name), here=ROOT)


@pytest.mark.parametrize(
    ("where", "inside"), [("mylab/tests", ""), ("mylab/tests other/tests", ""), ("tests", "mylab"), ("", "mylab"), ("", "")]
)
def test_its_tests_pass_anywhere(shelf: Path, where: str, inside: str) -> None:
    said = tool("pytest", "-q", *where.split(), here=shelf / inside)
    assert re.search(r"\d+ passed", said)
    assert "failed" not in said
