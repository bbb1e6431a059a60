"""What SysV init would read and do, as its files say: prints one JSON object."""

import subprocess
from pathlib import Path

from vmlab_guest.say import say

RUNLEVELS = "0123456"
DEPENDENCIES = (".depend.boot", ".depend.start", ".depend.stop")


def links(runlevel: str) -> list[dict[str, str]]:
    """The links of one runlevel's directory in the order in which the shell sees them: their names sorted."""
    found = sorted(path for path in Path(f"/etc/rc{runlevel}.d").iterdir() if path.name[0] in "SK" and path.name[1:3].isdigit())
    return [{"name": path.name, "target": str(path.readlink()) if path.is_symlink() else ""} for path in found]


def version(package: str) -> str:
    """The version of an installed package; empty when it is not installed."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    """Read and print."""
    inittab = Path("/etc/inittab").read_text().splitlines()
    rc = Path("/etc/init.d/rc").read_text() + Path("/lib/init/rc").read_text()
    say(
        {
            "inittab": [line for line in inittab if line.strip() and not line.startswith("#")],
            "links": {runlevel: links(runlevel) for runlevel in RUNLEVELS},
            "depend_bytes": {name: path.stat().st_size if path.exists() else 0 for name, path in depend_files()},
            "legacy_bootordering": Path("/etc/init.d/.legacy-bootordering").exists(),
            "startpar_call": next((line.strip() for line in rc.splitlines() if "startpar -p" in line), ""),
            "versions": {name: version(name) for name in ("sysvinit-core", "sysv-rc", "insserv", "startpar", "systemd")},
        }
    )


def depend_files() -> list[tuple[str, Path]]:
    """The files by which startpar knows the order; without any of them the boot falls back to one after the other."""
    return [(name, Path("/etc/init.d", name)) for name in DEPENDENCIES]


main()
