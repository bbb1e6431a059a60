"""What ``lab.yaml`` says of a guest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vmlab.lab.hardware import DriveName, DriveRequest, NetworkName, ProcessorRequest
from vmlab.lab.strict import Strict

# What an emulated guest may have, in MiB: its Linux and Python need the first number, and Bochs has been seen to boot with the second.
EMULATED_MIB = (512, 2048)


class GuestRequest(Strict):
    """A guest that the lab needs."""

    emulator: Literal["qemu", "bochs"] = Field(
        default="qemu",
        description="bochs: an Intel processor with VMX and EPT, emulated; a small Linux that is booted anew for each script",
    )
    images: list[str] = Field(default_factory=list, description="images it runs on, the default first; empty: any")
    needs: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]] = Field(
        default_factory=list, description="programs, beside sh and python3, without which nothing can be shown in it"
    )
    memory_mib: int = Field(default=1024, ge=128, description="memory, in MiB")
    cpus: int = Field(default=2, ge=1, le=64, description="virtual CPUs")
    virtualisation: Literal["none", "svm"] = Field(
        default="none",
        description="svm: it can run guests of its own; an AMD processor with nested paging, `cpus: 1`, emulated whatever runs the others",
    )
    accelerator: Literal["tcg"] | None = Field(
        default=None, description="tcg: its instructions are emulated, whatever runs those of the others; none: as the run has it"
    )
    cpu: ProcessorRequest | None = Field(default=None, description="features of its processor")
    disks: dict[DriveName, DriveRequest] = Field(default_factory=dict, max_length=8, description="disks beside its root disk, by name")
    networks: list[NetworkName] = Field(
        default_factory=list, max_length=4, description="networks that it is on, of those that the lab has; its interfaces are called so"
    )
    init: Literal["systemd", "sysv"] = Field(default="systemd", description="the init system that it boots with")
    kernel_args: str = Field(default="", description="added to the kernel command line (direct kernel boot)")
    start: Literal["clone", "cold"] = Field(
        default="clone", description="a clone of a booted guest, there in a second, or a boot of its own: cold where the boot is measured"
    )
    internet: bool = Field(default=False, description="whether the guest may reach the network outside")
    cloud_init: dict[str, Any] = Field(default_factory=dict, description="merged into the user-data")
    small_pages: bool = Field(
        default=False, description="whether the host may back its memory with small pages only, so that it grows page by page"
    )
    when: dict[str, list[str]] = Field(
        default_factory=dict, description="values of text parameters with which it is needed, by the parameter's name; empty: always"
    )

    @model_validator(mode="after")
    def _consistent(self) -> GuestRequest:
        # With QEMU 7.2 the kernel of one with two CPUs was now and then broken without a word, each CPU a thread of QEMU's. (The kernel
        # patches its own code whenever it makes or ends a guest; see `vmlab.guest.boot.is_emulators_fault`.) With one thread for both, its
        # guests often hung. With one CPU neither was seen.
        if self.virtualisation != "none" and self.cpus != 1:
            raise ValueError("a guest that runs guests must have cpus: 1, because QEMU does not emulate several of its kind reliably")
        if self.virtualisation != "none" and self.cpu is not None:
            raise ValueError("a guest that runs guests has a processor of its own: leave cpu out")
        if len(set(self.networks)) < len(self.networks):
            raise ValueError("a guest is on each of its networks once")
        if self.emulator == "bochs":
            self._check_emulated()
        return self

    def _check_emulated(self) -> None:
        """ValueError for what a guest of Bochs cannot be given: there is no init system, no network and no cloud-init in it."""
        meaningless = sorted(self.model_fields_set - {"emulator", "images", "memory_mib", "cpus", "when"})
        if meaningless:
            raise ValueError(
                f"a guest with emulator: bochs has no {' and no '.join(meaningless)}: it may have images, memory_mib, cpus: 1 and when"
            )
        if self.cpus != 1:
            raise ValueError("a guest with emulator: bochs must have cpus: 1, which is what is emulated")
        least, most = EMULATED_MIB
        if not least <= self.memory_mib <= most:
            raise ValueError(f"a guest with emulator: bochs must have a memory_mib from {least} to {most}")
