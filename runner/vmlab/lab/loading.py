"""A lab's own Python files as a package: each run once, from its text, with every fault answered by file and line.

``from . import graph`` in a lab's file finds ``graph.py`` in the lab's folder and nowhere else. The package has a name of its own for
each load, so that two labs never meet, nor what a lab was with what it is after its files have changed.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from vmlab.errors import UsageError
from vmlab.suggest import nearest
from vmlab.yamlfile import shown

APART = {
    "guest": "its scripts run in the guest",
    "tasks": "its files are for the student",
    "tests": "they are about the lab, and no part of it",
}
"""Folders of a lab whose Python files are no part of its package, and why."""


class LabPackage:
    """The Python files of a lab's folder, as they are when they are first imported.

    A module of it is run once, whoever imports it: what the experiment and the checks share is the same object for both.
    """

    _loads = itertools.count(1)

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # (The number makes it unique, the folder's name tells a reader of a traceback whose it is. A dot would make two names of it.)
        self.name = f"_vmlab_lab_{next(self._loads)}_" + re.sub(r"\W", "_", directory.name)
        _FINDER.packages[self.name] = self

    def module(self, path: Path) -> ModuleType:
        """Import one of the folder's files; UsageError names the file and the line at fault, which may be those of a file it imports."""
        if not path.is_file():
            raise UsageError(f"{shown(path)} does not exist", hint="labs/README.md tells which files a lab has")
        if not path.stem.isidentifier():
            raise UsageError(f"{shown(path)}: {path.stem!r} is no name for a Python module", hint="letters, digits and underscores")
        try:
            return importlib.import_module(f"{self.name}.{path.stem}")
        except UsageError:
            raise
        except (Exception, SystemExit) as exc:  # (Anything may happen in an author's file, and it is the author's to read.)
            raise self._fault(path, exc) from exc

    def names(self) -> list[str]:
        """The modules that there are."""
        return sorted(path.stem for path in self.directory.glob("*.py") if path.stem != "__init__")

    def find(self, names: list[str]) -> tuple[Path, bool] | None:
        """The file of a module by its names from the folder down, and whether it is a package (the folder, without an ``__init__.py``)."""
        if names and names[0] in APART:
            return None
        place = self.directory.joinpath(*names)
        if (place / "__init__.py").is_file():
            return place / "__init__.py", True
        if names and (file := place.with_name(f"{place.name}.py")).is_file():
            return file, False
        return (place, True) if place.is_dir() else None

    def look_through(self, tree: ast.Module, path: Path) -> None:
        """Refuse what Python would take without a word, or answer with less than a sentence; UsageError names file and line."""
        _refuse_doubles(tree, path)
        inside = path.relative_to(self.directory).parent.parts
        for node, target in _relative_imports(tree, inside):
            fault = self._objection(target, path)
            if fault:
                raise UsageError(
                    f"{shown(path)}:{node.lineno}: from {'.' * node.level}{node.module or ''} import "
                    f"{', '.join(alias.name for alias in node.names)}: {fault}",
                    hint="a lab imports Python's standard library, vmlab.lab, (the experiment alone) vmlab.bench, and its own modules",
                )

    def _objection(self, target: Sequence[str] | None, path: Path) -> str:
        """What is wrong with a module's wish to import another one; empty when nothing is."""
        if target is None:
            return "this reaches beyond the lab's folder"
        first = target[0] if target else ""
        if first in APART:
            return f"{first}/ cannot be imported by the lab: {APART[first]}"
        if first in ("experiment", "experiment_tasks"):
            return f"nothing imports {first}.py; what others need of it belongs in a file of its own, which both import"
        if _is_of_checks(first) and not _is_of_checks(path.stem):
            return f"only checks import {first}.py; what others need of it belongs in a file of its own, which both import"
        return ""

    def _fault(self, path: Path, exc: BaseException) -> UsageError:
        """The error of an author's file, by the innermost line of the lab that had part in it."""
        frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if Path(frame.filename).is_relative_to(self.directory)]
        at = f"{shown(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else shown(path)
        said = self._in_plain_names(" ".join(f"{type(exc).__name__}: {exc}".split()))
        detail = self._in_plain_names("".join(traceback.format_exception(exc)))
        return UsageError(f"{at}: {said}", hint=self._hint(exc), detail=detail[-4000:])

    def _hint(self, exc: BaseException) -> str:
        """What to do about an import that failed; empty for any other error."""
        if not isinstance(exc, ImportError) or not exc.name:
            return ""
        if "partially initialized" in str(exc):
            return "two of the lab's modules import each other; what both need belongs in a third one"
        names, wanted = self.names(), exc.name.removeprefix(f"{self.directory.name}.").split(".")[0]
        if wanted in (*names, self.directory.name):
            neighbour = wanted if wanted in names else names[0]
            return f"a lab's file imports its neighbours by their place in the folder: from . import {neighbour}"
        if exc.name == self.name or (isinstance(exc, ModuleNotFoundError) and exc.name.startswith(f"{self.name}.")):
            missing = re.search(r"import name '(\w+)'", str(exc)) or re.search(r"(\w+)'$", str(exc))
            return f"modules of this lab: {', '.join(names)}" + (nearest(missing[1], names) if missing else "")
        return ""

    def _in_plain_names(self, text: str) -> str:
        return text.replace(self.name, self.directory.name)


