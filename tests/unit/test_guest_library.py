"""The library for guest scripts as a whole: what it imports, that it lies beside the scripts, that no lab writes again what it holds.

What its modules do is in tests/library; what of it works in a guest is in tests/guest/test_library.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import vmlab
from vmlab.errors import UsageError
from vmlab.lab import Lab, library, read_lab
from vmlab.lab.skeleton import FILES as SKELETON
from vmlab.lab.skeleton import create
from vmlab.paths import data_dir, guest_library

HOME = guest_library()
MODULES = sorted(path.stem for path in HOME.glob("*.py") if path.stem != "__init__")

# What takes tens of milliseconds to import in an emulated guest, and what only some of the modules may take.
SLOW = {
    "signal",
    "enum",
    "pathlib",
    "dataclasses",
    "subprocess",
    "typing",
    "json",
    "re",
    "threading",
    "contextlib",
    "collections",
    "socket",
}
WITH_ADDRESSES = {"syscalls", "namespaces", "native", "sandbox", "keeper", "student"}


def imports(code: str) -> Iterator[str]:
    """The modules that a file imports, wherever, but for those that mypy alone sees."""
    tree, unseen = ast.parse(code), set[int]()
    for found in ast.walk(tree):
        if isinstance(found, ast.If) and isinstance(found.test, ast.Name) and found.test.id == "TYPE_CHECKING":
            unseen |= {id(node) for statement in found.body for node in ast.walk(statement)}
    for node in ast.walk(tree):
        if id(node) not in unseen and isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif id(node) not in unseen and isinstance(node, ast.ImportFrom):
            yield node.module or "."


def test_it_imports_the_standard_library_and_itself_alone() -> None:
    wrong = {
        f"{path.name}: {name}"
        for path in HOME.glob("*.py")
        for name in imports(path.read_text())
        if name.split(".")[0] not in sys.stdlib_module_names and name.split(".")[0] != library.NAME
    }
    assert not wrong


def test_nothing_of_the_engine_imports_it() -> None:
    engine = Path(vmlab.__file__).parent
    assert not [path for path in engine.rglob("*.py") if any(name.split(".")[0] == library.NAME for name in imports(path.read_text()))]


def test_control_an_import_is_seen() -> None:
    assert list(imports("import a.b\nfrom c import d\ndef f():\n    import e\n")) == ["a.b", "c", "e"]
    assert not list(imports("TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from typing import Self\n"))


def loaded_by(module: str) -> set[str]:
    """What importing a module loads, beyond what every Python has loaded at its start."""
    program = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-E", "-c", program], cwd=HOME.parent, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_what_is_slow_is_not_imported(module: str) -> None:
    loaded = loaded_by(f"{library.NAME}.{module}")
    assert not loaded & SLOW
    assert ("ctypes" in loaded) == (module in WITH_ADDRESSES)


def test_control_what_is_slow_is_seen() -> None:
    assert loaded_by("json") >= {"json", "re"}


@pytest.mark.parametrize("module", ["__init__", *MODULES])
def test_it_runs_under_the_oldest_python_of_our_images(module: str) -> None:
    ast.parse((HOME / f"{module}.py").read_text(), feature_version=(3, 11))


@pytest.mark.parametrize("module", MODULES)
def test_each_module_says_what_it_is_for_in_one_line(module: str) -> None:
    text = importlib.import_module(f"{library.NAME}.{module}").__doc__ or ""
    assert re.match(r"[A-Z/][^\n]*[.:]\n|[A-Z/][^\n]*\.$", text)
    assert len((HOME / f"{module}.py").read_text().splitlines()) < 500


# --- beside the scripts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return read_lab(create("sample", tmp_path))


def test_its_files_are_those_that_run_in_a_guest() -> None:
    assert set(library.files()) == {f"vmlab_guest/{name}.py" for name in ("__init__", *MODULES)}


def test_its_digest_counts_in_the_labs(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, of_the_library = lab.digest, lab.guest_library_digest
    assert before == lab.digest_with(of_the_library) != lab.digest_with("")
    other = tmp_path / "other" / "vmlab_guest"
    other.mkdir(parents=True)
    for path in library.files().values():
        (other / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(library, "guest_library", lambda: other)
    assert lab.digest == before  # (Wherever it lies.)
    (other / "say.py").write_text("")
    assert lab.digest != before
    assert lab.digest_with(of_the_library) == before  # (The lab's own files are what they were.)


def test_a_lab_without_guest_scripts_has_no_library(lab: Lab) -> None:
    (lab.directory / "guest" / "touch.py").unlink()
    assert lab.guest_library_digest == ""
    assert lab.digest == lab.digest_with("")


@pytest.mark.parametrize("name", ["vmlab_guest.py", "vmlab_guest/say.py", "vmlab_guest.sh"])
def test_no_script_lies_where_the_library_does(name: str, lab: Lab) -> None:
    path = lab.directory / "guest" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(UsageError, match="has the name of the library"):
        lab.guest_files()
    with pytest.raises(UsageError, match="has the name of the library"):
        _ = lab.digest


def test_no_lab_is_called_like_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name for a lab"):
        create("vmlab_guest", tmp_path)


# --- no lab writes it again -------------------------------------------------------------------------------------------------------

REPEATED_LINES = 6


def scripts() -> dict[str, dict[str, str]]:
    """The text of every guest script, by lab and name; the skeleton is a lab, and so is the library."""
    labs = {path.parent.name: path.parent / "guest" for path in data_dir("labs").glob("*/lab.yaml")}
    homes = {**labs, "the skeleton": SKELETON / "guest", "the library": HOME}
    endings = (".py", ".sh", ".py.in", ".sh.in")
    return {lab: {path.name: path.read_text() for path in home.rglob("*") if path.name.endswith(endings)} for lab, home in homes.items()}


def lines_of(text: str) -> list[str]:
    """The lines that count: without indents, blank lines, comments and imports."""
    stripped = (re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", "import ", "from "))]


def repeated(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Six lines in a row that two labs have alike."""
    seen: dict[tuple[str, ...], tuple[str, str]] = {}
    twice = []
    for lab, files in found.items():
        for name, text in files.items():
            lines = lines_of(text)
            for place in range(len(lines) - REPEATED_LINES + 1):
                window = tuple(lines[place : place + REPEATED_LINES])
                if len(set(window)) < 3 or sum(map(len, window)) < 40:
                    continue  # (Nothing but brackets.)
                first = seen.setdefault(window, (lab, name))
                if first[0] != lab:
                    twice.append(f"{lab}/{name} and {first[0]}/{first[1]}: {window[0]}")
    return twice


def test_no_labs_guest_scripts_repeat_another_labs() -> None:
    assert set(scripts()) >= {"zombies", "memory", "boot", "the skeleton", "the library"}
    assert not repeated(scripts())


def test_control_what_is_repeated_is_seen() -> None:
    lines = [f"value_{number} = look_at({number})" for number in range(6)]
    one, other = "\n".join(lines), "\n\n".join(f"    {line}  # why" for line in ["import os", *lines])
    assert len(repeated({"a": {"x.py": one}, "b": {"y.py": other}})) == 1
    assert not repeated({"a": {"x.py": one, "y.py": other}})
    assert not repeated({"a": {"x.py": one}, "b": {"y.py": "\n".join(lines[:5])}})
    assert not repeated({"a": {"x.py": ")\n" * 9}, "b": {"y.py": ")\n" * 9}})
