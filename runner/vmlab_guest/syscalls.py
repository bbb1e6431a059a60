"""System calls by name through ctypes, errors as OSError: clone, kcmp, unshare, setns, prctl, ptrace, sched_*, cachestat, membarrier.

Only this module (and what needs addresses of memory) pays the 26 ms that ctypes takes to import in an emulated guest. What Python itself
has is not here (os.memfd_create, os.pidfd_open, os.sched_setaffinity); os.unshare and os.setns came with Python 3.12, and Debian 12 has
3.11.
"""

import ctypes
import mmap
import os

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from typing import Self

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Those of x86-64 by arch/x86/entry/syscalls/syscall_64.tbl; those of arm64 and riscv64 by include/uapi/asm-generic/unistd.h. From 424 on
# all architectures have the same.
_SHARED = {
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "futex_waitv": 449,
    "cachestat": 451,
}
_X86_64 = {
    "mincore": 27,
    "madvise": 28,
    "getpid": 39,
    "clone": 56,
    "exit": 60,
    "ptrace": 101,
    "syslog": 103,
    "setuid": 105,
    "setgid": 106,
    "setresuid": 117,
    "pivot_root": 155,
    "prctl": 157,
    "gettid": 186,
    "tkill": 200,
    "futex": 202,
    "tgkill": 234,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "sched_setattr": 314,
    "sched_getattr": 315,
    "memfd_create": 319,
    "userfaultfd": 323,
    "membarrier": 324,
}
_GENERIC = {
    "pivot_root": 41,
    "exit": 93,
    "unshare": 97,
    "futex": 98,
    "syslog": 116,
    "ptrace": 117,
    "tkill": 130,
    "tgkill": 131,
    "setgid": 144,
    "setuid": 146,
    "setresuid": 147,
    "prctl": 167,
    "getpid": 172,
    "gettid": 178,
    "keyctl": 219,
    "clone": 220,
    "mincore": 232,
    "madvise": 233,
    "perf_event_open": 241,
    "name_to_handle_at": 264,
    "open_by_handle_at": 265,
    "setns": 268,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "kcmp": 272,
    "sched_setattr": 274,
    "sched_getattr": 275,
    "memfd_create": 279,
    "userfaultfd": 282,
    "membarrier": 283,
}
NUMBERS: dict[str, int] = {
    **_SHARED,
    **{"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}.get(os.uname().machine, {}),
}
"""The numbers of this machine's system calls by name; of an architecture that is not listed, those that all have."""

# linux/sched.h
CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND = 0x100, 0x200, 0x400, 0x800
CLONE_PTRACE, CLONE_VFORK, CLONE_PARENT, CLONE_THREAD = 0x2000, 0x4000, 0x8000, 0x10000
CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000

STACK_BYTES = 1 << 16
SIGCHLD = 17  # Of x86, arm and riscv, signal(7).

_stacks: dict[int, mmap.mmap] = {}


def failed(what: str) -> OSError:
    """The error that the C library has noted, as the OSError that Python makes of its number (PermissionError and so on)."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """A system call by its name, as syscall(2) makes it; what it returns.

    A number is handed on as 64 bits; a buffer or a structure by its address. OSError when it fails, ENOSYS where its number is not known.
    """
    if name not in NUMBERS:
        raise OSError(38, f"{name}: its number on {os.uname().machine} is not known here")  # ENOSYS
    words = [
        ctypes.c_long(each) if isinstance(each, int) else ctypes.byref(each) if isinstance(each, ctypes.Structure) else each
        for each in arguments
    ]
    result: int = libc.syscall(ctypes.c_long(NUMBERS[name]), *words)
    if result == -1:
        raise failed(name)
    return result


# --- processes --------------------------------------------------------------------------------------------------------------------


def clone(flags: int = 0, body: str | int = "getpid", argument: int = 0) -> int:
    """Make a process or thread that runs no Python, so that two such calls differ in their ``flags`` alone; its process id.

    ``body`` is a function of the C library by name, or the address of one (of machine code, see `vmlab_guest.native`); the child ends
    with what it returns as its exit status. SIGCHLD is added, so that waitpid reaps it, but for a CLONE_THREAD, which ends on its own.
    Its stack is kept until `forget` or for ever: with CLONE_VM it is in use as long as the child is. See clone(2).
    """
    address = body if isinstance(body, int) else ctypes.cast(getattr(libc, body), ctypes.c_void_p).value
    stack = mmap.mmap(-1, STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + STACK_BYTES
    signals = 0 if flags & CLONE_THREAD else SIGCHLD
    pid: int = libc.clone(ctypes.c_void_p(address), ctypes.c_void_p(top), ctypes.c_int(flags | signals), ctypes.c_void_p(argument))
    if pid == -1:
        raise failed("clone")
    _stacks[pid] = stack
    return pid


def forget(pid: int) -> None:
    """Give back the stack of a `clone` that has ended."""
    _stacks.pop(pid, None)


def exit_thread(status: int = 0) -> None:
    """End this thread alone, by the system call exit; that is what pthread_exit comes down to. (exit_group, which exit(3) uses, ends all.)

    It does not return. ctypes lets the other threads run meanwhile. Python does not know that this one is gone.
    """
    syscall("exit", status)


def gettid() -> int:
    """The number of this thread, as the kernel has it."""
    return syscall("gettid")


def thread_pointer() -> int:
    """The base of this thread's FS segment: on x86-64, the C library's pthread_self() is exactly that (System V ABI, thread-local storage).

    By it the host finds the thread from outside (``guest.memory.frozen_in``). A forked child has its parent's.
    """
    libc.pthread_self.restype = ctypes.c_ulong
    return int(libc.pthread_self())


KCMP = {"FILE": 0, "VM": 1, "FILES": 2, "FS": 3, "SIGHAND": 4, "IO": 5, "SYSVSEM": 6}
"""What kcmp(2) compares (linux/kcmp.h). IO is the same for all who did no I/O of their own: it says nothing."""


def kcmp(pid: int, other: int, kind: str, descriptor: int = 0, others: int = 0) -> int:
    """How the kernel's objects behind two tasks compare, see `KCMP`: 0 the same; 1, 2 or 3 different (an order, which says no more).

    For FILE: ``descriptor`` of the one task and ``others`` of the other. OSError EPERM without the right to trace both.
    """
    return syscall("kcmp", pid, other, KCMP[kind], descriptor, others)


def same(pid: int, other: int, kind: str) -> bool:
    """Whether two tasks share one object: their memory (VM), their table of descriptors (FILES), handlers (SIGHAND), directory (FS)."""
    return kcmp(pid, other, kind) == 0


def same_file(pid: int, descriptor: int, other: int, others: int) -> bool:
    """Whether a descriptor of one task and one of another lead to the same open file description, and so to one offset."""
    return kcmp(pid, other, "FILE", descriptor, others) == 0


# --- namespaces -------------------------------------------------------------------------------------------------------------------


def unshare(flags: int) -> None:
    """Leave what is shared, see unshare(2). With CLONE_NEWPID it is the *next child* that is in the new namespace, as its PID 1."""
    if libc.unshare(ctypes.c_int(flags)) != 0:
        raise failed("unshare")


def setns(descriptor: int, kind: int = 0) -> None:
    """Join the namespace that an open file of /proc/PID/ns leads to, see setns(2). Of a PID namespace: the next child does."""
    if libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)) != 0:
        raise failed("setns")


MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
"""Of mount(2)."""


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, see mount(2)."""
    words = [word.encode() or None for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None) != 0:
        raise failed(f"mount {target}")


def umount(target: str, *, lazily: bool = False) -> None:
    """Unmount; ``lazily``: at once for those who look, and in truth when nobody uses it any more (MNT_DETACH)."""
    if libc.umount2(target.encode(), ctypes.c_int(2 if lazily else 0)) != 0:
        raise failed(f"umount {target}")


def pivot_root(new_root: str) -> None:
    """Make a mount the root of the caller's mount namespace, and let go of the one that was: nothing leads there any more.

    With the same directory twice the old root lies on the new one, and is unmounted from it, see pivot_root(2).
    """
    os.chdir(new_root)
    syscall("pivot_root", b".", b".")
    umount(".", lazily=True)
    os.chdir("/")


# --- prctl ------------------------------------------------------------------------------------------------------------------------

# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME = 1, 4, 15, 16
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_THP_DISABLE = 36, 37, 38, 41


def prctl(option: int, argument: int = 0, *more: int) -> int:
    """prctl(2): what it returns, or OSError. For options whose arguments are numbers."""
    words = [ctypes.c_ulong(each) for each in (argument, *more, 0, 0, 0)[:4]]
    result: int = libc.prctl(ctypes.c_int(option), *words)
    if result == -1:
        raise failed("prctl")
    return result


def is_subreaper() -> bool:
    """Whether this process adopts the orphans below it."""
    value = ctypes.c_int()
    if libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0) != 0:
        raise failed("prctl")
    return bool(value.value)


