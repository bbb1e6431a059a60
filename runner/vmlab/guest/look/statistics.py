"""What KVM counts about a guest, as QEMU tells it."""

from __future__ import annotations

from vmlab.deadline import Deadline
from vmlab.guest.machine import Machine


def kvm_statistics(machine: Machine, deadline: Deadline) -> dict[str, int]:
    """KVM's counters by the kernel's names, those of the guest's CPUs summed, histograms left out; empty when it runs without KVM.

    They are QEMU's ``query-stats`` (QEMU 7.1 and later), which reads KVM_GET_STATS_FD (Linux 5.14 and later, its
    Documentation/virt/kvm/api.rst). Raises QmpError when QEMU does not know the question, and what the guest died of when it did.
    """
    counters: dict[str, int] = {}
    with machine.attributing():
        providers = [each for target in ("vm", "vcpu") for each in machine.monitor.execute("query-stats", deadline, target=target)]
    for stat in (stat for provider in providers if provider["provider"] == "kvm" for stat in provider["stats"]):
        if isinstance(stat["value"], int):
            counters[stat["name"]] = counters.get(stat["name"], 0) + stat["value"]
    return counters
