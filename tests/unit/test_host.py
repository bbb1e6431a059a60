"""The host wing on machines that we do not have: each is a small file tree, broken in one way."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.conftest import AMD, ONLY_TCG, PLAIN, RECORDS, REST, World
from vmlab.errors import HostError
from vmlab.host import doctor
from vmlab.host.accelerator import CI_RULE, choose
from vmlab.host.facts import GIB, find_qemu, gather, in_words, require_qemu, too_old

# --- the accelerator: each reason is seen -----------------------------------------------------------------------------------------


def test_kvm_is_chosen_when_everything_speaks_for_it(kvm_world: World) -> None:
    chosen = choose("auto", kvm_world.view())
    assert chosen.name == "kvm"
    assert chosen.sentence == "KVM: /dev/kvm opens, API 12, processor has vmx, driven by kvm_intel, ept=Y, nested paging measured"
    assert chosen.part() == {
        "name": "kvm",
        "reason": chosen.reason,
        "nested_paging_claimed": "ept=Y",
        "nested_paging_found": "nested",
    }
    assert chosen.hint == ""
    assert kvm_world.opened == [], "the device was left open"


def test_kvm_on_amd(world: World) -> None:
    chosen = choose("kvm", world.put(AMD).put({"dev/kvm": ""}).view())
    assert (chosen.name, chosen.facts["nested_paging"]) == ("kvm", "npt=1")


def test_shadow_paging_is_recorded_not_refused(kvm_world: World) -> None:
    kvm_world.put({"sys/module/kvm_intel/parameters/ept": "N\n"})
    kvm_world.record = json.loads((RECORDS / "shadow-svm-6.12.json").read_text())
    part = choose("auto", kvm_world.view()).part()
    assert (part["name"], part["nested_paging_claimed"], part["nested_paging_found"]) == ("kvm", "ept=N", "shadow")


def no_device_no_module(world: World) -> None:
    (world.root / "dev/kvm").unlink()
    (world.root / "sys/module/kvm_intel/parameters/ept").unlink()
    (world.root / "sys/module/kvm_intel/parameters").rmdir()
    (world.root / "sys/module/kvm_intel").rmdir()


def no_device_no_flag(world: World) -> None:
    no_device_no_module(world)
    world.put(PLAIN)


def no_device_in_container(world: World) -> None:
    (world.root / "dev/kvm").unlink()


def denied(world: World) -> None:
    world.opening = PermissionError(errno.EACCES, "Permission denied")


def denied_and_useless(world: World) -> None:
    denied(world)
    world.put(PLAIN)


def denied_until_next_login(world: World) -> None:
    denied(world)
    world.put({"etc/group": "kvm:x:104:teacher,student\n"})


def forbidden(world: World) -> None:
    world.opening = PermissionError(errno.EPERM, "Operation not permitted")


def dead(world: World) -> None:
    world.opening = OSError(errno.ENODEV, "No such device")


def wrong_version(world: World) -> None:
    world.asking = 13


def mute(world: World) -> None:
    world.asking = OSError(errno.ENOTTY, "Inappropriate ioctl for device")


def software_kvm(world: World) -> None:
    """Opens, answers 12, runs small programs correctly, and cannot boot a kernel."""
    world.put(PLAIN).put({"sys/module/kvm_pvm/parameters/x": "1"})


def wrong_module(world: World) -> None:
    no_device_no_module(world)
    world.put({"dev/kvm": "", "sys/module/kvm_amd/parameters/npt": "1"})


def emulating(world: World) -> None:
    """Flag and module are there, and still software runs the guest: a KVM of hardware that passes the flags of another."""
    world.record = json.loads((RECORDS / "software.json").read_text())


def miscalculating(world: World) -> None:
    world.record["phases"]["remap"] |= {"correct": False, "problem": "r8 is 0x0 and must be 0x7"}


def busy(world: World) -> None:
    """Another hypervisor holds the processor's extension."""
    world.record["phases"] = {}
    world.record["error"] = {"step": "KVM_CREATE_VM", "errno": "EBUSY", "text": "Device or resource busy"}


def qemu_without_kvm(world: World) -> None:
    world.answers["-accel"] = ONLY_TCG


def no_qemu(world: World) -> None:
    world.answers["-accel"] = None


