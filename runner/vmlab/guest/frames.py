"""Ethernet frames in words: a pure reading of what passes on a wire, and of the files (pcap) in which QEMU keeps it.

Layouts: Ethernet II with IEEE 802.1Q, RFC 826 (ARP), RFC 791 and 8200 (IP), RFC 9293 (TCP), RFC 768 (UDP), RFC 792 and 4443 (ICMP).
Frames come from guests: what is cut short or is not what it says that it is, is told as far as it goes.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import Any

ARP = 0x0806
RARP = 0x8035
_IPV4, _IPV6, _VLAN = 0x0800, 0x86DD, 0x8100
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")

# A pcap file: a header of 24 bytes, then for each frame one of 16 (draft-ietf-opsawg-pcap, "PCAP Capture File Format").
_HEADER_BYTES = 24
_MAGIC = 0xA1B2C3D4


def ethertype(frame: bytes) -> int:
    """What kind of payload a frame has; 0 for none."""
    at = 16 if frame[12:14] == _VLAN.to_bytes(2, "big") else 12
    return int.from_bytes(frame[at : at + 2], "big")


def summary(frame: bytes) -> dict[str, Any]:
    """A frame in words and numbers that JSON can hold.

    ``bytes``, ``source_mac``, ``destination_mac`` and ``protocol`` (tcp, udp, icmp, arp, ipv4, ipv6, other) are always there; ``source``
    and ``destination`` (addresses), ``source_port``, ``destination_port``, ``flags`` (of TCP, a list of names), ``sequence``,
    ``acknowledgement`` and ``payload_bytes`` where the frame has them.
    """
    found: dict[str, Any] = {
        "bytes": len(frame),
        "destination_mac": frame[:6].hex(":"),
        "source_mac": frame[6:12].hex(":"),
        "protocol": "other",
    }
    kind = ethertype(frame)
    network = frame[18:] if frame[12:14] == _VLAN.to_bytes(2, "big") else frame[14:]
    if kind == ARP:
        found["protocol"] = "arp"
        if len(network) >= 28:
            found |= {"source": _address(network[14:18]), "destination": _address(network[24:28])}
    elif kind == _IPV4:
        found |= _ipv4(network)
    elif kind == _IPV6:
        found |= _ipv6(network)
    return found


def _ipv4(packet: bytes) -> dict[str, Any]:
    if len(packet) < 20:
        return {"protocol": "ipv4"}
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    found = {"protocol": "ipv4", "source": _address(packet[12:16]), "destination": _address(packet[16:20])}
    if int.from_bytes(packet[6:8], "big") & 0x1FFF:
        # A fragment that is not the first begins in the middle of its payload.
        return found
    # (A frame is filled up to 60 bytes; how long the packet is stands in it.)
    return found | _transport(packet[9], packet[header:total])


def _ipv6(packet: bytes) -> dict[str, Any]:
    if len(packet) < 40:
        return {"protocol": "ipv6"}
    length = int.from_bytes(packet[4:6], "big")
    found = {"protocol": "ipv6", "source": _address(packet[8:24]), "destination": _address(packet[24:40])}
    return found | _transport(packet[6], packet[40 : 40 + length])


def _transport(number: int, segment: bytes) -> dict[str, Any]:
    protocol = _PROTOCOLS.get(number)
    if protocol is None:
        return {}
    if protocol == "udp" and len(segment) >= 8:
        source, destination, length = struct.unpack("!HHH", segment[:6])
        ports = {"source_port": source, "destination_port": destination}
        return {"protocol": protocol, **ports, "payload_bytes": max(0, min(length, len(segment)) - 8)}
    if protocol == "tcp" and len(segment) >= 20:
        source, destination, sequence, acknowledgement, offset, flags = struct.unpack("!HHIIBB", segment[:14])
        return {
            "protocol": protocol,
            "source_port": source,
            "destination_port": destination,
            "flags": [name for bit, name in enumerate(_FLAGS) if flags >> bit & 1],
            "sequence": sequence,
            "acknowledgement": acknowledgement,
            "payload_bytes": max(0, len(segment) - (offset >> 4) * 4),
        }
    return {"protocol": protocol}


def _address(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))


def of_pcap(content: bytes) -> Iterator[tuple[float, bytes]]:
    """The frames of a pcap file in their order, each with its time in seconds. A last one that is not whole yet is left out.

    ValueError when it is no such file.
    """
    if len(content) < _HEADER_BYTES:
        return
    order = next((order for order in "<>" if struct.unpack(f"{order}I", content[:4])[0] == _MAGIC), None)
    if order is None:
        raise ValueError("it does not begin as a pcap file does")
    at = _HEADER_BYTES
    while at + 16 <= len(content):
        seconds, microseconds, size, _ = struct.unpack(f"{order}IIII", content[at : at + 16])
        at += 16
        if at + size > len(content):
            return
        yield seconds + microseconds / 1e6, content[at : at + size]
        at += size
