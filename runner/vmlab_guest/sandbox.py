"""The world that a student's program runs in: what it sees, who it is there, and what it may take.

Its root is a file system in memory, made anew for each start. In it are the system's programs and settings, read-only; a home with copies
of the program's files, /tmp, /var/tmp and /dev/shm, which may be written to and have one limit together; a /proc that shows the program's
own processes alone; and a handful of devices. What is not listed here is not there: no /run, no /root, no /sys, no disk. Mount, PID, IPC
and network namespaces are its own; nothing in its network is up.
"""

import fcntl
import os
import pwd
import resource

from vmlab_guest import syscalls
from vmlab_guest.cgroup import Cgroup, is_v2
from vmlab_guest.child import become

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USER = "student"
"""Who the program runs as: a user of its own, without a password, without sudo, without a key for SSH."""
HOME = f"/home/{USER}"
SUPPORT = "/run/support"
"""Where files of ours lie in its world, root's and for reading: what makes Python print line by line, the frame of a C program."""

_FIRST_UID = 2000
# Where the new root is put together (in a mount namespace of its own, so that nobody else sees it), and the world within it.
_BASE, _WORLD = "/mnt", "/world"
# The top directories of the system that a program needs; where /usr is merged, most of them are links into it, which are made again.
_SYSTEM = ("usr", "etc", "bin", "sbin", "lib", "lib64", "opt")
# The devices of the kernel's Documentation/admin-guide/devices.txt that every program may expect, by their minor numbers (major 1).
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_CHARACTER_DEVICE = 0o020000
# Files, directories and links that it may make beside those it is given: 1 KiB of the kernel's memory each.
_INODES = 4096
# linux/keyctl.h
_JOIN_SESSION_KEYRING, _CLEAR_KEYRING, _USER_KEYRINGS = 1, 7, (-4, -5)
# The lab's script, sshd and whatever else the guest does have 100: together they get five sixths of a processor that all want.
_CPU_WEIGHT = 20


class Limits:
    """What a program may take: seconds by the clock, MiB of memory, KiB that it prints, processes and threads at a time."""

    def __init__(self, limits: "Mapping[str, int | float]") -> None:
        self.told = {name: limits[name] for name in ("time_s", "memory_mib", "output_kib", "processes")}
        self.time_s = float(limits["time_s"])
        self.memory_bytes = int(limits["memory_mib"]) << 20
        self.output_bytes = int(limits["output_kib"]) << 10
        self.processes = int(limits["processes"])

    @property
    def disk_bytes(self) -> int:
        """What it may write to files: they are in memory, count as such, and leave it the other half."""
        return self.memory_bytes // 2

    def impose(self, group: Cgroup) -> None:
        """Give a group these limits."""
        group.set("pids.max", self.processes)
        group.set("memory.max", self.memory_bytes)
        if os.path.exists(f"{group.path}/memory.swap.max"):
            group.set("memory.swap.max", 0)
        # (Else the kernel would take one process after the other, and each time another one would grow.)
        group.set("memory.oom.group", 1)
        group.set("cpu.weight", _CPU_WEIGHT)


class Order:
    """What is to be started: the words of the command, the files in its home, files for `SUPPORT`, its limits, and whether as root.

    ``given`` are files or directories of the guest that it finds in its home as well, by their names there: not copied, and for reading.
    """

    def __init__(self, argv: "Sequence[str]", files: "Mapping[str, bytes]", limits: Limits, *, as_root: bool = False) -> None:
        self.argv = list(argv)
        self.files = dict(files)
        self.support: dict[str, bytes] = {}
        self.given: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.stdin: bytes | None = b""
        self.limits = limits
        self.as_root = as_root
        self.subreaper = False


def require_cgroups() -> None:
    """OSError unless the system has control groups that can hold a program: v2, in the usual place."""
    if not is_v2():
        raise OSError(95, "a student's program is held by cgroup v2, which this guest has not mounted at /sys/fs/cgroup")  # EOPNOTSUPP


# --- the user ---------------------------------------------------------------------------------------------------------------------


def student_uid() -> int:
    """The number of the user `USER`, who is made when there is none. (By hand: useradd takes half a second in an emulated guest.)"""
    try:
        return pwd.getpwnam(USER).pw_uid
    except KeyError:
        pass
    with open("/etc/.pwd.lock", "w") as lock:  # lckpwdf(3)
        fcntl.lockf(lock, fcntl.LOCK_EX)
        taken = {each.pw_uid for each in pwd.getpwall()}
        if any(each.pw_name == USER for each in pwd.getpwall()):
            return pwd.getpwnam(USER).pw_uid
        uid = next(number for number in range(_FIRST_UID, 60000) if number not in taken)
        # An asterisk is the hash of no password (shadow(5)).
        _append("/etc/group", f"{USER}:x:{uid}:")
        _append("/etc/gshadow", f"{USER}:!::")
        _append("/etc/shadow", f"{USER}:*:20000:0:99999:7:::")
        _append("/etc/passwd", f"{USER}:x:{uid}:{uid}::{HOME}:/bin/sh")
    return uid


def _append(path: str, line: str) -> None:
    if os.path.exists(path):
        with open(path, "a") as file:
            file.write(line + "\n")


# --- the world --------------------------------------------------------------------------------------------------------------------


