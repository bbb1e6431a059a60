"""The matrix of a lab's controls as one HTML page. A pure rendering of controls.json."""

from __future__ import annotations

from vmlab.lab.verdict import VerdictKind
from vmlab.report.matrix import Matrix, Standing
from vmlab.report.page import form
from vmlab.report.store import HTML_NAME
from vmlab.report.table import headline

_WORDS = {
    Standing.REFUTED: "refuted",
    Standing.UNREFUTED: "no guest can refute it",
    Standing.NOT_OBSERVABLE: "not observable here",
    Standing.UNPROVED: "not proved",
    Standing.UNKNOWN: "not tried",
}


def matrix_html(matrix: Matrix) -> str:
    """The page."""
    outcome = VerdictKind.PASS if matrix.green else VerdictKind.ERROR if any(world.broke for world in matrix.worlds) else VerdictKind.FAIL
    page: str = form("controls.html.j2").render(
        matrix=matrix,
        outcome=outcome,
        headline=headline(matrix).partition(": ")[2],
        word="Green" if matrix.green else "Not green",
        cells={world.name: {cell.check: cell for cell in world.cells} for world in matrix.worlds},
        standing={each.id: _WORDS[each.standing] for each in matrix.checks},
        wrong=[(world, cell) for world in matrix.worlds for cell in world.cells if cell.wrong],
        kinds=list(VerdictKind),
        report_name=HTML_NAME,
    )
    return page
