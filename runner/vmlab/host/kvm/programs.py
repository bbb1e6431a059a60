"""What the guest executes: six programs of a few instructions, in 64-bit mode at privilege level 0.

Each runs RCX times around its loop and ends in HLT, which ends KVM_RUN (with KVM's own interrupt controller left out, HLT is an exit to
the program that holds /dev/kvm). Encodings: Intel SDM volume 2, AMD APM volume 3.
"""

from __future__ import annotations


def _assembled(*instructions: tuple[str, str]) -> bytes:
    """The bytes of (encoding in hexadecimal, what it says) pairs."""
    return bytes.fromhex("".join(encoding for encoding, _ in instructions))


COMPUTE = _assembled(
    ("48 ff c0", "again: inc rax"),
    ("e2 fb", "loop again"),
    ("f4", "hlt"),
)
"""Nothing that a hypervisor need ever see."""

TOUCH = _assembled(
    ("48 89 0f", "again: mov [rdi], rcx"),
    ("48 81 c7 00 10 00 00", "add rdi, 4096"),
    ("e2 f4", "loop again"),
    ("f4", "hlt"),
)
"""Write one word into each page from RDI on."""

REMAP = _assembled(
    ("48 89 06", "again: mov [rsi], rax      ; the page-table entry at RSI now maps the other page"),
    ("0f 01 3f", "invlpg [rdi]               ; forget the old translation"),
    ("48 8b 17", "mov rdx, [rdi]             ; read through the new one"),
    ("49 01 d0", "add r8, rdx"),
    ("48 93", "xchg rax, rbx"),
    ("e2 f0", "loop again"),
    ("f4", "hlt"),
)
"""Map the page at RDI to the entries RAX and RBX in turn, through the guest's own page table, and add up what is read."""

RELOAD_CR3 = _assembled(
    ("0f 20 d8", "again: mov rax, cr3"),
    ("0f 22 d8", "mov cr3, rax"),
    ("e2 f8", "loop again"),
    ("f4", "hlt"),
)
"""What a kernel does at each switch between processes."""

FAULT = _assembled(
    ("48 c7 06 00 00 00 00", "again: mov qword [rsi], 0  ; not present"),
    ("0f 01 3f", "invlpg [rdi]"),
    ("48 8b 17", "mov rdx, [rdi]             ; page fault: the handler below maps the page"),
    ("49 01 d0", "add r8, rdx"),
    ("e2 ee", "loop again"),
    ("f4", "hlt"),
)
"""Unmap the page at RDI and read it, so that the guest takes a page fault of its own each time."""

FAULT_HANDLER = _assembled(
    ("48 83 c4 08", "add rsp, 8                 ; drop the error code"),
    ("48 89 06", "mov [rsi], rax             ; map the page"),
    ("49 ff c1", "inc r9"),
    ("48 cf", "iretq"),
)
"""The guest's handler of vector 14."""

LOAD = _assembled(
    ("48 8b 07", "mov rax, [rdi]"),
    ("f4", "hlt"),
)
"""One load, and so one walk of the page tables."""