class World:
    """Where the program finds itself. `make` it once as its PID 1, `enter` it as the program.

    ``proc`` is where its PID 1 finds its /proc, ``disk`` what it writes to.
    """

    def __init__(self, order: Order, label: str) -> None:
        self.order = order
        self.uid = 0 if order.as_root else student_uid()
        self.home, self.support = HOME, SUPPORT
        self.proc, self.disk = f"{_WORLD}/proc", "/"
        if order.as_root:
            self.home = f"/run/{label}-{os.getpid()}"
            self.support = f"{self.home}-support"
            self.proc, self.disk = "/proc", "/run"

    def variables(self) -> dict[str, str]:
        """The program's environment: nothing is inherited."""
        root = self.order.as_root
        who = "root" if root else USER
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" if root else "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/root" if root else HOME,
            "USER": who,
            "LOGNAME": who,
            "LANG": "C.UTF-8",
            **{name: value.replace(SUPPORT, self.support) for name, value in self.order.environment.items()},
        }

    def make(self) -> None:
        """Make it, in namespaces of the caller's own. A program of root's is in the guest as it is, and only its directory is made."""
        if self.order.as_root:
            # (So that what it leaves without a parent is reaped here, and counted as its own.)
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
            os.umask(0o022)
            for directory, files in ((self.home, self.order.files), (self.support, self.order.support)):
                os.mkdir(directory, 0o700)
                self._write(files, directory)
            for name, path in self.order.given.items():
                os.symlink(path, f"{self.home}/{name}")
            return
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET)
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        # (Opened before anything is covered, and in this namespace: what is another's cannot be mounted here.)
        given = {name: os.open(path, os.O_PATH | os.O_CLOEXEC) for name, path in self.order.given.items()}
        os.umask(0)
        size = self.order.limits.disk_bytes + sum(len(content) + 4096 for content in self.order.files.values())
        options = f"mode=755,size={size},nr_inodes={_INODES + len(self.order.files) + len(given)}"
        syscalls.mount("tmpfs", _BASE, "tmpfs", syscalls.MS_NOSUID, options)
        self._furnish(_BASE + _WORLD, given)
        syscalls.pivot_root(_BASE)
        os.umask(0o022)

    def _furnish(self, root: str, given: "Mapping[str, int]") -> None:
        closed = syscalls.MS_NOSUID | syscalls.MS_NODEV
        for path in ("", "/proc", "/dev", "/home", "/run", "/var", SUPPORT):
            os.mkdir(root + path, 0o755)
        for path in ("/dev/shm", "/tmp", "/var/tmp"):
            os.mkdir(root + path, 0o1777)
        os.mkdir(root + HOME, 0o700)
        for name in _SYSTEM:
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
            elif os.path.isdir(f"/{name}"):
                os.mkdir(f"{root}/{name}", 0o755)
                _show(f"/{name}", f"{root}/{name}", closed)
        for name, minor in _DEVICES.items():
            os.mknod(f"{root}/dev/{name}", _CHARACTER_DEVICE | 0o666, os.makedev(1, minor))
        for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
            os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
        self._write(self.order.files, root + HOME)
        self._write(self.order.support, root + SUPPORT, owner=0)
        os.chown(root + HOME, self.uid, self.uid)
        for name, descriptor in given.items():
            source, target = f"/proc/self/fd/{descriptor}", f"{root}{HOME}/{name}"
            if os.path.isdir(source):
                os.mkdir(target, 0o755)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            _show(source, target, closed)
        # Else /proc/1 would tell it the command line of the lab's script, whose copy its PID 1 is: proc(5), hidepid.
        syscalls.mount("proc", f"{root}/proc", "proc", closed | syscalls.MS_NOEXEC, "hidepid=2")

    def _write(self, files: "Mapping[str, bytes]", directory: str, owner: int | None = None) -> None:
        owner = self.uid if owner is None else owner
        for name, content in files.items():
            path = f"{directory}/{name}"
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            # What is machine code is to be run; all else is read by what runs it.
            mode = 0o755 if content.startswith(b"\x7fELF") else 0o644
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                file.write(content)
                os.fchown(descriptor, owner, owner)

    def remove(self) -> None:
        """Remove what does not go by itself: the directories of a program of root's."""
        if self.order.as_root:
            for top in (self.home, self.support):
                for directory, folders, files in os.walk(top, topdown=False):
                    for name in files:
                        os.unlink(f"{directory}/{name}")
                    for name in folders:
                        path = f"{directory}/{name}"
                        (os.unlink if os.path.islink(path) else os.rmdir)(path)
                    if directory == top:
                        os.rmdir(top)

    def enter(self) -> None:
        """Be in it for good, as an ordinary process of its user: what the lab's script may be (real-time, pinned) is not inherited."""
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # (A guest that runs out of memory as a whole takes the program first. And nothing that was exempt stays so.)
        with open(f"{self.proc}/self/oom_score_adj", "w") as file:
            file.write("500")
        if not self.order.as_root:
            # In a changed root nobody may make a user namespace (user_namespaces(7)), and be root there.
            os.chroot(_WORLD)
            become(self.uid)
            _forget_keys()
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if self.order.subreaper:
            # (It is kept across execve; children do not inherit it.)
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        os.chdir(self.home)


def _forget_keys() -> None:
    """Let go of the script's keyring, and empty those of the user (keyrings(7)): they live on in the kernel, from one start to the next."""
    try:
        syscalls.syscall("keyctl", _JOIN_SESSION_KEYRING, None)
        for ring in _USER_KEYRINGS:
            syscalls.syscall("keyctl", _CLEAR_KEYRING, ring)
    except OSError:
        return  # (A kernel without them.)


def _show(source: str, target: str, flags: int) -> None:
    """Have a file or directory at another place too, for reading. (Only a second call makes a bind mount read-only, see mount(2).)"""
    syscalls.mount(source, target, flags=syscalls.MS_BIND)
    syscalls.mount("none", target, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | flags)
