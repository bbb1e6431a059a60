"""Run once, by cloud-init on the first boot: makes what was written to /usr/lib/bootlab part of both init systems."""

import subprocess
from pathlib import Path

HOME = Path("/usr/lib/bootlab")
UNITS = Path("/etc/systemd/system")
# Under SysV the last line of its file; what it runs shows that init reads it.
INITTAB = "lab:234:once:/bin/sh /usr/lib/bootlab/inittab.sh\n"

# What the services do not need is left out of the measured boots, under both inits alike, because it would take longer than they do:
# nobody logs in, cloud-init has done its work, and devices come from the kernel (devtmpfs) without udev.
SCRIPTS = ["ssh", "vmlab-cloud-init-main", "vmlab-cloud-init", "vmlab-cloud-final", "udev", "procps", "bootmisc.sh", "rmnologin"]
MASKED = [
    "ssh.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-sysctl.service",
    "systemd-tmpfiles-setup.service",
]


def masked(place: Path) -> None:
    """Make a unit that systemd refuses to start, as `systemctl mask` does."""
    place.unlink(missing_ok=True)
    place.symlink_to("/dev/null")


def main() -> None:
    """Links for systemd's generator to copy, a line in inittab, and insserv, which works out the order of all scripts at once."""
    graphs = sorted(HOME.glob("native-*"))
    for graph in graphs:
        wants = graph / "multi-user.target.wants"
        others = HOME / graph.name.replace("native", "masked")
        wants.mkdir()
        others.mkdir()
        for unit in graph.glob("*.service"):
            (wants / unit.name).symlink_to(f"../{unit.name}")
        for unit in (unit for other in graphs if other != graph for unit in other.glob("*.service")):
            masked(others / unit.name)
    for name in MASKED:
        masked(UNITS / name)
    scripts = sorted(Path("/etc/init.d").glob("lab-*"))
    for script in [*scripts, Path("/etc/systemd/system-generators/bootlab")]:
        script.chmod(0o755)
    with Path("/etc/inittab").open("a") as inittab:
        inittab.write(INITTAB)
    present = [name for name in SCRIPTS if Path("/etc/init.d", name).exists()]
    with (HOME / "insserv.log").open("w") as log:
        subprocess.run(["insserv", "--force", "--remove", *present], stderr=log, check=True)
        subprocess.run(["insserv", *(script.name for script in scripts)], stderr=log, check=True)


main()
