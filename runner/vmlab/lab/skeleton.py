"""``vmlab new NAME``: a lab that works, to be changed into the one that its author has in mind."""

from __future__ import annotations

import importlib.metadata
import keyword
import shutil
import sys
from pathlib import Path

from vmlab.errors import UsageError
from vmlab.lab import library
from vmlab.lab.collection import NAME
from vmlab.yamlfile import shown

FILES = Path(__file__).with_name("skeleton")
"""The lab's files, each with ``.in`` behind its name (so that no tool takes them for code of ours) and ``LAB_NAME`` for the lab's name."""


def create(name: str, directory: Path) -> Path:
    """Write a new lab into ``directory/name`` and return that folder. Nothing that exists is touched."""
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name[:80]!r} is no name for a lab",
            hint="lower-case letters, digits and underscores, a letter first, at most 40 characters: page_cache",
        )
    if name in sys.stdlib_module_names or name in importlib.metadata.packages_distributions() or name in ("vmlab", library.NAME):
        raise UsageError(
            f"{name!r} is no name for a lab, because Python has a module that is called so",
            hint=f"a lab is a package, which mypy and pytest know by its name: my_{name}",
        )
    folder = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError as exc:
        raise UsageError(f"{shown(folder)} exists already; nothing was changed", hint="choose another name, or remove it first") from exc
    except OSError as exc:
        raise UsageError(f"cannot create {shown(folder)}: {exc.strerror}", hint="name a directory that you may write to") from exc
    try:
        for source in sorted(FILES.rglob("*.in")):
            place = str(source.relative_to(FILES)).removesuffix(".in").replace("LAB_NAME", name)
            target = folder / place
            target.parent.mkdir(exist_ok=True)
            target.write_text(source.read_text(encoding="utf-8").replace("LAB_NAME", name), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # (We made it a moment ago; half a lab would only be in the way.)
        raise
    return folder
