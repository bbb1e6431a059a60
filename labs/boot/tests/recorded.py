"""The sound run, and how to change a boot of it in place: what the tables of controls share."""

from __future__ import annotations

import copy
from typing import Any

from vmlab.lab.controls import Sound, World

SOUND = Sound.of(__file__)
SEQUENTIAL, STARTPAR, LSB, NATIVE = "sysv-sequential", "sysv-startpar", "systemd-lsb", "systemd-native"

Data = dict[str, Any]


def boots(world: World, arm: str, graph: str = "services", place: str = "") -> list[Data]:
    """The boots of an arm, to be changed in place."""
    if place:
        return [boot for boot in world[place]["boots"] if boot["arm"] == arm]
    return [
        boot for boot in world["boots" if graph == "services" else "controls"]["boots"] if boot["arm"] == arm and boot["graph"] == graph
    ]


def mark(boot: Data, event: str, service: str) -> Data:
    return next(each for each in boot["marks"] if each["event"] == event and each["service"] == service)


def shift(boot: Data, service: str, seconds: float, events: tuple[str, ...] = ("begin", "end")) -> None:
    for event in events:
        for clock in ("guest_s", "host_s"):
            mark(boot, event, service)[clock] += seconds


def noise(boot: Data, share: float) -> None:
    """As if others had had so much of the host's CPU time."""
    boot["noise"].update(others_cpu_s=share * boot["noise"]["wall_s"] * boot["noise"]["cpus"], steal_s=0.0, waited_s=0.0)


def services_s(boot: Data) -> float:
    """From the first service's begin to the last one's end, by the guest's clock."""
    times = [each["guest_s"] for each in boot["marks"] if each["event"] in ("begin", "end") and not each["service"].startswith("ready-")]
    return float(max(times) - min(times))


def stretch(boot: Data, factor: float) -> None:
    """As if everything from the first service on had taken so many times as long, by both clocks, on a quiet machine."""
    noise(boot, 0)
    for clock in ("guest_s", "host_s"):
        zero = min(each[clock] for each in boot["marks"])
        for each in boot["marks"]:
            each[clock] = zero + (each[clock] - zero) * factor


def lasting(world: World, arm: str, seconds: float, graph: str = "services") -> None:
    """As if the services had taken exactly so long in each boot of an arm, all alike, by both clocks, on a quiet machine."""
    first = boots(world, arm, graph)[0]
    stretch(first, seconds / services_s(first))
    # (The host's stamps come a little later or earlier; here they come with the marks.)
    for each in first["marks"]:
        each["host_s"] = each["guest_s"] + 1.0
    for boot in boots(world, arm, graph):
        noise(boot, 0)
        boot["marks"] = copy.deepcopy(first["marks"])


def stall(boot: Data, service: str, seconds: float) -> None:
    """As if the whole machine had stood still for so long when a service was about to end: all that comes later is late."""
    since = mark(boot, "end", service)["guest_s"]
    noise(boot, 0)
    for each in boot["marks"]:
        if each["guest_s"] >= since:
            each["guest_s"] += seconds
            each["host_s"] += seconds
