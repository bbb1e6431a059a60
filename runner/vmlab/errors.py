"""The errors that a person may see, as one small tree.

    VmlabError                 message (what is wrong) + hint (what to do) + exit_code
    ├── UsageError             2  the user asked for something that cannot be
    └── RunError               3  ours or the machine's; never the student's work
        ├── HostError             this machine lacks something (QEMU, disk space, memory)
        ├── ImageError            an image cannot be built, found or trusted
        ├── GuestError            the guest did not do what every guest must
        │   ├── BootTimeout          a step of readiness did not come true in time
        │   ├── GuestPanicked        the guest's kernel panicked
        │   ├── GuestExited          QEMU ended although nobody asked it to
        │   ├── GuestEnded           the guest ended as the experiment wanted, and is asked for something more
        │   ├── Unsuitable           what the lab would show is not observable in this guest
        │   │   ├── UnsuitableImage     its image lacks a program
        │   │   └── UnsuitableProcessor its processor lacks a feature
        │   └── TemplateError        a booted guest cannot be saved, or none can be cloned from what was saved
        ├── SshError              the connection failed or was lost
        │   └── StrangerError         something else than our guest answers
        └── ScriptError           a guest script crashed, hung, or broke its protocol

A traceback is a bug of ours. Everything else is one of these: one line that says what is wrong, one that says what to do.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_COULD_NOT_RUN = 3


class VmlabError(Exception):
    """An error with words for the person who meets it.

    ``message`` says what is wrong in one line, ``hint`` what to do about it in one line, ``detail`` holds longer evidence (a
    console's tail, a command's output) that is shown below both.
    """

    exit_code: ClassVar[int] = EXIT_COULD_NOT_RUN
    default_hint: ClassVar[str] = "try it again; `vmlab doctor` looks at what this machine lacks"

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.detail = detail

    @property
    def kind(self) -> str:
        """The class name, for reports and tests: stable where messages are not."""
        return type(self).__name__


class UsageError(VmlabError):
    """The user asked for something that cannot be: an unknown lab, a malformed file, a guest larger than the host."""

    exit_code = EXIT_USAGE
    default_hint = "correct it, then run the same command again"


class RunError(VmlabError):
    """The run could not be carried out, by a fault of ours or of the machine."""


class HostError(RunError):
    """This machine lacks something: a program, disk space, memory, a permission."""


class ImageError(RunError):
    """An image cannot be built, found or trusted."""


class GuestError(RunError):
    """The guest did not do what every guest must."""


class BootTimeout(GuestError):
    """A step of readiness did not come true in time; the message names the step."""


class GuestPanicked(GuestError):
    """The guest's kernel panicked; ``detail`` is the console's tail."""


class GuestExited(GuestError):
    """QEMU ended although nobody asked it to; ``detail`` is its output and the console's tail."""


class GuestEnded(GuestError):
    """The guest has ended, as the experiment wanted it to, and was asked for something more."""


class Unsuitable(GuestError):
    """The guest lacks what the lab needs: what the lab would show is not observable in it."""


class UnsuitableImage(Unsuitable):
    """The image lacks a program."""


class UnsuitableProcessor(Unsuitable):
    """The accelerator cannot give it a processor with the features that lab.yaml asks for."""


class TemplateError(GuestError):
    """A booted guest could not be saved, or a clone of it did not come to life: reason enough for a cold boot, not for giving up."""


class SshError(RunError):
    """The SSH connection could not be made or was lost: never a failed check."""


class StrangerError(SshError):
    """What answers has another host key than our guest was given."""

    default_hint = "another program took the guest's port, or the image's cloud-init ignored ssh_keys"


class ScriptError(RunError):
    """A guest script crashed, hung, said nothing, or printed what is not JSON lines."""
