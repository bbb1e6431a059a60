"""What a run is asked for: the ends of each parameter's range fit into a run, and more is refused before anything is booted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stage import stage
from vmlab.bench import Bench, UsageError
from vmlab.lab import read_lab

from ..experiment import ARMS, BOOT_LIMIT_S, Plan, console, planned
from ..worlds import WORLDS

LAB = Path(__file__).resolve().parents[1]
PARAMETERS = read_lab(LAB).definition.parameters


def plan(tmp_path: Path, **asked: Any) -> Plan:
    with stage(tmp_path) as here:
        return planned(Bench(read_lab(LAB), here, {name: each.default for name, each in PARAMETERS.items()} | asked))


ENDS = [(name, end) for name in ("repeats", "controls", "scale") for end in (PARAMETERS[name].minimum, PARAMETERS[name].maximum)]


@pytest.mark.parametrize(("name", "end"), ENDS)
def test_each_end_of_a_range_fits_into_a_run(tmp_path: Path, name: str, end: float) -> None:
    value = end if name == "scale" else int(end)
    assert getattr(plan(tmp_path, **{name: value}), name) == value


def test_more_than_fits_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"would take about .* minutes, and a run of this lab is ended after 120") as refused:
        plan(tmp_path, repeats=50, scale=20)
    assert refused.value.hint == "ask for fewer REPEATS or CONTROLS, for fewer ARMS, or for a smaller SCALE"


def test_what_is_foreseen_is_what_the_boots_take() -> None:
    graphs = yaml.safe_load((LAB / "graph.yaml").read_text())
    few = Plan(graphs, ["sysv-sequential"], 3, 0, 1.0, WORLDS["sound"])
    assert few.takes_s("services", "sysv-sequential") == 8.8
    assert few.foreseen_s() == pytest.approx(240 + (12 + 1.8) + 3 * (12 + 8.8))
    every = Plan(graphs, list(ARMS), 3, 3, 2.0, WORLDS["sound"])
    controls = 2 * (12 + 3.6) + 2 * (12 + 6.0)
    assert every.foreseen_s() == pytest.approx(240 + 4 * (12 + 3.6) + 3 * (4 * 12 + 17.6 + 3 * 9.6) + 3 * controls)


def test_a_boot_of_the_longest_services_may_take_its_time(tmp_path: Path) -> None:
    longest = plan(tmp_path, scale=20)
    assert BOOT_LIMIT_S + 3 * longest.takes_s("services", "sysv-sequential") > 176 * 2


def test_lines_that_tell_what_a_boot_was_are_kept_however_much_the_kernel_said() -> None:
    noise = [{"at_s": float(n), "text": f"[ {n}.0] rcu: stall"} for n in range(90)]
    said = ("INIT: Entering runlevel: 2", "Using makefile-style concurrent boot in runlevel 2.")
    telling = [{"at_s": 91.0 + n, "text": text} for n, text in enumerate(said)]
    assert console([*noise, *telling]) == [*noise[:40], *telling]
