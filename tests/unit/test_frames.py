"""Frames in words, and the files that QEMU keeps them in."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from vmlab.guest import frames

MACS = bytes.fromhex("525400770102525400770101")
WORDS = {"destination_mac": "52:54:00:77:01:02", "source_mac": "52:54:00:77:01:01"}
LEFT, RIGHT = bytes([10, 77, 1, 1]), bytes([10, 77, 1, 2])


def ipv4(protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    size = 20 + len(options)
    header = struct.pack("!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(payload), 1, fragment, 64, protocol, 0, LEFT, RIGHT)
    return MACS + b"\x08\x00" + header + options + payload


def tcp(payload: bytes = b"", flags: int = 0x18) -> bytes:
    return struct.pack("!HHIIBBHHH", 46170, 7000, 1000, 2000, 0x50, flags, 0, 0, 0) + payload


def udp(payload: bytes) -> bytes:
    return struct.pack("!HHHH", 5000, 53, 8 + len(payload), 0) + payload


BETWEEN = {"source": "10.77.1.1", "destination": "10.77.1.2"}


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (
            ipv4(6, tcp(b"hello", 0x12)),
            {
                "protocol": "tcp",
                **BETWEEN,
                "source_port": 46170,
                "destination_port": 7000,
                "flags": ["SYN", "ACK"],
                "sequence": 1000,
                "acknowledgement": 2000,
                "payload_bytes": 5,
            },
        ),
        (ipv4(17, udp(b"abc")), {"protocol": "udp", **BETWEEN, "source_port": 5000, "destination_port": 53, "payload_bytes": 3}),
        (
            ipv4(17, udp(b"abc"), options=bytes(4)),
            {"protocol": "udp", **BETWEEN, "source_port": 5000, "destination_port": 53, "payload_bytes": 3},
        ),
        (ipv4(1, b"\x08\x00"), {"protocol": "icmp", **BETWEEN}),
        (ipv4(47, b"gre"), {"protocol": "ipv4", **BETWEEN}),
        # A fragment that is not the first has no ports.
        (ipv4(17, udp(b"abc"), fragment=5), {"protocol": "ipv4", **BETWEEN}),
        (
            MACS + b"\x86\xdd" + struct.pack("!IHBB16s16s", 6 << 28, 11, 17, 64, bytes(15) + b"\x01", bytes(15) + b"\x02") + udp(b"abc"),
            {"protocol": "udp", "source": "::1", "destination": "::2", "source_port": 5000, "destination_port": 53, "payload_bytes": 3},
        ),
        (MACS + b"\x08\x06" + bytes(14) + LEFT + bytes(6) + RIGHT, {"protocol": "arp", **BETWEEN}),
        # With a VLAN tag, the rest begins four bytes later.
        (MACS + b"\x81\x00\x00\x05" + ipv4(1, b"\x08\x00")[12:], {"protocol": "icmp", **BETWEEN}),
        (MACS + b"\x88\xcc" + b"lldp", {"protocol": "other"}),
    ],
)
def test_a_frame_in_words(frame: bytes, told: dict[str, Any]) -> None:
    found = frames.summary(frame)
    assert found == {"bytes": len(frame), **WORDS, **told}
    assert json.loads(json.dumps(found)) == found


def test_a_short_frame_is_filled_up_and_its_payload_is_what_the_packet_says() -> None:
    whole = ipv4(6, tcp())
    assert frames.summary(whole + bytes(6))["payload_bytes"] == 0


@pytest.mark.parametrize(
    "frame", [ipv4(6, tcp(b"hello")), ipv4(17, udp(b"abc")), MACS + b"\x08\x06" + bytes(28), MACS + b"\x86\xdd" + bytes(60)]
)
def test_a_frame_that_is_cut_anywhere_or_garbage_is_told_as_far_as_it_goes(frame: bytes) -> None:
    for end in range(len(frame)):
        assert frames.summary(frame[:end])["bytes"] == end
    for place in range(12, len(frame)):
        broken = bytearray(frame)
        broken[place] ^= 0xFF
        assert frames.summary(bytes(broken))["bytes"] == len(frame)


def pcap(*packets: tuple[float, bytes], order: str = "<") -> bytes:
    content = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65536, 1)
    for at, frame in packets:
        content += struct.pack(f"{order}IIII", int(at), round(at % 1 * 1e6), len(frame), len(frame)) + frame
    return content


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_file_is_read_up_to_its_last_whole_frame(order: str) -> None:
    packets = [(100.25, b"first frame"), (101.5, b"second")]
    whole = pcap(*packets, order=order)
    assert list(frames.of_pcap(whole)) == packets
    for end in range(len(whole)):
        found = list(frames.of_pcap(whole[:end]))
        assert found == packets[: len(found)]
    assert len(list(frames.of_pcap(whole[:-1]))) == 1


def test_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match="pcap"):
        list(frames.of_pcap(b"\x0a\x0d\x0d\x0a" + bytes(40)))
