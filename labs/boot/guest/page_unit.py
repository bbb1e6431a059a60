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
UNIT = Path("/etc/systemd/system/my-service.service")
CONFIG = Path("/etc/my-service.conf")
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
BOTH_TEXT = """[Unit]
Wants=my-service.service slow-network.service
"""
SHOWN = (
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "NRestarts",
    "Result",
    "Restart",
    "Type",
    "After",
    "Wants",
    "Requires",
    "FragmentPath",
    "ExecMainStatus",
    "ExecMainStartTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
)


def systemctl(*words: str, check: bool = True) -> str:
    """Run systemctl; what it prints."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=check).stdout.strip()


def show(unit: str = "my-service.service") -> dict[str, str]:
    """Some properties of a unit, as systemd tells them."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in SHOWN)).splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def until(condition: Condition, limit_s: float = 20.0) -> dict[str, str]:
    """Ask for the unit's state until it is as wanted; the state then, or the last one seen."""
    return look_until(show, condition, limit_s=limit_s, every_s=0.05)


def restarted(count: int) -> Condition:
    """Whether the unit runs again after so many restarts."""
    return lambda seen: int(seen["NRestarts"]) >= count and seen["SubState"] == "running" and seen["MainPID"] != "0"


def main() -> None:
    """Install it, run it, kill it, end it, let it fail, and order it; then leave nothing of it."""
    unit = (HERE / "my-service.service").read_text()
    if sys.argv[1:2] == ["--restart"]:
        unit = unit.replace("Restart=on-failure", f"Restart={sys.argv[2]}")
    shutil.copy(HERE / "my-service", "/usr/bin/my-service")
    Path("/usr/bin/my-service").chmod(0o755)
    UNIT.write_text(unit)
    SLOW.write_text(SLOW_TEXT)
    BOTH.write_text(BOTH_TEXT)
    CONFIG.write_text("stay\n")
    facts: dict[str, object] = {"unit": unit}

    # After= alone starts nothing: the network is not there, and the service runs. (Enabling also makes systemd read what is new.)
    systemctl("enable", "my-service")
    facts["enabled"] = Path("/etc/systemd/system/multi-user.target.wants/my-service.service").is_symlink()
    systemctl("start", "my-service")
    facts["alone"] = {"service": until(lambda seen: seen["SubState"] == "running"), "network": show("network.target")}

    # Killed: a failure, and it comes back. Told to end: none, and it does not.
    systemctl("kill", "--signal=KILL", "--kill-whom=main", "my-service")
    facts["killed"] = until(restarted(1), 5)
    systemctl("kill", "--signal=TERM", "--kill-whom=main", "my-service", check=False)
    facts["ended"] = until(lambda seen: seen["ActiveState"] == "inactive", 5)
    time.sleep(0.5)  # Five times as long as systemd waits before a restart (RestartSec, 100 ms).
    facts["ended_later"] = show()

    # It fails each time: systemd gives up after five starts in ten seconds (DefaultStartLimitBurst).
    CONFIG.write_text("fail\n")
    systemctl("start", "my-service", check=False)
    facts["failing"] = until(lambda seen: seen["ActiveState"] == "failed")

    # Both in one transaction: now the order counts.
    CONFIG.write_text("stay\n")
    systemctl("reset-failed", "my-service", check=False)
    systemctl("start", BOTH.name)
    until(lambda seen: seen["SubState"] == "running")
    facts["together"] = {"service": show(), "network": show("network.target"), "slow": show(SLOW.name)}

    systemctl("stop", "my-service", SLOW.name, BOTH.name)
    # (Reading all units anew would take a second, and the guest is switched off next.)
    systemctl("disable", "--no-reload", "my-service")
    for path in (UNIT, SLOW, BOTH, CONFIG, Path("/usr/bin/my-service")):
        path.unlink()
    say(facts)


main()
