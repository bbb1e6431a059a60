"""The unit file of the course page, word for word: installed, started, killed, and ordered. Prints one JSON object.

usage: page_unit.py [--restart POLICY]   (another policy than the page's, for a negative control)
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vmlab_guest.say import say
from vmlab_guest.wait import look_until

Condition = Callable[[dict[str, str]], bool]

HERE = Path(__file__).resolve().parent
SERVICE = "my-service.service"
UNIT = Path("/etc/systemd/system", SERVICE)
PROGRAM = Path("/usr/bin/my-service")
CONFIG = Path("/etc/my-service.conf")
STARTS = Path("/run/my-service.starts")
SLOW = Path("/etc/systemd/system/slow-network.service")
# Stands for a network manager: it takes a while, and network.target is reached when it is done (systemd.special(7)).
SLOW_TEXT = """[Unit]
Wants=network.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sleep 0.5
"""
BOTH = Path("/etc/systemd/system/both.target")
# One transaction for both, in which the order counts. (Two names on systemctl's command line are two transactions.)
BOTH_TEXT = f"""[Unit]
Wants={SERVICE} {SLOW.name}
"""
WINDOW = Path("/etc/systemd/system/my-service.service.d/window.conf")
# systemd counts the starts within ten seconds, in which a slow machine does not get to the fifth. Its number of starts stays as it is.
WINDOW_TEXT = """[Unit]
StartLimitIntervalSec=600
"""
STATE = ("ActiveState", "SubState", "NRestarts", "MainPID")
AS_WRITTEN = ("LoadState", "Type", "Restart", "FragmentPath", "After", "Wants", "Requires")
LIMIT = ("StartLimitBurst", "StartLimitIntervalUSec")
STARTED = "ExecMainStartTimestampMonotonic"
REACHED = "ActiveEnterTimestampMonotonic"
BY_HAND = 3
"""So often the service is started by hand and ends well, before it is made to fail."""
PATIENCE_S = 60.0
"""How long to wait for a state. What is sound has it after a second or two; a machine that stalls may need more."""


def systemctl(*words: str, check: bool = True) -> str:
    """Run systemctl; what it prints."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=check).stdout.strip()


def show(unit: str, *names: str) -> dict[str, str]:
    """Some properties of a unit, as systemd tells them."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def until(condition: Condition) -> dict[str, str]:
    """Ask for the service's state until it is as wanted; the state then, or the last one seen."""
    return look_until(lambda: show(SERVICE, *STATE), condition, limit_s=PATIENCE_S, every_s=0.05)


def runs(seen: dict[str, str]) -> bool:
    """Whether the service runs."""
    return seen["SubState"] == "running"


def is_over(seen: dict[str, str]) -> bool:
    """Whether it has ended and systemd is not about to start it again."""
    return seen["ActiveState"] in ("inactive", "failed")


def restarted(count: int) -> Condition:
    """Whether it runs again after so many restarts, or never will."""
    return lambda seen: (int(seen["NRestarts"]) >= count and runs(seen) and seen["MainPID"] != "0") or is_over(seen)


def starts() -> list[str]:
    """What the service did at each of its starts, in order, since this was asked last."""
    said = STARTS.read_text().split() if STARTS.exists() else []
    STARTS.unlink(missing_ok=True)
    return said


def afresh(what: str) -> None:
    """Have the service stopped, its starts forgotten by systemd, and its next one do something else."""
    systemctl("stop", SERVICE, check=False)
    systemctl("reset-failed", SERVICE, check=False)
    starts()
    CONFIG.write_text(f"{what}\n")


def fail_until_given_up() -> dict[str, object]:
    """Start it with a program that fails each time; the state when systemd starts it no more, and all starts."""
    CONFIG.write_text("fail\n")
    systemctl("start", SERVICE, check=False)
    state = until(is_over)
    return {"ActiveState": state["ActiveState"], "starts": starts(), **show(SERVICE, *LIMIT)}


def main() -> None:
    """Install it, run it, kill it, end it, let it fail, and order it; then leave nothing of it."""
    unit = (HERE / "my-service.service").read_text()
    if sys.argv[1:2] == ["--restart"]:
        unit = unit.replace("Restart=on-failure", f"Restart={sys.argv[2]}")
    shutil.copy(HERE / "my-service", PROGRAM)
    PROGRAM.chmod(0o755)
    UNIT.write_text(unit)
    SLOW.write_text(SLOW_TEXT)
    BOTH.write_text(BOTH_TEXT)
    CONFIG.write_text("stay\n")
    facts: dict[str, object] = {"unit": unit}

    # After= alone starts nothing: the network is not there, and the service runs. (Enabling also makes systemd read what is new.)
    systemctl("enable", SERVICE)
    facts["enabled"] = Path("/etc/systemd/system/multi-user.target.wants", SERVICE).is_symlink()
    systemctl("start", SERVICE, check=False)
    until(lambda seen: runs(seen) or is_over(seen))
    service = show(SERVICE, *AS_WRITTEN, "ActiveState", "SubState", "MainPID", *LIMIT)
    facts["alone"] = {"service": service, "network": show("network.target", "ActiveState")}

    # Killed: a failure, and it comes back. Told to end: none, and it does not.
    systemctl("kill", "--signal=KILL", "--kill-whom=main", SERVICE, check=False)
    facts["killed"] = until(restarted(1))
    systemctl("kill", "--signal=TERM", "--kill-whom=main", SERVICE, check=False)
    facts["ended"] = until(lambda seen: is_over(seen) or int(seen["NRestarts"]) >= 2)
    time.sleep(0.5)  # Five times as long as systemd waits before a restart (RestartSec, 100 ms).
    facts["ended_later"] = show(SERVICE, *STATE)

    # It fails each time. Once systemd makes all starts but the first; once some were made by hand before, and ended well.
    WINDOW.parent.mkdir(exist_ok=True)
    WINDOW.write_text(WINDOW_TEXT)
    systemctl("daemon-reload")
    afresh("fail")
    facts["failing"] = fail_until_given_up()
    afresh("succeed")
    for _ in range(BY_HAND):
        systemctl("start", SERVICE, check=False)
        until(is_over)
    facts["by_hand"] = fail_until_given_up()

    # Both in one transaction: now the order counts.
    afresh("stay")
    before = {name: show(name, "ActiveState")["ActiveState"] for name in (SERVICE, "network.target")}
    systemctl("start", BOTH.name, check=False)
    until(runs)
    facts["together"] = {
        "before": {"service": before[SERVICE], "network": before["network.target"]},
        "service": show(SERVICE, STARTED),
        "network": show("network.target", REACHED),
        "slow": show(SLOW.name, STARTED),
    }

    systemctl("stop", SERVICE, SLOW.name, BOTH.name, check=False)
    # (Reading all units anew would take a second, and the guest is switched off next.)
    systemctl("disable", "--no-reload", SERVICE)
    for path in (UNIT, SLOW, BOTH, CONFIG, PROGRAM, WINDOW):
        path.unlink()
    starts()
    say(facts)


main()
