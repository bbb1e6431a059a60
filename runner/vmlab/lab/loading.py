"""Running a lab's own Python files: under a private name, from their text, with every fault answered by file and line."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from vmlab.errors import UsageError
from vmlab.yamlfile import shown


class _FromText(SourceFileLoader):
    """Reads the source each time: no ``__pycache__`` appears in a lab's folder and none can be stale there."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  (its name is the protocol's)
        return self.source_to_code(self.get_data(self.path), self.path)


def beside(file: str, name: str) -> ModuleType:
    """The module in ``name``.py beside a lab's file, for what its experiment and its checks share: ``beside(__file__, "graph")``."""
    return module_from(Path(file).with_name(f"{name}.py"))


def module_from(path: Path) -> ModuleType:
    """Run one Python file and return it as a module; UsageError names the file and the line at fault."""
    if not path.is_file():
        raise UsageError(f"{shown(path)} does not exist", hint="labs/README.md tells which files a lab has")
    _refuse_doubles(path)
    # Unique, so that two labs' checks.py never meet; registered, because dataclasses look their module up by name.
    name = f"_vmlab_lab_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}_{path.stem}"
    loader = _FromText(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as exc:  # (Anything may happen in an author's file, and it is the author's to read.)
        sys.modules.pop(name, None)
        raise _fault(path, exc) from exc
    return module


def _refuse_doubles(path: Path) -> None:
    """Two functions of one name: Python would silently forget the first, and a check would be lost."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, OSError) as exc:
        raise _fault(path, exc) from exc
    first: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            if node.name in first:
                raise UsageError(
                    f"{shown(path)}:{node.lineno}: the function {node.name} stands here twice (first in line {first[node.name]})"
                )
            first[node.name] = node.lineno


def _fault(path: Path, exc: BaseException) -> UsageError:
    if isinstance(exc, SyntaxError) and exc.filename == str(path):
        return UsageError(f"{shown(path)}:{exc.lineno or 1}: {exc.msg}")
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == str(path)]
    at = f"{shown(path)}:{frames[-1].lineno}" if frames else shown(path)
    return UsageError(f"{at}: {type(exc).__name__}: {exc}", detail="".join(traceback.format_exception(exc))[-4000:])
