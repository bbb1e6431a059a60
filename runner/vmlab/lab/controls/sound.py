"""The evidence of a real run in which every check passes: what the negative controls of a lab start from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from vmlab.errors import UsageError
from vmlab.lab.checks import Check, conclude, judge
from vmlab.lab.collection import read_lab
from vmlab.lab.controls import kept
from vmlab.lab.controls.mutation import Mutated, mutate, spots_of
from vmlab.lab.controls.world import World
from vmlab.lab.evidence import NotRecorded
from vmlab.lab.lab import Lab
from vmlab.lab.reads import Reads
from vmlab.lab.verdict import Verdict, VerdictKind
from vmlab.suggest import nearest

NOTHING: tuple[Any, ...] = ({}, None, [], "", 0, True, {"": None})
"""What an observation is put to that holds nothing: whoever reads it must not decide anything."""

_INDEX = re.compile(r"\[\d+\]")


class Sound:
    """Sound evidence of a lab, and its checks. Nothing that a test does to a world changes it."""

    def __init__(self, lab: Lab, observations: Mapping[str, Any], parameters: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        self.lab = lab
        self._world = World(observations, parameters, run)
        self._reads: dict[str, Reads] = {}

    @classmethod
    def of(cls, place: str | Path, name: str = kept.NAME) -> Sound:
        """The sound set beside a test: ``Sound.of(__file__)`` reads the ``sound.json`` of the lab whose ``tests/`` the file lies in.

        UsageError when there is none, or when it or the lab cannot be read.
        """
        folder = next((each for each in Path(place).resolve().parents if (each / "lab.yaml").is_file()), None)
        if folder is None:
            raise UsageError(f"{place} lies in no lab's folder", hint="a lab's folder has a lab.yaml, and its tests lie in tests/")
        return cls.read(read_lab(folder), name)

    @classmethod
    def read(cls, lab: Lab, name: str = kept.NAME) -> Sound:
        """The sound set of a lab; UsageError as `of`."""
        found = kept.read(lab.directory / "tests" / name, lab.name)
        return cls(lab, found.observations, found.parameters, found.run)

    @cached_property
    def checks(self) -> dict[str, Check]:
        """The lab's checks by id."""
        return {each.id: each for each in self.lab.load_checks()}

    @property
    def names(self) -> list[str]:
        """The ids of the lab's checks."""
        return list(self.checks)

    def check(self, name: str) -> Check:
        """A check by its id; UsageError when the lab has none of it."""
        if name not in self.checks:
            raise UsageError(f"the lab {self.lab.name} has no check named {name!r}{nearest(name, self.checks)}", hint=", ".join(self.names))
        return self.checks[name]

    def world(self) -> World:
        """A copy of the evidence, to be changed."""
        return World(*self._world._parts)

    def changed(self, *changes: Callable[[World], None]) -> Sound:
        """Another sound set that differs by these changes: for checks that what was recorded cannot show."""
        world = self.world()
        for change in changes:
            change(world)
        return Sound(self.lab, world.observations, world.parameters, world.run)

    # --- judging ------------------------------------------------------------------------------------------------------------------

    def verdict(self, name: str, *changes: Callable[[World], None]) -> Verdict:
        """The verdict of one check in a changed world, whatever those that it comes after conclude."""
        world = self.world()
        for change in changes:
            change(world)
        return self.verdict_in(world, name)

    def verdict_in(self, world: World, name: str) -> Verdict:
        """The same in a world that is changed already."""
        return _alone(self.check(name), world)

    def verdicts(self, *changes: Callable[[World], None]) -> dict[str, VerdictKind]:
        """How every check comes out in a changed world, as in a report: those that come after one that does not pass are not asked."""
        world = self.world()
        for change in changes:
            change(world)
        return {each.check.id: each.verdict.kind for each in judge(list(self.checks.values()), world.evidence)}

    def hold(self) -> None:
        """AssertionError unless every check passes, or is not observable in such a run."""
        wrong = [f"{name}: {kind}" for name, kind in self.verdicts().items() if not kind.is_sound]
        if wrong:
            raise AssertionError("the sound evidence is not sound: " + "; ".join(wrong))

    def hold_without_evidence(self, name: str) -> None:
        """AssertionError when a check decides anything on nothing: no evidence, or an observation taken away, empty or of another kind."""
        check = self.check(name)
        wrong = [] if self._undecided(check, World({}, {}, {})) else ["no evidence at all"]
        for observation in [each for each in self._world.observations if each in self.reads(name).places]:
            world = self.world()
            del world.observations[observation]
            wrong += [] if self._undecided(check, world) else [f"without {observation}"]
            for nothing in NOTHING:
                world.observations[observation] = nothing
                wrong += [] if self._undecided(check, world) else [f"{observation} = {nothing!r}"]
        if wrong:
            raise AssertionError(f"{name} must be inconclusive, and is not: {'; '.join(wrong)}")

    @staticmethod
    def _undecided(check: Check, world: World) -> bool:
        return _alone(check, world).kind is VerdictKind.INCONCLUSIVE

    # --- what is read, and garbage ---------------------------------------------------------------------------------------------------

    def reads(self, name: str) -> Reads:
        """What a check looks at of the sound evidence."""
        if name not in self._reads:
            evidence = self._world.evidence
            with contextlib.suppress(NotRecorded):
                conclude(self.check(name), evidence)
            self._reads[name] = evidence.reads
        return self._reads[name]

    def unread(self) -> list[str]:
        """The places of the observations that no check looks at, ``[*]`` for any index; of what is not looked at as a whole, the whole."""
        read = {place for name in self.names for place in self.reads(name).places}
        found: dict[str, bool] = {}
        for site in spots_of(self._world.observations):
            general = _INDEX.sub("[*]", site.place)
            found[general] = found.get(general, False) or site.place in read
        unread = [place for place, is_read in found.items() if not is_read]
        return [place for place in unread if not any(place.startswith((f"{outer}.", f"{outer}[")) for outer in unread)]

    def mutate(self, name: str, alike: int = 3) -> Mutated:
        """Judge a check on the sound evidence with each kind of garbage at each place that it reads (`vmlab.lab.controls.mutation`).

        Of places that differ by an index alone and hold values of one kind, the first, the second and the last are as many as ``alike``.
        """
        return mutate(self.check(name), self.world(), self.reads(name), alike)

    def hold_on_garbage(self, name: str, alike: int = 3) -> None:
        """AssertionError when a check breaks on garbage anywhere."""
        self.mutate(name, alike).hold()


def _alone(check: Check, world: World) -> Verdict:
    try:
        return conclude(check, world.evidence)
    except NotRecorded as problem:
        return Verdict(VerdictKind.INCONCLUSIVE, f"The evidence does not decide this: {problem}.")
