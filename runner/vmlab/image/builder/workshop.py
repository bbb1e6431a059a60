"""Where a build works: its scratch directory, its log, its deadline, and the one way it runs a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vmlab import process
from vmlab.deadline import Deadline


@dataclass(frozen=True)
class Workshop:
    """Handed to every step of a build; what a step leaves in ``directory`` is scrap once the build is over."""

    directory: Path
    log: IO[bytes]
    deadline: Deadline
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of every tool (dates, see `vmlab.image.builder.dates`)."""

    def run(self, argv: Sequence[str | Path], *, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> None:
        """Run a tool in the scratch directory; all that it prints goes to the log. CommandError when it fails."""
        process.run(
            [str(word) for word in argv],
            input=stdin,
            stdout=self.log,
            stderr=self.log,
            cwd=self.directory,
            env={**self.env, **(env or {})},
            deadline=self.deadline,
        )
