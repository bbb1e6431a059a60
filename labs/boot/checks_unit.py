"""The unit file of the course page, run in the guest: what it does, and what it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, not_observable, passed

# As the course page prints it.
PAGE = """\
[Unit]
Description=My Example Service
After=network.target

[Service]
Type=simple
ExecStart=/usr/bin/my-service --config /etc/my-service.conf
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""


OVER = ("inactive", "failed")
"""States in which systemd has nothing more to do with a unit. In any other, a machine that stalls may have been looked at too early."""
FIVE = 5
"""DefaultStartLimitBurst of systemd-system.conf(5); its interval is ten seconds."""
WAIT = "run it again while the machine does nothing else"


@check(points=1, claim="D3")
def the_pages_unit_file_runs(evidence: Evidence) -> Verdict:
    """The unit file of the course page, word for word, is accepted by systemd as it is, is enabled by a link, and runs its program.

    systemd is asked what it made of the file: where it has it from, its type, when it restarts it, and the process that it started.
    """
    facts = evidence["page_unit"]
    running = facts.record("alone").record("service")
    said = {key: running.text(key) for key in ("LoadState", "Type", "Restart", "ActiveState", "SubState", "FragmentPath")}
    same = facts.text("unit") == PAGE
    enabled = "enabled" if facts.flag("enabled") else "not enabled"
    measured = f"{'the same text' if same else 'another text'}; {enabled}; " + ", ".join(said.values())
    expected = "the page's text; enabled; loaded, simple, on-failure, active, running, from /etc/systemd/system"
    wanted = {
        "LoadState": "loaded",
        "Type": "simple",
        "Restart": "on-failure",
        "ActiveState": "active",
        "SubState": "running",
        "FragmentPath": "/etc/systemd/system/my-service.service",
    }
    if said == wanted and same and facts.flag("enabled") and process(running) > 1:
        return passed("Nine lines say what is wanted, and none of them is a line of shell.", expected=expected, measured=measured)
    hint = "compare page_unit.unit in the evidence with the page, and page_unit.alone.service with what the file says"
    return failed("The unit did not run as the file says.", expected=expected, measured=measured, hint=hint)


@check(points=1, claim="D8", after="the_pages_unit_file_runs")
def it_restarts_on_failure_only(evidence: Evidence) -> Verdict:
    """Restart=on-failure: killed, the service comes back as another process; ended in order, it stays away.

    It is killed by SIGKILL. Then it is told to end by SIGTERM, and exits with the status 0. systemd counts how often it has restarted a
    unit by itself (NRestarts).
    """
    facts = evidence["page_unit"]
    first, again = facts.record("alone").record("service"), facts.record("killed")
    ended, later = facts.record("ended"), facts.record("ended_later")
    came_back = runs(again) and count_of(again) == 1 and process(again) not in (0, process(first))
    stayed = all(ended_well(each) and count_of(each) == 1 for each in (ended, later))
    which = "the same process" if process(again) == process(first) else "another process" if process(again) else "no process"
    measured = (
        f"killed: {again.text('SubState')}, restarted {count_of(again)} times, {which}; "
        f"ended: {later.text('ActiveState')}, restarted {count_of(later)} times"
    )
    expected = "killed: running, restarted 1 times, another process; ended: inactive, restarted 1 times"
    if came_back and stayed:
        return passed("It is restarted when it fails, and only then.", expected=expected, measured=measured)
    # (A service that was told to end and has not yet is no sign of anything, unless systemd has started it again.)
    if came_back:
        waiting = ended.text("ActiveState") not in OVER and count_of(later) == 1
    else:
        waiting = again.text("ActiveState") not in (*OVER, "active")
    if waiting:
        return inconclusive("systemd had not come to the end of it within a minute.", expected=expected, measured=measured, hint=WAIT)
    hint = "look for Restart= and RestartPreventExitStatus= in the unit and in files beside it: systemctl cat my-service"
    return failed("It was not restarted when it should be, or when it should not.", expected=expected, measured=measured, hint=hint)


