"""KVM's own counters of a guest, read without root: the binary statistics of KVM_GET_STATS_FD (Linux 5.14 and later).

A descriptor gives a header, one description a counter, and the values (Documentation/virt/kvm/api.rst, section KVM_GET_STATS_FD).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from ctypes import c_int16, c_uint16, c_uint32

ReadAt = Callable[[int, int], bytes]
"""``read_at(size, offset)``: that many bytes from there, as pread(2)."""


class KvmStatsHeader(ctypes.Structure):
    """struct kvm_stats_header, the beginning of what a statistics descriptor gives (api.rst, KVM_GET_STATS_FD)."""

    _fields_ = [(name, c_uint32) for name in ("flags", "name_size", "num_desc", "id_offset", "desc_offset", "data_offset")]


class KvmStatsDesc(ctypes.Structure):
    """struct kvm_stats_desc: one counter; its name follows, in ``name_size`` bytes."""

    _fields_ = [("flags", c_uint32), ("exponent", c_int16), ("size", c_uint16), ("offset", c_uint32), ("bucket_size", c_uint32)]


def read(descriptor: int) -> dict[str, int]:
    """The counters of a statistics descriptor by name; those that are histograms are left out."""
    return parse(lambda size, offset: os.pread(descriptor, size, offset))


def parse(read_at: ReadAt) -> dict[str, int]:
    """The same from anything that gives ``size`` bytes at ``offset``. ValueError when it is not of the documented form."""
    try:
        header = KvmStatsHeader.from_buffer_copy(read_at(ctypes.sizeof(KvmStatsHeader), 0))
        step = ctypes.sizeof(KvmStatsDesc) + header.name_size
        descriptions = read_at(step * header.num_desc, header.desc_offset)
        found = {}
        for start in range(0, step * header.num_desc, step):
            described = KvmStatsDesc.from_buffer_copy(descriptions, start)
            name = descriptions[start + ctypes.sizeof(KvmStatsDesc) : start + step].split(b"\0")[0].decode()
            if described.size == 1:
                (found[name],) = struct.unpack("<Q", read_at(8, header.data_offset + described.offset))
    except (ValueError, struct.error) as exc:
        raise ValueError(f"the counters are not of the documented form: {exc}") from exc
    return found


def since(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """How far each counter went; those that stood still are left out."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
