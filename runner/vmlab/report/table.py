"""The matrix of a lab's controls as lines of text: checks down, worlds across, a letter a verdict; legible in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from vmlab.lab.verdict import VerdictKind
from vmlab.output import printable
from vmlab.report.matrix import Matrix, MatrixCell, MatrixWorld, Standing
from vmlab.report.text import counted

WIDTH = 80
LEFT_OUT = "."

LETTERS = {
    VerdictKind.PASS: "P",
    VerdictKind.FAIL: "F",
    VerdictKind.NOT_OBSERVABLE: "N",
    VerdictKind.INCONCLUSIVE: "I",
    VerdictKind.ERROR: "E",
}
LEGEND = "P pass  F fail  I inconclusive  N not observable  E error  . left out  ! wrong"

# A column: a letter, the mark of what is wrong, and the gap.
_COLUMN = 3
_NAME_AT_LEAST = 24


def matrix_lines(matrix: Matrix, width: int = WIDTH) -> list[str]:
    """The table, its legend, what is wrong, and how it ended. Tables that are too wide for the lines are cut into several."""
    names = [each.id for each in matrix.checks]
    room = max(_NAME_AT_LEAST, min(max(map(len, names), default=0), width - _COLUMN * min(len(matrix.worlds), 12)))
    fit = max(1, (width - room) // _COLUMN)
    lines = [f"{matrix.lab}: {counted(len(names), 'check')} in {counted(len(matrix.worlds), 'world')}"]
    for start in range(0, len(matrix.worlds), fit):
        lines += ["", *_block(names, matrix.worlds[start : start + fit], room)]
    lines += ["", LEGEND, *_worlds(matrix.worlds, width), *_checks(matrix, width)]
    return [*lines, "", *_outcome(matrix, width)]


def _block(names: Sequence[str], worlds: Sequence[MatrixWorld], room: int) -> Iterator[str]:
    yield (" " * room + "".join(f"  {world.letter}" for world in worlds)).rstrip()
    cells = [{cell.check: cell for cell in world.cells} for world in worlds]
    for name in names:
        shown = name if len(name) <= room else name[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"
        yield (f"{shown:<{room}}" + "".join(f" {_sign(column.get(name))}" for column in cells)).rstrip()


def _sign(cell: MatrixCell | None) -> str:
    """A verdict in two columns: ``!F`` where it is wrong."""
    if cell is None:
        return "  "
    return ("!" if cell.wrong else " ") + (LEFT_OUT if cell.left_out else LETTERS[cell.verdict])


def _worlds(worlds: Sequence[MatrixWorld], width: int) -> Iterator[str]:
    for world in worlds:
        after = f" (run {len(world.earlier) + 1} times)" if world.earlier else ""
        text = f"{world.name}{after}" + (f": {printable(world.breaks)}" if world.breaks else "")
        yield from textwrap.wrap(text, width, initial_indent=f"{world.letter}  ", subsequent_indent="   ")


def _checks(matrix: Matrix, width: int) -> Iterator[str]:
    """The checks that need a word: those that no guest can refute, and those that this host cannot show."""
    for each in matrix.checks:
        if each.standing is Standing.UNREFUTED:
            yield from textwrap.wrap(f"{each.id}: no guest can refute it: {printable(each.unrefuted)}", width, subsequent_indent="   ")
        if each.standing is Standing.NOT_OBSERVABLE:
            yield f"{each.id}: not observable on this host"


def _outcome(matrix: Matrix, width: int) -> Iterator[str]:
    for problem in matrix.problems:
        yield from textwrap.wrap(f"! {printable(problem)}", width, subsequent_indent="  ")
    yield f"{matrix.lab}: {headline(matrix)} ({matrix.duration_s:.0f} s)"


def headline(matrix: Matrix) -> str:
    """How it ended, as a sentence."""
    refuted = sum(each.standing is Standing.REFUTED for each in matrix.checks)
    said = f"{refuted} of {counted(len(matrix.checks), 'check')} refuted in real guests"
    if matrix.not_run:
        said += f"; {counted(len(matrix.not_run), 'world')} not asked for"
    if matrix.green:
        return f"green: {said}"
    broken = sum(bool(world.broke) for world in matrix.worlds)
    return f"not green: {said}; " + (f"{counted(broken, 'run')} broke" if broken else counted(len(matrix.problems), "problem"))
