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


def strings(tree: ast.AST) -> list[tuple[int, str]]:
    """Every text in the code that does something, with its line; docstrings (click shows some as help) may use a lab as an example."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare]
    return [(node.lineno, node.value) for node in found if isinstance(node.value, str)]


def test_the_engine_mentions_no_lab() -> None:
    """A lab is data to the engine. A lab's name that is an ordinary word of the engine's must at least not stand in a path."""
    labs = {path.parent.name for path in paths.data_dir("labs").glob("*/lab.yaml")}
    mention = re.compile("|".join([*(rf"\b{name}\b" for name in labs - ORDINARY), *(rf"labs/{name}\b" for name in labs)]))
    texts = [(path, *found) for path in FILES for found in strings(ast.parse(path.read_text()))]
    assert not [f"{path}:{line}" for path, line, text in texts if mention.search(text)]


def test_control_a_lab_named_in_code_is_seen() -> None:
    assert [text for _, text in strings(ast.parse('"""zombies"""\nif name == "zombies": run(f"labs/zombies/{x}")'))] == [
        "zombies",
        "labs/zombies/",
    ]


def foreign(code: str, allowed: set[str], neighbours: set[str]) -> list[str]:
    """What a lab's file imports beyond the standard library, the names it may use, and its neighbours."""
    tree = ast.parse(code)
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
        names += ["." * node.level + node.module] if node.module else ["." * node.level + alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] not in sys.stdlib_module_names and name not in allowed | neighbours]


def neighbours(path: Path, home: Path) -> set[str]:
    """What a file of a lab may import of the lab: a guest script other scripts, which are a package to mypy alone; all else, modules."""
    if path.is_relative_to(home / "guest"):
        scripts = {script.stem for script in home.glob("guest/*.py")}
        return scripts | {f".{name}" for name in scripts}
    modules = {module.stem for module in home.glob("*.py")} - {"experiment"}
    return {f".{name}" for name in modules if path.stem.startswith("checks") or not name.startswith("checks")}


LIBRARY = {f"vmlab_guest.{path.stem}" for path in paths.guest_library().glob("*.py")} | {"vmlab_guest"}


def test_a_labs_files_import_only_what_the_guide_says() -> None:
    wrong = []
    for home in (path.parent for path in paths.data_dir("labs").glob("*/lab.yaml")):
        scripts = sorted((home / "guest").rglob("*.py"))
        files = [
            (path, {"vmlab.lab"} | ({"vmlab.bench"} if path.stem in ("experiment", "experiment_tasks") else set()))
            for path in home.glob("*.py")
        ]
        for path, allowed in [*files, *((script, LIBRARY) for script in scripts)]:
            wrong += [f"{path}: {name}" for name in foreign(path.read_text(), allowed, neighbours(path, home))]
    assert not wrong


def test_control_a_lab_that_reaches_into_the_engine_is_seen(tmp_path: Path) -> None:
    assert foreign("from vmlab.guest import qemu", {"vmlab.lab"}, set()) == ["vmlab.guest"]
    assert foreign("from vmlab_guest.no_such import x\nfrom vmlab_guest.say import say", LIBRARY, set()) == ["vmlab_guest.no_such"]
    assert foreign("import numpy\nimport os, helper\nfrom . import x", set(), {"helper"}) == ["numpy", ".x"]
    assert foreign("from .. import x\nfrom ..y import z", set(), {".x", ".y"}) == ["..x", "..y"]
    assert not foreign("from vmlab.lab import check\nimport json\nfrom . import a\nfrom .b import c", {"vmlab.lab"}, {".a", ".b"})
    for name in ("experiment", "checks", "checks_more", "model"):
        (tmp_path / f"{name}.py").touch()
    assert neighbours(tmp_path / "checks_more.py", tmp_path) == {".checks", ".checks_more", ".model"}
    assert neighbours(tmp_path / "experiment.py", tmp_path) == {".model"}


def test_no_file_is_long() -> None:
    long = {str(path.relative_to(PACKAGE.parent)): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: lines for path, lines in long.items() if lines > 500}


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 10
