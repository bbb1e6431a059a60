"""ruff and strict mypy, as tests: whoever runs the tests has run them, in the words of `make lint`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",))


def tool(*arguments: str) -> None:
    """Run a tool of the test extra; one that is missing is a failure, not a skip."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(arguments[:2])} says:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("command", LINT, ids=" ".join)
def test_the_tools_find_nothing(command: tuple[str, ...]) -> None:
    tool(*command)


def test_make_lint_is_just_that() -> None:
    recipe = re.search(r"^lint:.*\n\t.*?&& (\$\(VENV\)/ruff .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    commands = [tuple(shlex.split(part.replace("$(VENV)/", ""))) for part in recipe[1].split("&&")]
    assert commands == list(LINT)


def test_every_file_is_looked_at_and_strictly() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    kept = {"ignore_missing_imports", "follow_imports"}  # (About the code of others.)
    assert settings["mypy"]["strict"] is True
    assert not any(set(each) - kept - {"module"} for each in settings["mypy"]["overrides"])
    assert not settings["mypy"].keys() & {"ignore_errors", "disable_error_code"}
    # What a student begins with is unfinished, and most solutions are wrong on purpose: both stand there as a student would write them.
    assert settings["mypy"]["exclude"] == ["^labs/[^/]+/tasks/", "^labs/[^/]+/tests/solutions/"]
    assert settings["ruff"]["extend-exclude"] == ["labs/*/tasks", "labs/*/tests/solutions"]
    assert not settings["ruff"].keys() & {"exclude", "include"}
    known = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "*.py"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(known) > 100
    assert not [path for path in known if not path.startswith(tuple(f"{name}/" for name in settings["mypy"]["files"]))]


@pytest.mark.parametrize(
    ("name", "code"),
    [("ruff", "import os\n"), ("mypy", "def f(x: int) -> str:\n    return x\n"), ("mypy", "def f(x) -> None: ...\n")],
)
def test_control_the_tools_see_a_fault(tmp_path: Path, name: str, code: str) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(code)
    arguments = ("ruff", "check", "--no-cache") if name == "ruff" else ("mypy", "--cache-dir", str(tmp_path))
    with pytest.raises(AssertionError, match=r"F401|return-value|no-untyped-def"):
        tool(*arguments, str(wrong))
