"""KVM's counters, read from what QEMU's monitor answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from vmlab.deadline import Deadline
from vmlab.guest.look.statistics import kvm_statistics


def machine(answers: dict[str, list[dict[str, Any]]]) -> Any:
    """A guest whose monitor gives these answers by target."""

    @contextlib.contextmanager
    def attributing() -> Iterator[None]:
        yield

    def execute(command: str, _deadline: Deadline, *, target: str) -> Any:
        assert command == "query-stats"
        return answers[target]

    return cast(Any, SimpleNamespace(attributing=attributing, monitor=SimpleNamespace(execute=execute)))


def stats(**values: Any) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def test_the_counters_of_all_cpus_are_summed_and_histograms_left_out() -> None:
    answers = {
        "vm": [{"provider": "kvm", "stats": stats(pages_4k=7)}],
        "vcpu": [
            {"provider": "kvm", "qom-path": "/machine/unattached/device[0]", "stats": stats(exits=5, blocking=True, halt_poll_hist=[1, 2])},
            {
                "provider": "kvm",
                "qom-path": "/machine/unattached/device[1]",
                "stats": stats(exits=6, blocking=False, halt_poll_hist=[3, 4]),
            },
            {"provider": "cryptodev", "stats": stats(exits=1000)},
        ],
    }
    assert kvm_statistics(machine(answers), Deadline(1)) == {"pages_4k": 7, "exits": 11, "blocking": 1}


def test_there_are_none_without_kvm() -> None:
    assert kvm_statistics(machine({"vm": [], "vcpu": []}), Deadline(1)) == {}
