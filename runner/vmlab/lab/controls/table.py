"""The controls of a lab's tests as a table: what is broken, which check must see it, and how it must come out.

The table is what tests are made of, and the proof that each check was seen to fail: a test of the proof runs a check's controls itself, so
that it holds when it is the only test that is run, and in whichever process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from vmlab.errors import UsageError
from vmlab.lab.controls.sound import Sound
from vmlab.lab.controls.world import World, put
from vmlab.lab.verdict import Verdict, VerdictKind

Breakage = Callable[[World], None]


@dataclass(frozen=True)
class Control:
    """One world that is changed in one way, and how a check must come out in it."""

    sound: Sound
    check: str
    kind: VerdictKind
    name: str
    changes: tuple[Breakage, ...]

    def __str__(self) -> str:
        return f"{self.check}-{self.name}"

    def hold(self) -> Verdict:
        """The check's verdict in this world. AssertionError unless it is as it must be, or when the changes change nothing."""
        world = self.sound.world()
        for change in self.changes:
            change(world)
        if world == self.sound.world():
            raise AssertionError(f"{self}: this changes nothing in the evidence")
        verdict = self.sound.verdict(self.check, *self.changes)
        if verdict.kind is not self.kind:
            raise AssertionError(f"{self.check} must come out as {self.kind} where {self.name}, and is {verdict.kind}: {verdict.rationale}")
        if not verdict.rationale:
            raise AssertionError(f"{self}: the verdict gives no reason")
        return verdict


class Controls(Collection[Control]):
    """The controls of a lab, to be gone through by a test: ``@pytest.mark.parametrize("control", CONTROLS, ids=str)``.

    UsageError for a check that the lab does not have, and for two controls of one check with one name.
    """

    def __init__(self, sound: Sound) -> None:
        self.sound = sound
        self._controls: dict[tuple[str, str], Control] = {}

    def __iter__(self) -> Iterator[Control]:
        return iter(self._controls.values())

    def __contains__(self, control: object) -> bool:
        return control in self._controls.values()

    def __len__(self) -> int:
        return len(self._controls)

    def fails(self, check: str, *changes: Breakage, name: str = "") -> None:
        """The check must fail when these changes are made."""
        self.expect(VerdictKind.FAIL, check, *changes, name=name)

    def passes(self, check: str, *changes: Breakage, name: str = "") -> None:
        """The check must pass all the same."""
        self.expect(VerdictKind.PASS, check, *changes, name=name)

    def is_inconclusive(self, check: str, *changes: Breakage, name: str = "") -> None:
        """The check must decide nothing."""
        self.expect(VerdictKind.INCONCLUSIVE, check, *changes, name=name)

    def is_not_observable(self, check: str, *changes: Breakage, name: str = "") -> None:
        """The check must say that such a run cannot show it."""
        self.expect(VerdictKind.NOT_OBSERVABLE, check, *changes, name=name)

    def bound(self, check: str, place: str, *, within: Any, beyond: Any) -> None:
        """Just within a bound the check passes, and just beyond it it fails."""
        if within == beyond:
            raise UsageError(
                f"the bound of {check} at {place} has the same value on both sides", hint="within=... passes, beyond=... fails"
            )
        inside, outside = put(place, within), put(place, beyond)
        self.passes(check, inside, name=f"just within: {inside}")
        self.fails(check, outside, name=f"just beyond: {outside}")

    def control(self, *checks: str, kind: VerdictKind = VerdictKind.FAIL) -> Callable[[Breakage], Breakage]:
        """Declare a function that changes a world: each of these checks must come out as ``kind`` in it."""

        def declare(breakage: Breakage) -> Breakage:
            for check in checks:
                self.expect(kind, check, breakage)
            return breakage

        return declare

    def expect(self, kind: VerdictKind, check: str, *changes: Breakage, name: str = "") -> None:
        """The check must come out as ``kind`` when these changes are made."""
        self.sound.check(check)
        called = name or ", ".join(_called(change) for change in changes)
        if (check, called) in self._controls:
            raise UsageError(f"{check} has two controls named {called!r}", hint="give one of them another name: name=...")
        self._controls[check, called] = Control(self.sound, check, kind, called, changes)

    def prove(self, check: str) -> None:
        """AssertionError unless the check has a control in which it must fail, and fails in each of them."""
        failing = [each for each in self if each.check == check and each.kind is VerdictKind.FAIL]
        if not failing:
            raise AssertionError(f"{check} was never seen to fail: give it a control")
        for each in failing:
            each.hold()


def _called(change: Breakage) -> str:
    return getattr(change, "name", "") or getattr(change, "__name__", "changed")