class _Finder(MetaPathFinder):
    """Finds the modules of every lab that was loaded, and nothing else."""

    def __init__(self) -> None:
        self.packages: dict[str, LabPackage] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """Where a module of a lab is. ModuleNotFoundError keeps Python's own finders, which would leave a cache, out of a lab's folder."""
        top, *names = fullname.split(".")
        package = self.packages.get(top)
        if package is None:
            return None
        found = package.find(names)
        if found is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        file, is_package = found
        if file.is_dir():
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(file)]
            return spec
        loader = _FromText(fullname, str(file), package)
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=[str(file.parent)] if is_package else None)


class _FromText(SourceFileLoader):
    """Reads the source each time: no ``__pycache__`` appears in a lab's folder and none can be stale there."""

    def __init__(self, fullname: str, path: str, package: LabPackage) -> None:
        super().__init__(fullname, path)
        self._package = package

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  (its name is the protocol's)
        """The file's code, after a look through it. UsageError names the file and the line at fault."""
        path = Path(self.path)
        try:
            tree = ast.parse(self.get_data(self.path), self.path)
            self._package.look_through(tree, path)
            return self.source_to_code(tree, self.path)
        except SyntaxError as exc:
            raise UsageError(f"{shown(path)}:{exc.lineno or 1}: {exc.msg}") from exc
        except (ValueError, OSError) as exc:
            raise UsageError(f"{shown(path)}: {exc}") from exc


_FINDER = _Finder()
sys.meta_path.insert(0, _FINDER)


def _is_of_checks(name: str) -> bool:
    return name == "checks" or name.startswith("checks_")


def _relative_imports(tree: ast.Module, inside: Sequence[str]) -> Iterator[tuple[ast.ImportFrom, Sequence[str] | None]]:
    """Each relative import, wherever it stands, with what it names by its path in the lab's folder; None when that is beyond it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > len(inside) + 1:
                yield node, None
                continue
            base = [*inside[: len(inside) + 1 - node.level], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node, [*base, alias.name]


def _refuse_doubles(tree: ast.Module, path: Path) -> None:
    """Two functions of one name: Python would silently forget the first, and a check would be lost."""
    first: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            if node.name in first:
                raise UsageError(
                    f"{shown(path)}:{node.lineno}: the function {node.name} stands here twice (first in line {first[node.name]})"
                )
            first[node.name] = node.lineno
