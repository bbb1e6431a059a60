"""Finding labs: the ones that ship with vmlab, and those of the directories that a user names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vmlab import paths
from vmlab.errors import UsageError
from vmlab.lab.definition import LabDefinition
from vmlab.lab.lab import Lab
from vmlab.lab.worlds import doubts_about_parameters, refuse
from vmlab.suggest import nearest
from vmlab.yamlfile import shown, validate

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""What a lab may be called (at most 40 characters): it is a folder's name, a word on a command line and part of a test's name."""


class Collection:
    """The labs that can be run. A directory named later shadows an earlier one, and all of them shadow what ships with vmlab."""

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        for directory in directories:
            if not directory.is_dir():
                raise UsageError(f"{shown(directory)} is not a directory", hint="--labs takes a directory that holds lab folders")
            if (directory / "lab.yaml").exists():
                raise UsageError(
                    f"{shown(directory)} is itself a lab", hint=f"name the directory around it: --labs {shown(directory.parent)}"
                )
        self.directories = [paths.data_dir("labs"), *directories]

    def names(self) -> list[str]:
        """Every folder with a ``lab.yaml``, sorted by name."""
        found = {path.parent.name for directory in self.directories for path in directory.glob("*/lab.yaml")}
        return sorted(name for name in found if NAME.fullmatch(name))

    def get(self, name: str) -> Lab:
        """The lab of this name; UsageError when there is none, or when its ``lab.yaml`` is wrong."""
        return read_lab(self.folder(name))

    def folder(self, name: str) -> Path:
        """The folder of the lab of this name, whatever is in it; UsageError when there is none."""
        if NAME.fullmatch(name):
            folders = [directory / name for directory in reversed(self.directories)]
            for folder in folders:
                if (folder / "lab.yaml").exists():
                    return folder
            incomplete = next((folder for folder in folders if folder.is_dir()), None)
            if incomplete:
                raise UsageError(
                    f"{shown(incomplete)} holds no lab.yaml, so it is no lab", hint="labs/README.md tells which files a lab has"
                )
        known = self.names()
        hint = "labs: " + ", ".join(known) if known else "there are no labs here; --labs DIR names a directory that holds some"
        raise UsageError(f"there is no lab named {name[:80]!r}{nearest(name, known)}", hint=hint)


def read_lab(directory: Path) -> Lab:
    """The lab in this folder."""
    # (Not resolved: a lab that is a link is known by the name of the link.)
    directory = directory.absolute()
    definition = validate(directory / "lab.yaml", LabDefinition, hint="labs/README.md describes every key")
    refuse(directory / "lab.yaml", doubts_about_parameters(definition), "parameters", list(definition.parameters))
    return Lab(directory.name, directory, definition)
