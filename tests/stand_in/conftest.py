"""A machine of its own for each test, on which guests boot in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stand_in.machine import StandIn


@pytest.fixture
def machine(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)
