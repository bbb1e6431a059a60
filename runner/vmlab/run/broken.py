"""What ended a lab's own code early, and whose it is to mend."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmlab.bench import Session
from vmlab.errors import Unsuitable, VmlabError
from vmlab.lab.lab import Lab
from vmlab.report.model import ErrorPart

log = logging.getLogger(__name__)

_DETAIL_LIMIT = 8000


@dataclass(frozen=True)
class Broken:
    """How it went: nothing of this when it came to its end."""

    error: ErrorPart | None = None
    unsuitable: str = ""
    """Why this image or processor cannot show it: nobody's fault, and nothing that a second run would change."""
    cause: VmlabError | None = None


def performed(work: Callable[[], None], lab: Lab, here: Session) -> Broken:
    """Do a lab's own work, and say what ended it early if anything did. KeyboardInterrupt passes."""
    try:
        work()
    except Unsuitable as exc:
        return Broken(unsuitable=exc.message)
    except VmlabError as exc:
        return Broken(_error_part(exc, here), cause=exc)
    except Exception as exc:
        # A bug in the experiment is its author's (or ours): the verdicts that it prevented are errors, and the report says where.
        log.exception("the experiment of %s broke", lab.name)
        return Broken(_error_part(_blamed(exc, lab), here))
    return Broken()


def _blamed(exc: Exception, lab: Lab) -> VmlabError:
    """What an experiment raised that is none of our errors, and whose it is to mend: the author's whose line raised it, or else ours."""
    frames = traceback.extract_tb(exc.__traceback__)
    last = frames[-1]
    theirs = next((frame for frame in reversed(frames) if Path(frame.filename).is_relative_to(lab.directory)), None)
    detail = "".join(traceback.format_exception(exc))
    what = f"{type(exc).__name__}: {exc}"
    if theirs is None:
        return _EngineError(
            f"vmlab broke while the lab {lab.name} ran: {what}", hint="this is a bug in vmlab; its detail says where", detail=detail
        )
    hint = f"tell the lab's author: {Path(theirs.filename).name}:{theirs.lineno}"
    if theirs is not last:
        hint += f" (raised in {Path(last.filename).name}:{last.lineno})"
    return _ExperimentError(f"the experiment of {lab.name} broke: {what}", hint=hint, detail=detail)


class _EngineError(VmlabError):
    """Ours, and of no kind that was foreseen."""

    @property
    def kind(self) -> str:
        """As reports have it."""
        return "EngineError"


class _ExperimentError(VmlabError):
    """The experiment raised what is none of ours."""

    @property
    def kind(self) -> str:
        """As reports have it."""
        return "ExperimentError"


def _error_part(error: VmlabError, here: Session) -> ErrorPart:
    return ErrorPart(
        kind=error.kind, message=error.message, hint=error.hint, detail=error.detail[-_DETAIL_LIMIT:], phase=here.notebook.broke_in
    )