@pytest.mark.parametrize(
    ("breaking", "reason", "remedy"),
    [
        (no_device_no_flag, "/dev/kvm does not exist, and the processor shows neither vmx nor svm", "VT-x or AMD-V"),
        (no_device_no_module, "/dev/kvm does not exist, although the processor has vmx", "sudo modprobe kvm_intel"),
        (no_device_in_container, "/dev/kvm does not exist, although kvm_intel is loaded", "--device /dev/kvm"),
        (denied, "you may not write to it (permission denied)", "sudo usermod -aG kvm $USER"),
        (denied_and_useless, "(permission denied), and the processor shows neither vmx nor svm", "run on a machine with"),
        (denied_until_next_login, "this login is older than your place in group kvm", "log out and in"),
        (forbidden, "this container may not use it (operation not permitted)", "--device /dev/kvm"),
        (dead, "does not open (No such device)", "module loaded?"),
        (wrong_version, "speaks API version 13 (version 12 is the only real one)", ""),
        (mute, "does not answer like KVM", ""),
        (
            software_kvm,
            "/dev/kvm exists, but the processor shows neither vmx nor svm: not hardware virtualisation (its driver is kvm_pvm)",
            "VT-x",
        ),
        (wrong_module, "kvm_intel does not drive it: not hardware virtualisation", "sudo modprobe kvm_intel"),
        (emulating, "guest code is not run by the processor: 2.0 emulated instructions", "run on a machine with"),
        (miscalculating, "a guest of a few instructions gets wrong results (remap: r8 is 0x0", "run on a machine with"),
        (busy, "KVM_CREATE_VM failed: EBUSY, Device or resource busy", "vmlab doctor --probe"),
        (qemu_without_kvm, "this QEMU was built without KVM", "sudo apt-get install qemu-system-x86"),
        (no_qemu, "qemu-system-x86_64 is missing or does not start", "sudo apt-get install qemu-system-x86"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_obstacle_has_its_reason_and_remedy(kvm_world: World, breaking: Callable[[World], None], reason: str, remedy: str) -> None:
    breaking(kvm_world)
    chosen = choose("auto", kvm_world.view())
    assert chosen.name == "tcg"
    assert reason in chosen.sentence
    assert remedy in chosen.hint
    assert "\n" not in chosen.sentence + chosen.hint
    with pytest.raises(HostError) as caught:
        choose("kvm", kvm_world.view())
    assert caught.value.exit_code == 3
    assert reason in caught.value.message
    assert remedy in caught.value.hint


def test_ci_is_told_the_udev_rule(kvm_world: World) -> None:
    denied(kvm_world)
    assert choose("auto", kvm_world.view(in_ci=True)).command == CI_RULE


def test_tcg_as_asked_for_keeps_the_facts(kvm_world: World) -> None:
    chosen = choose("tcg", kvm_world.view())
    assert (chosen.sentence, chosen.facts["cpu_flag"]) == ("TCG: asked for", "vmx")


def test_the_probe_runs_only_where_everything_before_it_holds(world: World) -> None:
    choose("auto", world.put(PLAIN).put({"dev/kvm": ""}).view())
    assert world.probed == 0, "it was run although the processor has neither vmx nor svm"
    choose("tcg", world.put(AMD).view())
    assert world.probed == 0, "it was run although TCG was asked for"
    choose("auto", world.view())
    assert world.probed == 1


def test_a_kernel_without_counters_is_no_reason_against_kvm(kvm_world: World) -> None:
    kvm_world.record["has_counters"] = False
    chosen = choose("auto", kvm_world.view())
    assert chosen.name == "kvm"
    assert chosen.sentence.endswith("ept=Y")
    assert chosen.part()["nested_paging_found"] == "unknown"


def test_a_qemu_without_tcg_cannot_do_tcg(world: World) -> None:
    world.put(PLAIN).answers["-accel"] = "Accelerators supported in QEMU binary:\nkvm\n"
    with pytest.raises(HostError, match="built without TCG"):
        choose("auto", world.view())


# --- facts ------------------------------------------------------------------------------------------------------------------------


def test_facts_of_a_plain_machine(kvm_world: World, tmp_path: Path) -> None:
    facts = gather(kvm_world.view(), tmp_path)
    assert facts.part() == {
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.1.0-40-amd64",
        "cpu_model": "Some Xeon",
        "cpus": 8,
        "memory_bytes": 16 * GIB,
        "qemu_version": "7.2.22",
        "python_version": facts.python_version,
        "load_1min": 0.25,
    }
    assert (facts.memory_available_bytes, facts.disk_free_bytes, facts.unprivileged_builds) == (8 * GIB, 50 * GIB, "")


def test_facts_fit_the_report() -> None:
    from vmlab.report.model import HostPart

    part = gather().part()
    assert HostPart.model_validate({**part, "accelerator": {"name": "tcg", "reason": "asked for"}}).cpus >= 1


@pytest.mark.parametrize(
    ("files", "cpus", "memory", "available"),
    [
        ({}, 8, 16 * GIB, 8 * GIB),
        ({"sys/fs/cgroup/user.slice/cpu.max": "max 100000", "sys/fs/cgroup/user.slice/memory.max": "max"}, 8, 16 * GIB, 8 * GIB),
        ({"sys/fs/cgroup/user.slice/cpu.max": "250000 100000"}, 2, 16 * GIB, 8 * GIB),
        ({"sys/fs/cgroup/user.slice/lab.scope/cpu.max": "50000 100000"}, 1, 16 * GIB, 8 * GIB),
        (
            {
                "sys/fs/cgroup/user.slice/memory.max": str(4 * GIB),
                "sys/fs/cgroup/user.slice/memory.current": str(3 * GIB),
                "sys/fs/cgroup/user.slice/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            8,
            4 * GIB,
            2 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3,
            2 * GIB,
            GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n1:cpu:/\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
            16 * GIB,
            8 * GIB,
        ),
    ],
    ids=["none", "v2-unlimited", "v2-quota-above", "v2-half-a-cpu", "v2-memory", "v1-container", "v1-unlimited"],
)
def test_control_groups_are_respected(world: World, tmp_path: Path, files: dict[str, str], cpus: int, memory: int, available: int) -> None:
    facts = gather(world.put(PLAIN).put(files).view(), tmp_path)
    assert (facts.cpus, facts.memory_bytes, facts.memory_available_bytes) == (cpus, memory, available)


def test_a_machine_that_tells_nothing_is_still_described(tmp_path: Path) -> None:
    empty = World(tmp_path / "root")
    for name in REST:
        (empty.root / name).unlink()
    empty.programs.clear()
    facts = gather(empty.view(), tmp_path)
    assert (facts.memory_bytes, facts.load_1min, facts.qemu) == (0, 0.0, None)
    assert not doctor.examine(empty.view(), tmp_path).can_run


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6.24)", "QEMU 6.2.0 is too old: vmlab needs 7.0 or newer"),
        ("QEMU emulator version 7.0.0", ""),
        ("QEMU emulator version 10.0.2 (Debian)", ""),
        ("QEMU emulator version 11.0.50 (v11.0.0-12-gabcdef)", ""),
        ("something else", "cannot tell the version of /usr/bin/qemu-system-x86_64: it says 'something else'; vmlab needs 7.0 or newer"),
    ],
)
def test_versions_of_qemu(world: World, printed: str, problem: str) -> None:
    world.answers["--version"] = printed + "\nCopyright (c) 2003-2022 Fabrice Bellard and the QEMU Project developers\n"
    if problem:
        with pytest.raises(HostError) as caught:
            require_qemu(world.view())
        assert (caught.value.message, caught.value.exit_code) == (problem, 3)
    else:
        assert too_old(require_qemu(world.view())) == ""


def test_qemu_missing_is_not_qemu_broken(world: World) -> None:
    world.answers["--version"] = None
    with pytest.raises(HostError, match="does not start"):
        require_qemu(world.view())
    world.programs.clear()
    with pytest.raises(HostError, match="there is no qemu-system-x86_64") as caught:
        require_qemu(world.view())
    assert caught.value.hint == "sudo apt-get install qemu-system-x86"
    assert find_qemu(world.view()) is None


def test_sizes_in_words() -> None:
    assert [in_words(size) for size in (512 << 20, GIB, 25276063744)] == ["512 MiB", "1.0 GiB", "23.5 GiB"]


@pytest.mark.parametrize(
    ("files", "answer", "programs", "told"),
    [
        ({}, "", {"newuidmap"}, ""),
        ({}, "", set(), "newuidmap is missing (package uidmap)"),
        ({"proc/sys/kernel/unprivileged_userns_clone": "0"}, "", {"newuidmap"}, "user namespaces are switched off"),
        ({"etc/subuid": "teacher:100000:65536\n"}, "", {"newuidmap"}, "/etc/subuid has no line for student"),
        ({"etc/subgid": ""}, "", {"newuidmap"}, "/etc/subgid has no line for student"),
        ({}, None, {"newuidmap"}, "this kernel or container does not let you make a user namespace"),
    ],
)
def test_image_builds_without_root(
    world: World, tmp_path: Path, files: dict[str, str], answer: str | None, programs: set[str], told: str
) -> None:
    world.put(files).answers["unshare"] = answer
    world.programs = programs
    found = gather(world.view(), tmp_path).unprivileged_builds
    assert told in found
    assert bool(told) == bool(found)
    assert gather(world.view(is_root=True), tmp_path).unprivileged_builds == ""
