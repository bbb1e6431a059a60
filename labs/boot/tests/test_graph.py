"""The predictions: pure functions of a graph, held against sums that anybody can do by hand."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from .. import graph
from ..graph import Service

LAB = Path(__file__).resolve().parents[1]
GRAPHS = yaml.safe_load((LAB / "graph.yaml").read_text())


def made(**services: Any) -> list[Service]:
    return graph.services({"services": services})


def sleep(seconds: float, *after: str) -> dict[str, Any]:
    return {"sleep": seconds, "after": list(after)}


def burn(seconds: float, *after: str) -> dict[str, Any]:
    return {"burn": seconds, "after": list(after)}


def test_a_chain_is_as_long_either_way() -> None:
    chain = made(a=sleep(1), b=sleep(2, "a"), c=sleep(0.5, "b"))
    assert graph.sequential_s(chain) == graph.critical_path_s(chain) == graph.parallel_s(chain, 4) == graph.startpar_s(chain, 2) == 3.5


def test_a_diamond_takes_its_longer_side() -> None:
    diamond = made(top=sleep(1), left=sleep(1, "top"), right=sleep(3, "top"), bottom=sleep(1, "left", "right"))
    assert graph.sequential_s(diamond) == 6
    assert graph.parallel_s(diamond, 2) == graph.startpar_s(diamond, 2) == 5


def test_sixteen_sleepers() -> None:
    """One a second asleep: 16 s one after another, 1 s all at once, and with startpar as many rounds as its limit allows."""
    many = made(**{f"s{i:02}": sleep(1) for i in range(16)})
    assert graph.sequential_s(many) == 16
    assert graph.parallel_s(many, 1) == 1
    # On one processor 4 - 1 at once, which is six rounds; on two 8 - 1, which is three.
    assert graph.startpar_s(many, 1) == 6
    assert graph.startpar_s(many, 2) == 3


def test_burners_share_the_processors() -> None:
    four = made(**{f"b{i}": burn(1) for i in range(4)})
    assert [graph.parallel_s(four, cpus) for cpus in (1, 2, 4)] == [4, 2, 1]
    assert [graph.startpar_s(four, cpus) for cpus in (1, 2)] == [4, 2]
    assert graph.parallel_s(made(a=sleep(3), b=burn(2), c=burn(2)), 2) == 3


def test_burners_lower_startpars_limit() -> None:
    """Three that compute and then one that sleeps, on one processor: it has to wait until one of them has ended."""
    mixed = made(a=burn(1), b=burn(1), c=burn(1), d=sleep(1))
    assert graph.parallel_s(mixed, 1) == 3
    assert graph.startpar_s(mixed, 1) > 3


def test_no_way_is_quicker_than_the_bound_nor_slower_than_the_sum() -> None:
    pick = random.Random(7)
    for _ in range(200):
        names = [f"s{i}" for i in range(pick.randint(1, 12))]
        described = {}
        for i, name in enumerate(names):
            after = pick.sample(names[:i], pick.randint(0, min(i, 2)))
            described[name] = {pick.choice(["sleep", "burn"]): pick.choice([0.2, 0.5, 1.0]), "after": after}
        services, cpus = made(**described), pick.randint(1, 4)
        low, high = graph.parallel_s(services, cpus), graph.sequential_s(services)
        # (startpar may idle up to three tenths of a second each time before it sees that its limit has risen.)
        assert low - 0.001 <= graph.startpar_s(services, cpus) <= high + 0.3 * len(services) + 0.001
        assert graph.critical_path_s(services) <= low <= high + 0.001


@pytest.mark.parametrize("services", [{"a": sleep(1, "b"), "b": sleep(1, "a")}, {"a": sleep(1, "none")}, {"a": sleep(1, "a")}])
def test_a_graph_that_cannot_be_started_is_refused(services: Any) -> None:
    with pytest.raises(ValueError, match="wait for each other, or for one that there is not"):
        made(**services)


def test_the_labs_graphs_are_what_its_questions_and_controls_say() -> None:
    main = graph.services(GRAPHS["services"])
    assert graph.sequential_s(main) == 8.8
    assert graph.parallel_s(main, 2) == graph.critical_path_s(main) == 4.8
    assert sum(not each.after for each in main) == 8 > graph.PER_CPU * 2 - graph.ITSELF, "more could start than startpar allows"
    for name, seconds in (("chain", 1.8), ("burners", 3.0)):
        control = graph.services(GRAPHS[name])
        assert graph.sequential_s(control) == graph.parallel_s(control, GRAPHS[name]["cpus"]) == seconds
    names = [each for described in GRAPHS.values() for each in described["services"]]
    assert len(set(names)) == len(names), "all graphs lie in one directory"
    levels = [described["runlevel"] for described in GRAPHS.values()]
    assert sorted(levels) == [2, 3, 4]


def test_a_scale_stretches_every_cost() -> None:
    assert graph.sequential_s(graph.services(GRAPHS["services"], 2)) == 17.6
    assert graph.parallel_s(graph.services(GRAPHS["services"], 0.5), 2) == 2.4


def test_most_at_once() -> None:
    assert graph.most_at_once([]) == 0
    assert graph.most_at_once([(0, 1), (1, 2), (2, 3)]) == 1
    assert graph.most_at_once([(0, 3), (1, 2), (1.5, 4)]) == 3
    for order in itertools.permutations([(0, 2), (1, 3), (2, 4)]):
        assert graph.most_at_once(order) == 2
