"""Machine code with its assembly beside it, for what Python would hide: loops that never enter the kernel, stores cut in two.

x86-64 alone (`available`). Each routine takes two numbers (rdi and rsi of the System V calling convention) and returns one (rax). While
it runs, other threads of this Python run too: ctypes gives up the interpreter's lock. A routine that waits for a word in memory needs
somebody to store it; one that counts rsi down wants 1 at least.

Under TCG an interrupt comes between translation blocks alone, which end at jumps: on one emulated CPU, `ADD` loses nothing for want of a
jump between its load and its store, and `ADD_APART` does. (On two, both lose.)
"""

import ctypes
import mmap
import os

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Line = tuple[str, str]
"""The bytes of an instruction in hexadecimal, and the instruction as Intel writes it; labels stand before it."""

# Count in rax until the word at [rdi] is not zero. Nothing here enters the kernel, so whoever runs it is preempted or runs on for ever.
SPIN: "Sequence[Line]" = (
    ("31c0", "xor eax, eax"),
    ("48ffc0", "again: inc rax"),
    ("48833f00", "cmp qword ptr [rdi], 0"),
    ("74f7", "je again"),
    ("c3", "ret"),
)

# Add one to the word at [rdi], rsi times, in three steps: two that do this at once lose some.
ADD: "Sequence[Line]" = (
    ("488b07", "again: mov rax, [rdi]"),
    ("48ffc0", "inc rax"),
    ("488907", "mov [rdi], rax"),
    ("48ffce", "dec rsi"),
    ("75f2", "jne again"),
    ("c3", "ret"),
)

# The same with a jump between load and store, where an emulator can interrupt too.
ADD_APART: "Sequence[Line]" = (
    ("488b07", "again: mov rax, [rdi]"),
    ("48ffc0", "inc rax"),
    ("eb00", "jmp store"),
    ("488907", "store: mov [rdi], rax"),
    ("48ffce", "dec rsi"),
    ("75f0", "jne again"),
    ("c3", "ret"),
)

# The same in one instruction, which two processors can still interleave.
ADD_IN_ONE: "Sequence[Line]" = (
    ("48ff07", "again: inc qword ptr [rdi]"),
    ("48ffce", "dec rsi"),
    ("75f8", "jne again"),
    ("488b07", "mov rax, [rdi]"),
    ("c3", "ret"),
)

# The same, and no other processor comes between: nothing is lost.
ADD_LOCKED: "Sequence[Line]" = (
    ("f048ff07", "again: lock inc qword ptr [rdi]"),
    ("48ffce", "dec rsi"),
    ("75f7", "jne again"),
    ("488b07", "mov rax, [rdi]"),
    ("c3", "ret"),
)

# Store the number of the round at [rdi] in each of rsi rounds: how far it has come can be read there while it runs.
STORE: "Sequence[Line]" = (
    ("31c0", "xor eax, eax"),
    ("48ffc0", "again: inc rax"),
    ("488907", "mov [rdi], rax"),
    ("4839f0", "cmp rax, rsi"),
    ("75f5", "jne again"),
    ("c3", "ret"),
)

# Keep the marker rsi in rbx (which a function must give back as it was) and store rbx at [rdi + 8] until the word at [rdi] is not zero.
HOLD: "Sequence[Line]" = (
    ("53", "push rbx"),
    ("4889f3", "mov rbx, rsi"),
    ("48895f08", "again: mov [rdi + 8], rbx"),
    ("48833f00", "cmp qword ptr [rdi], 0"),
    ("74f6", "je again"),
    ("4889d8", "mov rax, rbx"),
    ("5b", "pop rbx"),
    ("c3", "ret"),
)

# rsi system calls getpid (39 in arch/x86/entry/syscalls/syscall_64.tbl): into the kernel and back, and hardly more. (syscall uses rcx and
# r11.)
GETPID: "Sequence[Line]" = (
    ("b827000000", "again: mov eax, 39"),
    ("0f05", "syscall"),
    ("48ffce", "dec rsi"),
    ("75f4", "jne again"),
    ("c3", "ret"),
)

# rsi system calls sched_yield (24): with another of the same real-time priority on the same CPU, rsi switches to it.
YIELD: "Sequence[Line]" = (
    ("b818000000", "again: mov eax, 24"),
    ("0f05", "syscall"),
    ("48ffce", "dec rsi"),
    ("75f4", "jne again"),
    ("c3", "ret"),
)

# The time stamp counter.
CLOCK: "Sequence[Line]" = (
    ("0f31", "rdtsc"),
    ("48c1e220", "shl rdx, 32"),
    ("4809d0", "or rax, rdx"),
    ("c3", "ret"),
)

ROUTINES = {
    "spin": SPIN,
    "add": ADD,
    "add_apart": ADD_APART,
    "add_in_one": ADD_IN_ONE,
    "add_locked": ADD_LOCKED,
    "store": STORE,
    "hold": HOLD,
    "getpid": GETPID,
    "yield": YIELD,
    "clock": CLOCK,
}


def available() -> bool:
    """Whether this machine runs what is here."""
    return os.uname().machine == "x86_64"


def code_of(lines: "Sequence[Line]") -> bytes:
    """The bytes of a routine."""
    return bytes.fromhex("".join(code for code, _ in lines))


class Routine:
    """Machine code in memory that may be executed: called as a function of two numbers. ``address`` and ``size`` tell where it is.

    ``Routine(native.SPIN)``, or one of a lab's own in the same form. Its memory is kept as long as the routine is. OSError elsewhere than
    on x86-64.
    """

    def __init__(self, lines: "Sequence[Line]") -> None:
        if not available():
            raise OSError(95, f"this is machine code of x86-64, and the machine is {os.uname().machine}")  # EOPNOTSUPP
        code = code_of(lines)
        self.size = len(code)
        self._memory = mmap.mmap(-1, -(-len(code) // mmap.PAGESIZE) * mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(code)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._function: Callable[[int, int], int] = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(self.address)

    def __call__(self, first: int = 0, second: int = 0) -> int:
        """Run it; what it returns, as a number without a sign."""
        return self._function(first, second)

    def holds(self, address: int) -> bool:
        """Whether an address, such as a task's program counter, is in it."""
        return self.address <= address < self.address + self.size


class Words:
    """Words of 64 bits in memory that a process shares with the children that it forks; ``address(place)`` is for routines."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * count)
        self._words = memoryview(self._memory).cast("Q")
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def __getitem__(self, place: int) -> int:
        return self._words[place]

    def __setitem__(self, place: int, value: int) -> None:
        self._words[place] = value

    def address(self, place: int = 0) -> int:
        """Where a word is."""
        return self._start + 8 * place
