"""KVM's own counters of a guest, read without root: the binary statistics of KVM_GET_STATS_FD (Linux 5.14 and later).

A descriptor gives a header, one description a counter, and the values (Documentation/virt/kvm/api.rst, section KVM_GET_STATS_FD).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from ctypes import c_int16, c_uint16, c_uint32

_VALUE = struct.Struct("<Q")

ReadAt = Callable[[int, int], bytes]
"""``read_at(size, offset)``: that many bytes from there, as pread(2)."""


class KvmStatsHeader(ctypes.Structure):
    """struct kvm_stats_header, the beginning of what a statistics descriptor gives (api.rst, KVM_GET_STATS_FD)."""

    _fields_ = [(name, c_uint32) for name in ("flags", "name_size", "num_desc", "id_offset", "desc_offset", "data_offset")]


class KvmStatsDesc(ctypes.Structure):
    """struct kvm_stats_desc: one counter; its name follows, in ``name_size`` bytes."""

    _fields_ = [("flags", c_uint32), ("exponent", c_int16), ("size", c_uint16), ("offset", c_uint32), ("bucket_size", c_uint32)]


class Counters:
    """The counters behind one statistics descriptor. They are described once, and each reading is one look at all their values.

    Counters that are histograms are left out. ValueError when what is read is not of the documented form.
    """

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        try:
            header = KvmStatsHeader.from_buffer_copy(read_at(ctypes.sizeof(KvmStatsHeader), 0))
            step = ctypes.sizeof(KvmStatsDesc) + header.name_size
            descriptions = read_at(step * header.num_desc, header.desc_offset)
            self._places: dict[str, int] = {}
            for start in range(0, step * header.num_desc, step):
                described = KvmStatsDesc.from_buffer_copy(descriptions, start)
                if described.size == 1:
                    name = descriptions[start + ctypes.sizeof(KvmStatsDesc) : start + step].split(b"\0")[0].decode()
                    self._places[name] = described.offset
        except ValueError as exc:
            raise ValueError(f"the counters are not of the documented form: {exc}") from exc
        self._start = header.data_offset
        self._size = max(self._places.values(), default=-8) + 8

    @classmethod
    def of(cls, descriptor: int) -> Counters:
        """Those of an open descriptor."""
        return cls(lambda size, offset: os.pread(descriptor, size, offset))

    def read(self) -> dict[str, int]:
        """Every counter's value by name."""
        values = self._read_at(self._size, self._start)
        try:
            return {name: _VALUE.unpack_from(values, place)[0] for name, place in self._places.items()}
        except struct.error as exc:
            raise ValueError(f"the counters are not of the documented form: {exc}") from exc


def since(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """How far each counter went; those that stood still are left out."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
