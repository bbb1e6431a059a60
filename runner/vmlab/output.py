"""The standard streams, which may be closed, full, or of an encoding that lacks our signs: none of that may break a command."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from vmlab.errors import VmlabError

# What stands for our signs where an encoding has none of them: never "?", which is the sign of *inconclusive*.
_SPELT = {
    ord(sign): spelling
    for sign, spelling in {
        "\N{CHECK MARK}": "+",
        "\N{BALLOT X}": "x",
        "\N{WHITE CIRCLE}": "o",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{MULTIPLICATION SIGN}": "x",
    }.items()
}


def say(line: str, out: TextIO | None = None) -> None:
    """Write a line to ``out`` (by default standard output), as its encoding can show it. OSError when nobody can read it any more."""
    out = out or sys.stdout
    # (A process that was started without a standard output has None.)
    if out is not None:
        print(spelt(printable(line), out.encoding), file=out, flush=True)


def own(stream: TextIO | None) -> TextIO | None:
    """Another stream to the same place, for a thread that may be held up or fail there; the stream itself when it leads to no file.

    Others flush standard output too (multiprocessing does, before each process that it starts): were it the same stream, they would wait
    for its lock or meet what it could not write.
    """
    try:
        descriptor = os.dup(stream.fileno()) if stream is not None else -1
    except (OSError, ValueError):
        return stream
    if stream is None:
        return None
    return os.fdopen(descriptor, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


def complain(line: str) -> None:
    """Write a line to standard error, if that still takes one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            say(line, sys.stderr)


def say_error(error: VmlabError) -> None:
    """An error for a person, on standard error: what is wrong, what to do, and the evidence below."""
    complain(f"vmlab: {error.message}")
    if error.hint:
        complain(f"       {error.hint}")
    for line in error.detail.strip().splitlines()[-20:]:
        complain(f"  | {line}")


def printable(text: str) -> str:
    """Text on one line without control characters: what a guest says must not move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else " " for char in text)


def spelt(text: str, encoding: str | None) -> str:
    """The text as a stream of this encoding can show it."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_SPELT).encode(encoding, "backslashreplace").decode(encoding)
    return text


def broken(stream: TextIO | None) -> OSError | None:
    """Why a stream takes nothing more; None when it does. (What it could not write it keeps, and fails at again.)"""
    try:
        if stream is not None:
            stream.flush()
    except OSError as exc:
        return exc
    except ValueError:
        # Somebody has closed it.
        return OSError("it is closed")
    return None


def silence(stream: TextIO | None) -> None:
    """Let a stream that broke swallow what it could not write: Python writes it out once more when it ends."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:  # noqa: PTH123  (a device, not a file)
        os.dup2(nothing.fileno(), stream.fileno())
        stream.flush()
