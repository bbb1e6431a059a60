"""The KVM probe in both worlds, with their real drivers: kvm_amd on an emulated AMD processor, with nested paging and without.

The guest that runs it (L1) is emulated by QEMU's TCG, SVM and nested page tables included; the probe's own guest (L2) is run by kvm_amd.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.guest.conftest import world_of
from vmlab.bench import Guest
from vmlab.image.image import Image
from vmlab.probes import kvm

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=["debian12", "debian13"])
def l1(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """An L1 guest: Linux 6.1 and 6.12 differ in what KVM demands of the program."""
    image: Image = request.getfixturevalue(request.param)
    with world_of(image, tmp_path_factory.mktemp("logs")) as world:
        yield world.bench.guest("host")


def reload(guest: Guest, npt: int) -> None:
    guest.run(f"modprobe -r kvm_amd && modprobe kvm_amd npt={npt}")


def counts(record: dict[str, Any]) -> dict[str, float]:
    return {f"{row['phase']} {row['counter']}": row["measured"] for row in record["judged"]["rows"]}


def test_its_timer_is_periodic(l1: Guest) -> None:
    """A timer that is set for one interrupt at a time is lost with it: see SVM_KERNEL_ARGS."""
    handlers = l1.run("sed -n 's/^ event_handler: *//p' /proc/timer_list").stdout.split()
    assert "tick_handle_periodic" in handlers, handlers
    assert not {"hrtimer_interrupt", "tick_nohz_handler"} & set(handlers), handlers


def test_nested_paging_is_proved(l1: Guest) -> None:
    reload(l1, npt=1)
    record = l1.probe("kvm")
    assert record["error"] is None
    assert (record["judged"]["kind"], record["judged"]["claimed"], record["judged"]["contradiction"]) == ("nested", "npt=Y", "")
    assert counts(record) == pytest.approx({f"{row.phase} {row.counter}": row.nested for row in kvm.EXPECTED}, abs=0.01)


def test_control_shadow_paging_is_told_apart(l1: Guest) -> None:
    reload(l1, npt=0)
    record = l1.probe("kvm")
    assert record["error"] is None
    assert (record["judged"]["kind"], record["judged"]["claimed"], record["judged"]["contradiction"]) == ("shadow", "npt=N", "")
    assert counts(record) == pytest.approx({f"{row.phase} {row.counter}": row.shadow for row in kvm.EXPECTED}, abs=0.01)


def test_an_ordinary_user_may_ask(l1: Guest) -> None:
    """Nothing in the probe needs root but a device that is open to the user."""
    reload(l1, npt=1)
    l1.probe("kvm")
    user = l1.machine.request.image.default_user
    l1.run("chmod 666 /dev/kvm")
    asked = l1.run(f"cd /run/vmlab/probe && runuser -u {user} -- python3 -m kvm")
    assert '"error": null' in asked.stdout
    l1.run("chmod 660 /dev/kvm")
    refused = l1.run(f"cd /run/vmlab/probe && runuser -u {user} -- python3 -m kvm")
    assert '"errno": "EACCES"' in refused.stdout


def test_without_the_module_the_record_says_so(l1: Guest) -> None:
    l1.run("modprobe -r kvm_amd kvm; test ! -e /dev/kvm")
    record = l1.probe("kvm")
    assert record["error"]["errno"] == "ENOENT"
    assert record["judged"]["kind"] == "unknown"
    assert not record["phases"]