@check(points=1, claim="D8", after="the_pages_unit_file_runs")
def it_is_given_up_after_five_starts(evidence: Evidence) -> Verdict:
    """systemd does not start a failing service for ever: it gives up after five starts within ten seconds, whoever asked for them.

    The program writes a line at each of its starts. It is made to fail twice: once from the beginning, so that systemd makes all starts but
    the first; and once after some starts by hand, which end well and count all the same. The limit is one of systemd's defaults, which it
    is asked for. For this the ten seconds are made ten minutes, so that a slow machine comes to the fifth start in time; the number stays.
    """
    facts = evidence["page_unit"]
    usual, failing, mixed = facts.record("alone").record("service"), facts.record("failing"), facts.record("by_hand")
    limit = f"{usual.text('StartLimitBurst')} starts in {usual.text('StartLimitIntervalUSec')}"
    starts, states = [each.texts("starts") for each in (failing, mixed)], [each.text("ActiveState") for each in (failing, mixed)]
    numbers = {whole(each, "StartLimitBurst") for each in (usual, failing, mixed)}
    windows = {each.text("StartLimitIntervalUSec") for each in (failing, mixed)}
    by_hand = starts[1].count("succeed")
    tries = [f"{counted(those)}, {state}" for those, state in zip(starts, states, strict=True)]
    measured = f"limit: {limit}, for this {' and '.join(sorted(windows))}; {'; then '.join(tries)}"
    expected = f"limit: {FIVE} starts in 10s; {FIVE} times fail, failed; then {FIVE} starts with those by hand, failed"
    wanted = [["fail"] * FIVE, ["succeed"] * by_hand + ["fail"] * (FIVE - by_hand)]
    if (
        limit == f"{FIVE} starts in 10s"
        and numbers == {FIVE}
        and starts == wanted
        and states == ["failed", "failed"]
        and 0 < by_hand < FIVE
    ):
        return passed("After five starts it was given up, and starts by hand counted.", expected=expected, measured=measured)
    if all(len(those) <= FIVE for those in starts) and any(state not in OVER for state in states):
        return inconclusive("systemd had not come to the end of it within a minute.", expected=expected, measured=measured, hint=WAIT)
    hint = "look for StartLimitBurst= and StartLimitIntervalSec= in the unit and in files beside it: systemctl cat my-service"
    return failed("It was started more often than the limit says, or given up before.", expected=expected, measured=measured, hint=hint)


def counted(starts: Sequence[str]) -> str:
    """What a service did at its starts, in words: 3 times succeed, 2 times fail."""
    return ", ".join(f"{len(list(those))} times {what}" for what, those in groupby(starts)) or "no start"


@check(points=1, claim="D8", after="the_pages_unit_file_runs")
def after_orders_and_starts_nothing(evidence: Evidence) -> Verdict:
    """After=network.target is an order and no more: started alone, the service runs without the network; started with it, it waits for it.

    A unit that stands for the network's manager takes half a second, and network.target is reached when it is done. Both are then started
    in one transaction. The moments are systemd's own, by the clock of the boot; a slow machine makes them later, and cannot reverse them.
    """
    facts = evidence["page_unit"]
    alone, together = facts.record("alone"), facts.record("together")
    service = alone.record("service")
    without, names = alone.record("network").text("ActiveState"), service.text("After").split()
    pulled = "network.target" in service.text("Wants").split() + service.text("Requires").split()
    if without == "active" and not pulled:
        return not_observable("network.target was reached before the service was started, so that it could not be seen to run without it.")
    before = together.record("before")
    busy = [f"{name} was {before.text(name)}" for name in ("service", "network") if before.text(name) != "inactive"]
    if busy and not pulled:
        raise EvidenceProblem(f"page_unit.together: expected both to be stopped before they were started together, {busy[0]}")
    started_s = seconds(together.record("service"), "ExecMainStartTimestampMonotonic")
    network_s = seconds(together.record("network"), "ActiveEnterTimestampMonotonic")
    slow_s = seconds(together.record("slow"), "ExecMainStartTimestampMonotonic")
    measured = (
        f"alone: network {without}, service {service.text('SubState')}; together: network {network_s - slow_s:.2f} s after "
        f"its manager was started, service {started_s - network_s:.2f} s after the network"
    )
    expected = "alone: network inactive, service running; together: network at least 0.5 s later, then the service"
    alone_runs = without == "inactive" and service.text("SubState") == "running" and not pulled
    if alone_runs and "network.target" in names and network_s - slow_s >= 0.45 and started_s >= network_s:
        return passed("It orders, and starts nothing.", expected=expected, measured=measured)
    hint = "look at what systemd made of After=, Wants= and Requires= (page_unit.alone.service in the evidence)"
    return failed("The order was not kept, or the network was started by it.", expected=expected, measured=measured, hint=hint)


def seconds(unit: Record, name: str) -> float:
    """One of systemd's moments, which it tells in microseconds, by the boot's clock."""
    return whole(unit, name, least=1) / 1e6


def runs(service: Record) -> bool:
    """Whether a service runs."""
    return (service.text("ActiveState"), service.text("SubState")) == ("active", "running")


def ended_well(service: Record) -> bool:
    """Whether it has ended, with a status that is no failure, and is not about to be started again."""
    return (service.text("ActiveState"), service.text("SubState")) == ("inactive", "dead") and process(service) == 0


def process(unit: Record) -> int:
    """The process of a service; 0 when it has none."""
    return whole(unit, "MainPID")


def count_of(unit: Record) -> int:
    """How often systemd has restarted a service."""
    return whole(unit, "NRestarts")


def whole(unit: Record, name: str, *, least: int = 0) -> int:
    """A property that is a whole number. EvidenceProblem when it is none, or too small to be one."""
    text = unit.text(name)
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) < least:
        raise EvidenceProblem(f"{unit.place}.{name}: expected a whole number of at least {least}, found {text[:40] or 'nothing'}")
    return int(text)
