"""Each check was seen to fail, in whichever of the tables its controls are."""

from __future__ import annotations

import pytest

from vmlab.lab.controls import FAIL

from . import test_checks, test_links, test_order, test_time, test_unit
from .recorded import SOUND

TABLES = (test_checks.CONTROLS, test_links.CONTROLS, test_order.CONTROLS, test_time.CONTROLS, test_unit.CONTROLS)


@pytest.mark.parametrize("check", SOUND.names)
def test_each_check_has_been_seen_to_fail(check: str) -> None:
    tables = [table for table in TABLES if any(each.check == check and each.kind is FAIL for each in table)]
    assert tables, "give it a control"
    for table in tables:
        table.prove(check)
