"""That the engine knows no lab, what a lab's files may import, and how long a file may be. (Who imports whom: test_imports.)"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import vmlab
from vmlab import paths

PACKAGE = Path(vmlab.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))

ORDINARY = {"boot", "memory"}


def strings(tree: ast.AST) -> list[ast.Constant]:
    """Every text in the code that does something; docstrings (click shows some as help) may use a lab as an example."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare]
    return [node for node in found if isinstance(node.value, str)]


def test_the_engine_mentions_no_lab() -> None:
    """A lab is data to the engine. A lab's name that is an ordinary word of the engine's must at least not stand in a path."""
    labs = {path.parent.name for path in paths.data_dir("labs").glob("*/lab.yaml")}
    mention = re.compile("|".join([*(rf"\b{name}\b" for name in labs - ORDINARY), *(rf"labs/{name}\b" for name in labs)]))
    texts = [(path, node) for path in FILES for node in strings(ast.parse(path.read_text()))]
    assert not [f"{path}:{node.lineno}" for path, node in texts if mention.search(node.value)]


def test_control_a_lab_named_in_code_is_seen() -> None:
    assert [node.value for node in strings(ast.parse('"""zombies"""\nif name == "zombies": run(f"labs/zombies/{x}")'))] == [
        "zombies",
        "labs/zombies/",
    ]


def foreign(code: str, allowed: set[str], neighbours: set[str]) -> list[str]:
    """What a lab's file imports beyond the standard library, the names it may use, and its neighbours."""
    tree = ast.parse(code)
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += ["." * node.level + (node.module or "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [name for name in names if name.split(".")[0] not in sys.stdlib_module_names | neighbours and name not in allowed]


def test_a_labs_files_import_only_what_the_guide_says() -> None:
    wrong = []
    for home in (path.parent for path in paths.data_dir("labs").glob("*/lab.yaml")):
        scripts = sorted((home / "guest").rglob("*.py"))
        # What lies beside checks and experiment is loaded by `beside`; its types are imported by their full names, for mypy alone.
        own = {f"labs.{home.name}.{path.stem}" for path in home.glob("*.py") if not path.stem.startswith(("checks", "experiment"))}
        files = [(path, {"vmlab.lab"} | own | ({"vmlab.bench"} if path.stem == "experiment" else set())) for path in home.glob("*.py")]
        for path, allowed in [*files, *((script, set[str]()) for script in scripts)]:
            neighbours = {script.stem for script in scripts} if path in scripts else set()
            wrong += [f"{path}: {name}" for name in foreign(path.read_text(), allowed, neighbours)]
    assert not wrong


def test_control_a_lab_that_reaches_into_the_engine_is_seen() -> None:
    assert foreign("from vmlab.guest import qemu", {"vmlab.lab"}, set()) == ["vmlab.guest"]
    assert foreign("import numpy\nimport os, helper\nfrom . import x", set(), {"helper"}) == ["numpy", "."]
    assert not foreign("from vmlab.lab import check\nimport json", {"vmlab.lab"}, set())


def test_no_file_is_long() -> None:
    long = {str(path.relative_to(PACKAGE.parent)): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: lines for path, lines in long.items() if lines > 500}


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 10
