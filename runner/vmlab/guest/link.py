"""A guest's own end of a private network: its interface there, and how it gets its name and addresses.

They are given to it over SSH when it is ready, not at its boot: a template is shared by guests of other names and other labs, so that
its interfaces are known by placeholders (`placeholder`) alone, and whoever wakes from it is told who it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmlab.deadline import Deadline
from vmlab.errors import GuestError
from vmlab.guest.ssh import Connection

_LIMIT_S = 60.0

# IPv6 would speak on the network by itself, and its packets would be counted and lost among those that the lab sends.
_JOIN = """set -e
link=
for each in /sys/class/net/*; do
    read -r address <"$each/address" || continue
    if [ "$address" = {placeholder} ]; then link=${{each##*/}}; fi
done
if [ -z "$link" ]; then echo "no interface has the address {placeholder}" >&2; exit 1; fi
silent=/proc/sys/net/ipv6/conf/$link/disable_ipv6
if [ -e "$silent" ]; then echo 1 >"$silent"; fi
ip -batch - <<END
link set dev $link down
address flush dev $link
link set dev $link name {name} address {mac}
address add {address}/24 dev {name}
link set dev {name} up
END
tries=0
until read -r up </sys/class/net/{name}/carrier && [ "$up" = 1 ]; do
    tries=$((tries + 1))
    if [ $tries -gt 200 ]; then echo "the interface {name} has no carrier" >&2; exit 1; fi
    sleep 0.05
done
"""


@dataclass(frozen=True)
class Link:
    """A guest's interface on the network of this name: called like it, with these addresses."""

    network: str
    mac: str
    address: str


def placeholder(number: int) -> str:
    """The MAC address with which a guest's first (1), second, ... interface to a network begins: local, and nobody's (IEEE 802, 8.4)."""
    return f"52:54:00:76:6c:{number:02x}"


def configure(connection: Connection, links: Sequence[Link], deadline: Deadline) -> None:
    """Give a guest's interfaces their names and addresses, and set them up. GuestError when it cannot be: no ``ip`` in the image, say."""
    for number, link in enumerate(links, 1):
        script = _JOIN.format(placeholder=placeholder(number), name=link.network, mac=link.mac, address=link.address)
        done = connection.execute(script, deadline=deadline.within(_LIMIT_S))
        if done.status != 0:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.status}"])[-1]
            raise GuestError(
                f"the guest cannot be put on the network {link.network}: {last[:300]}",
                hint="its image needs ip (iproute2) and a driver for virtio network cards",
            )
