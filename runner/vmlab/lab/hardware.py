"""What ``lab.yaml`` says of a guest's hardware beyond memory and CPUs: drives, the processor's features, networks."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from vmlab.lab.strict import Strict

# A virtio disk's serial number, by which the guest finds it, has 20 bytes; a Linux network interface's name has 15 (IFNAMSIZ in linux/if.h,
# with its end), of which some are left for what a lab puts before or behind it (a VLAN, say).
_DRIVE_NAME_LIMIT = 20
_NETWORK_NAME_LIMIT = 12
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# What the kernel and udev call interfaces.
_INTERFACE = re.compile(r"lo|(eth|en|wl|veth|docker|br|tun|tap|dummy)[0-9a-z]*")


def _drive_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _DRIVE_NAME_LIMIT or name == "root":
        raise ValueError(
            "a disk's name is lower-case letters, digits and underscores, a letter first, "
            f"at most {_DRIVE_NAME_LIMIT} of them, and not root"
        )
    return name


def _network_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _NETWORK_NAME_LIMIT or _INTERFACE.fullmatch(name):
        raise ValueError(
            "a network's name is what its interfaces are called in the guests: lower-case letters, digits and underscores, a letter first, "
            f"at most {_NETWORK_NAME_LIMIT} of them, and none of the kernel's own names (lo, eth0)"
        )
    return name


def _within_the_lab(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] == ("tests",) or not path.parts:
        raise ValueError("the content of a disk is a file in the lab's folder, not among its tests")
    return name


DriveName = Annotated[str, AfterValidator(_drive_name)]
NetworkName = Annotated[str, AfterValidator(_network_name)]


class DriveRequest(Strict):
    """A disk beside the root disk, fresh for each guest: /dev/disk/by-id/virtio-NAME. The host finds what is written to it in a file."""

    size_mib: int = Field(ge=1, le=8192, description="its size, in MiB; on the host it takes what is written to it")
    host_cache: bool = Field(
        default=True, description="false: each request goes past the host's page cache to the host's disk, and a flush does too"
    )
    read_only: bool = Field(default=False, description="whether the guest may only read it")
    content: Annotated[str, AfterValidator(_within_the_lab)] | None = Field(
        default=None, description="a file of the lab's folder that it begins with; the rest, or all of it, is zeros"
    )


class ProcessorRequest(Strict):
    """Features of the guest's processor. Where the accelerator cannot give them, what the guest is for is not observable."""

    la57: bool | None = Field(default=None, description="page tables of five levels; none: as the accelerator has it")
    pcid: bool | None = Field(default=None, description="address spaces told apart in the TLB; none: as the accelerator has it")
    physical_bits: int | None = Field(default=None, ge=32, le=52, description="how many bits a physical address has; none: as it is")


class NetworkRequest(Strict):
    """A private network between guests of the run, in which nothing else takes part."""

    loss_percent: float = Field(default=0.0, ge=0, le=100, description="so many of a hundred frames are lost, by chance")
    delay_ms: float = Field(default=0.0, ge=0, le=60000, description="how long each frame takes, in milliseconds")
