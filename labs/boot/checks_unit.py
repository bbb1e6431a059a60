"""The unit file of the course page, run in the guest: what it does, and what it does not."""

from __future__ import annotations

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, not_observable, passed

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


@check(points=1, claim="D3")
def the_pages_unit_file_runs(evidence: Evidence) -> Verdict:
    """The unit file of the course page, word for word, is accepted by systemd as it is, is enabled by a link, and runs its program."""
    facts = evidence["page_unit"]
    running = facts.record("alone").record("service")
    said = {key: running.text(key) for key in ("LoadState", "Type", "Restart", "SubState", "FragmentPath")}
    same = facts.text("unit") == PAGE
    enabled = "enabled" if facts.flag("enabled") else "not enabled"
    measured = f"{'the same text' if same else 'another text'}; {enabled}; " + ", ".join(said.values())
    expected = "the page's text; enabled; loaded, simple, on-failure, running"
    wanted = {
        "LoadState": "loaded",
        "Type": "simple",
        "Restart": "on-failure",
        "SubState": "running",
        "FragmentPath": "/etc/systemd/system/my-service.service",
    }
    if said == wanted and same and facts.flag("enabled") and running.text("MainPID") not in ("", "0", "1"):
        return passed("Nine lines say what is wanted, and none of them is a line of shell.", expected=expected, measured=measured)
    return failed("The unit did not run as the file says.", expected=expected, measured=measured)


@check(points=1, claim="D8", after="the_pages_unit_file_runs")
def it_restarts_on_failure_only(evidence: Evidence) -> Verdict:
    """Restart=on-failure: killed, it comes back with another process; ended in order, it stays away; failing each time, it is given up.

    systemd gives up after five starts within ten seconds (StartLimitBurst).
    """
    facts = evidence["page_unit"]
    first, again = facts.record("alone").record("service"), facts.record("killed")
    ended, later, failing = facts.record("ended"), facts.record("ended_later"), facts.record("failing")
    another = again.text("MainPID") not in ("0", first.text("MainPID"))
    came_back = again.text("SubState") == "running" and again.text("NRestarts") == "1" and another
    stayed = ended.text("ActiveState") == later.text("ActiveState") == "inactive" and later.text("NRestarts") == "1"
    gave_up = failing.text("ActiveState") == "failed" and failing.text("NRestarts") not in ("0", "")
    measured = (
        f"killed: {again.text('SubState')}, restarts {again.text('NRestarts')}, {'another' if another else 'the same'} process; "
        f"ended: {later.text('ActiveState')}, restarts {later.text('NRestarts')}; "
        f"failing: {failing.text('ActiveState')} ({failing.text('Result')}) after {failing.text('NRestarts')} restarts"
    )
    expected = "killed: running, restarts 1, another process; ended: inactive, restarts 1; failing: failed"
    if came_back and stayed and gave_up:
        return passed("It is restarted when it fails, and only then.", expected=expected, measured=measured)
    return failed("It was not restarted when it should be, or when it should not.", expected=expected, measured=measured)


@check(points=1, claim="D8", after="the_pages_unit_file_runs")
def after_orders_and_starts_nothing(evidence: Evidence) -> Verdict:
    """After=network.target is an order and no more: started alone, the service runs without the network; started with it, it waits for it.

    A unit that stands for the network's manager takes half a second, and network.target is reached when it is done.
    """
    facts = evidence["page_unit"]
    alone, together = facts.record("alone"), facts.record("together")
    started_s = microseconds(together.record("service"), "ExecMainStartTimestampMonotonic")
    network_s = microseconds(together.record("network"), "ActiveEnterTimestampMonotonic")
    slow_s = microseconds(together.record("slow"), "ExecMainStartTimestampMonotonic")
    without, names = alone.record("network").text("ActiveState"), alone.record("service").text("After").split()
    pulled = {"network.target"} & {*alone.record("service").text("Wants").split(), *alone.record("service").text("Requires").split()}
    if without == "active" and not pulled:
        return not_observable("network.target was reached before the service was started, so that it could not be seen to run without it.")
    measured = (
        f"alone: network {without}, service {alone.record('service').text('SubState')}; together: network {network_s - slow_s:.2f} s after "
        f"its manager was started, service {started_s - network_s:.2f} s after the network"
    )
    expected = "alone: network inactive, service running; together: network at least 0.5 s later, then the service"
    alone_runs = without == "inactive" and alone.record("service").text("SubState") == "running" and not pulled
    if alone_runs and "network.target" in names and network_s - slow_s >= 0.45 and started_s >= network_s:
        return passed("It orders, and starts nothing.", expected=expected, measured=measured)
    return failed("The order was not kept, or the network was started by it.", expected=expected, measured=measured)


def microseconds(unit: Record, name: str) -> float:
    """One of systemd's moments, in seconds of the boot's clock."""
    text = unit.text(name)
    if not text.isdigit() or int(text) == 0:
        raise EvidenceProblem(f"{unit.place}.{name}: expected microseconds, found {text!r}")
    return int(text) / 1e6