# --- ptrace -----------------------------------------------------------------------------------------------------------------------

# linux/ptrace.h and sys/user.h; the layout of the registers is that of x86-64.
PTRACE_PEEKDATA, PTRACE_POKEDATA, PTRACE_POKEUSER, PTRACE_CONT = 2, 5, 6, 7
PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_ATTACH, PTRACE_DETACH = 9, 12, 13, 16, 17
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000
"""__WALL of waitpid(2): without it waitpid does not see threads."""

REGISTERS = (  # noqa: SIM905  (struct user_regs_struct of sys/user.h, x86-64, in its order.)
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()


class Registers(ctypes.Structure):
    """struct user_regs_struct."""

    _fields_ = [(name, ctypes.c_ulong) for name in REGISTERS]


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """One request of ptrace(2), on the library's function (so PEEK returns the word). Only the thread that attached may make the others."""
    libc.ptrace.restype = ctypes.c_long
    ctypes.set_errno(0)
    result: int = libc.ptrace(ctypes.c_int(request), ctypes.c_int(pid), ctypes.c_void_p(address), ctypes.c_void_p(data))
    if result == -1 and ctypes.get_errno():
        raise failed("ptrace")
    return result


def registers(pid: int) -> dict[str, int]:
    """The registers of a task that is stopped for us, by name (x86-64)."""
    found = Registers()
    ptrace(PTRACE_GETREGS, pid, 0, ctypes.addressof(found))
    return {name: int(getattr(found, name)) for name in REGISTERS}


def set_registers(pid: int, changed: dict[str, int]) -> None:
    """Give some registers of a task that is stopped for us other values."""
    all_of_them = Registers(**{**registers(pid), **changed})
    ptrace(PTRACE_SETREGS, pid, 0, ctypes.addressof(all_of_them))


class Traced:
    """A task that this thread traces, for the block: seized, not stopped until `stop` says so, and let go when the block is left."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self) -> "Self":
        ptrace(PTRACE_SEIZE, self.pid)
        self._stopped = False
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._stopped:
                self.stop()
            ptrace(PTRACE_DETACH, self.pid)
        except (ProcessLookupError, ChildProcessError):
            pass  # (It has ended meanwhile.)

    def stop(self) -> int:
        """Stop it, wherever it is, and wait until it has stopped; the status that waitpid gave."""
        ptrace(PTRACE_INTERRUPT, self.pid)
        return self._wait()

    def step(self) -> int:
        """Let it run one instruction, and wait until it has; the status that waitpid gave."""
        ptrace(PTRACE_SINGLESTEP, self.pid)
        return self._wait()

    def go_on(self) -> None:
        """Let it run."""
        ptrace(PTRACE_CONT, self.pid)
        self._stopped = False

    def _wait(self) -> int:
        _, status = os.waitpid(self.pid, WALL)
        self._stopped = os.WIFSTOPPED(status)
        if not self._stopped:
            raise ChildProcessError(10, f"the task {self.pid} has ended")  # ECHILD
        return status


# --- scheduling -------------------------------------------------------------------------------------------------------------------


class SchedAttr(ctypes.Structure):
    """struct sched_attr of linux/sched/types.h, in its first form (48 bytes)."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    ]


def sched_getattr(pid: int = 0) -> dict[str, int]:
    """How a task is scheduled, see sched_getattr(2): policy, nice, priority; runtime, deadline and period in nanoseconds."""
    found = SchedAttr()
    syscall("sched_getattr", pid, found, ctypes.sizeof(found), 0)
    return {name.removeprefix("sched_"): int(getattr(found, name)) for name, *_ in SchedAttr._fields_ if name != "size"}


def sched_setattr(pid: int = 0, **wanted: int) -> None:
    """Schedule a task otherwise: what is not ``wanted`` stays. ``sched_setattr(0, policy=6, runtime=..., deadline=..., period=...)``."""
    values = {f"sched_{name}": value for name, value in {**sched_getattr(pid), **wanted}.items()}
    syscall("sched_setattr", pid, SchedAttr(size=ctypes.sizeof(SchedAttr), **values), 0)


# --- memory -----------------------------------------------------------------------------------------------------------------------

MEMBARRIER_CMD_GLOBAL = 1


def wait_for_grace_period() -> bool:
    """Wait until every CPU has passed a quiescent state, by membarrier(2); false where the kernel has no such command.

    What the kernel frees "later" (RCU: stacks of the dead, dentries) is freed after such a period: kernel/sched/membarrier.c calls
    synchronize_rcu for MEMBARRIER_CMD_GLOBAL.
    """
    try:
        syscall("membarrier", MEMBARRIER_CMD_GLOBAL, 0, 0)
    except OSError:
        return False
    return True


class CachestatRange(ctypes.Structure):
    """struct cachestat_range of linux/mman.h."""

    _fields_ = [("off", ctypes.c_uint64), ("len", ctypes.c_uint64)]


class Cachestat(ctypes.Structure):
    """struct cachestat of linux/mman.h: pages."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def cachestat(descriptor: int, offset: int = 0, length: int = 0) -> dict[str, int]:
    """How many pages of a file's extent (``length`` 0: to its end) are in the page cache, dirty, and so on, by name.

    Linux 6.5 and later; OSError ENOSYS before (Debian 12 has 6.1). See `vmlab_guest.pages.cached`, which has a way for those too.
    """
    found = Cachestat()
    syscall("cachestat", descriptor, CachestatRange(offset, length), found, 0)
    return {name: int(getattr(found, name)) for name, *_ in Cachestat._fields_}
