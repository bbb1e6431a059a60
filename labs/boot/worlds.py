"""The worlds in which one of the lab's claims is false, for its controls: what is done to the guest whose disk is booted."""

from __future__ import annotations

from dataclasses import dataclass

from .reading import NATIVE

UNITS = "/usr/lib/bootlab/native"
DROP_IN = "/etc/systemd/system/my-service.service.d"


@dataclass(frozen=True)
class World:
    """What is another in it. Shell lines are run by root in the guest, before its files are read, or after that and before it is frozen."""

    before: str = ""
    after: str = ""
    page_unit: tuple[str, ...] = ()
    """Arguments of the script that tries the course page's unit file."""
    cpus: tuple[str, int] = ("", 0)
    """An arm that is booted with so many processors in its first boot."""


def alone(unit: str) -> str:
    """A unit that waits for no other."""
    return f"sed -i '/^After=/d; /^Requires=/d' {UNITS}-{unit}.service"


def drop_in(section: str, line: str) -> str:
    """One line more for the unit of the course page, in a file beside it."""
    return f"mkdir -p {DROP_IN} && printf '[%s]\\n%s\\n' {section} {line} > {DROP_IN}/broken.conf"


IMITATOR = """cat > /etc/systemd/system/imitator.service <<'END'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'read -r clock rest </proc/uptime; echo "inittab - $clock" >/dev/ttyS1'
END
ln -s ../imitator.service /etc/systemd/system/multi-user.target.wants/imitator.service"""

WORLDS: dict[str, World] = {
    "sound": World(),
    "fewer_cpus": World(cpus=(NATIVE, 1)),
    "another_arm": World(before="sed -i 's/concurrency=/no-such-word=/g' /lib/init/rc"),
    "imitator": World(before=IMITATOR),
    "fewer_links": World(before="rm /etc/rc3.d/S??bootlogs"),
    "links_renamed": World(
        after="mv /etc/rc2.d/S01lab-thumbs /etc/rc2.d/S00lab-thumbs && mv /etc/rc0.d/K02lab-shop /etc/rc0.d/K04lab-shop"
    ),
    "in_background": World(before="sed -i 's,^[.] /usr/lib/bootlab/service.sh,( & ) \\&,' /etc/init.d/lab-backup"),
    "one_at_a_time": World(after="sed -i 's/startpar -p 4/startpar -p 1/' /lib/init/rc"),
    "no_wait": World(before=alone("2/lab-shop")),
    "slow_script": World(before="sed -i 's/ cost=[0-9.]*/ cost=8.3/' /etc/init.d/lab-print"),
    "slow_unit": World(before=f"sed -i 's/ cost=[0-9.]*/ cost=6.6/' {UNITS}-2/lab-shop.service"),
    "controls_gain": World(
        before=f"{alone('3/lab-second')} && {alone('3/lab-third')} && sed -i 's/ cost=100/ cost=50/' {UNITS}-4/lab-burn?.service"
    ),
    "another_unit": World(page_unit=("--restart", "always")),
    "no_comeback": World(before=drop_in("Service", "RestartPreventExitStatus=SIGKILL")),
    "more_starts": World(before=drop_in("Unit", "StartLimitBurst=9")),
    "network_wanted": World(before=drop_in("Unit", "Wants=network.target")),
}
