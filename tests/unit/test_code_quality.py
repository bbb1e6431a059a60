"""ruff and strict mypy, as tests: whoever runs the tests has run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [name for name in ("runner", "tests", "labs", "benchmarks") if any((ROOT / name).rglob("*.py"))]
CODE_OF_LABS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("labs/*/*.py"))
BENCHMARKS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("benchmarks/*.py"))


def tool(*arguments: str) -> None:
    """Run a tool of the test extra; one that is missing is a failure, not a skip."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(arguments[:2])} says:\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing() -> None:
    tool("ruff", "check", *FOLDERS)


def test_ruff_would_format_nothing() -> None:
    tool("ruff", "format", "--check", *FOLDERS)


def test_mypy_is_content_with_everything() -> None:
    # Every lab has a checks.py; with explicit bases they are labs.a.checks and labs.b.checks, not two modules of one name.
    tool("mypy", "--explicit-package-bases", "runner", *CODE_OF_LABS, *BENCHMARKS)


@pytest.mark.parametrize(
    ("name", "code"),
    [("ruff", "import os\n"), ("mypy", "def f(x: int) -> str:\n    return x\n")],
)
def test_control_the_tools_see_a_fault(tmp_path: Path, name: str, code: str) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(code)
    arguments = ("ruff", "check", "--no-cache") if name == "ruff" else ("mypy", "--cache-dir", str(tmp_path))
    with pytest.raises(AssertionError, match=r"F401|return-value"):
        tool(*arguments, str(wrong))
