"""What this guest says of its own addresses: their widths, and what lies where in its physical memory as its firmware and kernel see it.

Prints one object: address_sizes (of /proc/cpuinfo), la57 (whether the processor has five levels), iomem (the top level of /proc/iomem) and
firmware_map (the map that the firmware handed over, e820 on a PC, from /sys/firmware/memmap).
"""

from pathlib import Path

from vmlab_guest.proc import cpuinfo
from vmlab_guest.say import say


def iomem() -> list[dict[str, str]]:
    """The ranges that stand at the margin; what is indented lies within one of them."""
    rows = []
    for line in Path("/proc/iomem").read_text().splitlines():
        if not line.startswith(" "):
            extent, _, name = line.partition(" : ")
            start, _, end = extent.partition("-")
            rows.append({"start": f"0x{start.lstrip('0') or '0'}", "end": f"0x{end.lstrip('0') or '0'}", "name": name})
    return rows


def firmware_map() -> list[dict[str, str]]:
    """The firmware's ranges in its own order: a directory each, named by its number."""
    entries = sorted(Path("/sys/firmware/memmap").glob("[0-9]*"), key=lambda path: int(path.name))
    return [{name: (entry / name).read_text().strip() for name in ("start", "end", "type")} for entry in entries]


say(
    address_sizes=cpuinfo("address sizes"),
    la57="la57" in cpuinfo("flags").split(),
    iomem=iomem(),
    firmware_map=firmware_map(),
)
