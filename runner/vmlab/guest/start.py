"""A guest for a lab, the quick way if that works and the long way if not: cloned from a template, or booted."""

from __future__ import annotations

import contextlib
import dataclasses

from vmlab.errors import RunError, TemplateError
from vmlab.guest.boot import boot_into
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.clone.template import Template, clone
from vmlab.guest.machine import BootRequest, Machine
from vmlab.guest.setting import Setting

# No guest of ours boots slower than this even on a loaded machine under emulation; a start that takes longer hangs.
START_LIMIT_S = 400.0
# A clone is there in a second, and in ten on a crowded machine. One that needs longer than this hangs.
CLONE_LIMIT_S = 60.0


def start(stack: contextlib.ExitStack, request: BootRequest, setting: Setting, templates: TemplateStore | None) -> Machine:
    """A guest that is ready, ended with the stack. Without ``templates`` it is booted.

    A clone that fails drops its template, and the guest is booted instead; its ``birth`` says why. Raises what a boot does.
    """
    why = ""
    if templates is not None:
        request = with_machine_type(request, templates)
        found: Template | None = None
        try:
            found = templates.get(request, setting)
            return stack.enter_context(clone(found, request, templates.host, setting.within(CLONE_LIMIT_S)))
        except TemplateError as exc:
            why = exc.message
        except OSError as exc:
            # A file of the template vanished between the look at it and its use.
            why = f"the template cannot be read: {exc}"
        except RunError as exc:
            # Without a template the guest did not even boot, and will not at a second try.
            if found is None:
                raise
            why = f"{exc.kind}: {exc.message}"
        if found is not None:
            templates.drop(found)
    with setting.progress.phase(f"Booting it instead of cloning it: {why[:160]}") if why else contextlib.nullcontext():
        return boot_into(stack, request, setting, fallback=why)


def with_machine_type(request: BootRequest, templates: TemplateStore) -> BootRequest:
    """The request for a machine that stays the same in later versions of QEMU, as a template needs it."""
    return dataclasses.replace(request, machine_type=templates.host.machine_type)
