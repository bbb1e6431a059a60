"""The worlds that a lab is tried in by ``vmlab controls``: the sound one, and those that its controls break. And what must come out.

Pure functions over ``lab.yaml``, the checks and the verdicts; nothing is run here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmlab.errors import UsageError
from vmlab.lab.broken import SOUND
from vmlab.lab.checks import Check
from vmlab.lab.definition import LabDefinition
from vmlab.lab.experiment import Experiment
from vmlab.lab.parameters import Value, as_text, objection
from vmlab.lab.verdict import VerdictKind
from vmlab.suggest import nearest
from vmlab.yamlfile import Place, load, refusal

PASS = VerdictKind.PASS
FAIL = VerdictKind.FAIL
INCONCLUSIVE = VerdictKind.INCONCLUSIVE
NOT_OBSERVABLE = VerdictKind.NOT_OBSERVABLE


@dataclass(frozen=True)
class World:
    """One world: how it is made, and which checks must not pass in it."""

    name: str
    breaks: str = ""
    """What is false in it; empty for the sound world."""
    given: Mapping[str, Value] = field(default_factory=dict)
    fails: Sequence[str] = ()
    inconclusive: Sequence[str] = ()
    parts: Sequence[str] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is broken in it."""
        return self.name == SOUND

    @property
    def texts(self) -> dict[str, str]:
        """Its parameters as a command line would give them."""
        return {name: as_text(value) for name, value in self.given.items()}


def worlds_of(definition: LabDefinition, names: Sequence[str] = ()) -> list[World]:
    """The sound world and then the broken ones, in the order of ``lab.yaml``; or those of these ``names``, in the same order.

    UsageError for a name that there is not.
    """
    broken = [World(name, each.breaks, each.set, each.fails, each.inconclusive, each.parts) for name, each in definition.controls.items()]
    every = [World(SOUND), *broken]
    known = [world.name for world in every]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no world named {name[:80]!r}{nearest(name, known)}", hint=f"worlds of this lab: {', '.join(known)}")
    return [world for world in every if not names or world.name in names]


# --- what must come out -----------------------------------------------------------------------------------------------------------


def expected(world: World, checks: Sequence[Check]) -> dict[str, VerdictKind]:
    """What each check must come out as in a world: as it is named there, inconclusive if it rests on one that does not pass, else pass."""
    found: dict[str, VerdictKind] = {}
    for each in checks:
        rests_on_doubt = any(found[name] is not PASS for name in each.after)
        doubtful = each.id in world.inconclusive or rests_on_doubt
        found[each.id] = FAIL if each.id in world.fails else INCONCLUSIVE if doubtful else PASS
    return found


@dataclass(frozen=True)
class Seen:
    """How a check came out in a world. ``left_out``: its evidence belongs to parts of the experiment that this world does not run."""

    kind: VerdictKind
    left_out: bool = False


def disagreement(wanted: VerdictKind, seen: Seen, sound: VerdictKind | None) -> str:
    """What is wrong with how a check came out, in words; empty when nothing is.

    ``sound`` is its verdict in the sound world, where that was run: what this host cannot show there, it need not show elsewhere. And a
    check that passes there and is inconclusive here was disturbed, as a busy machine may do twice over: that refutes nothing.
    """
    if seen.kind is VerdictKind.ERROR:
        return "broke"
    if seen.left_out:
        return "must fail, but none of the parts that this world runs shows it" if wanted is FAIL else ""
    if seen.kind is wanted:
        return ""
    if seen.kind is INCONCLUSIVE and wanted is PASS and sound is PASS:
        return ""
    if seen.kind is NOT_OBSERVABLE and (wanted is not FAIL or sound is NOT_OBSERVABLE):
        return ""
    did = {PASS: "passes", FAIL: "fails", INCONCLUSIVE: "is inconclusive", NOT_OBSERVABLE: "is not observable"}[seen.kind]
    return f"must {'pass' if wanted is PASS else 'fail' if wanted is FAIL else 'be inconclusive'}, but {did}"


def is_noise(world: World, checks: Sequence[Check], seen: Mapping[str, Seen]) -> bool:
    """Whether a check is inconclusive that should not be: then the world is run once more before that is held against the lab."""
    wanted = expected(world, checks)
    return any(each.kind is INCONCLUSIVE and not each.left_out and wanted.get(name) is not INCONCLUSIVE for name, each in seen.items())


# --- mistakes in lab.yaml ---------------------------------------------------------------------------------------------------------

Doubt = tuple[Place, str]
"""Where in ``lab.yaml`` something is wrong with a control, and what."""


def refuse(path: Path, doubts: Sequence[Doubt], kind: str, known: Sequence[str]) -> None:
    """UsageError with file and line when there are doubts; the hint lists what is known of a kind (checks, parts, parameters)."""
    if doubts:
        document = load(path)
        hint = f"{kind} of this lab: {', '.join(known)}" if known else f"this lab has no {kind}"
        raise refusal([document.problem(place, text) for place, text in doubts], hint=hint)


def doubts_about_parameters(definition: LabDefinition) -> list[Doubt]:
    """Controls whose name is taken, or that set what the lab does not have, what it does not accept, or nothing that changes anything."""
    found: list[Doubt] = []
    for name, control in definition.controls.items():
        place: Place = ("controls", name)
        if name == SOUND:
            found.append((place, f"the world in which nothing is broken is called {SOUND}; give the control another name"))
        wrong = [((*place, "set", each), text) for each, value in control.set.items() if (text := _wrong_value(definition, each, value))]
        found += wrong
        if not wrong and all(definition.parameters[each].default == value for each, value in control.set.items()):
            found.append(((*place, "set"), "these are the parameters' defaults, so that nothing is broken in this world"))
    return found


def _wrong_value(definition: LabDefinition, name: str, value: Value) -> str:
    if name not in definition.parameters:
        return f"there is no parameter named {name!r}{nearest(name, definition.parameters)}"
    return objection(definition.parameters[name], value)


def doubts_about_checks(definition: LabDefinition, checks: Sequence[Check]) -> list[Doubt]:
    """Controls and reasons about checks that the lab does not have, or that contradict each other or the order of the checks."""
    ids = [each.id for each in checks]
    found: list[Doubt] = []
    for name, control in definition.controls.items():
        for key, named in (("fails", control.fails), ("inconclusive", control.inconclusive)):
            for number, check in enumerate(named):
                place: Place = ("controls", name, key, number)
                if check not in ids:
                    found.append((place, f"there is no check named {check!r}{nearest(check, ids)}"))
                elif check in named[:number] or (key == "inconclusive" and check in control.fails):
                    found.append((place, f"the check {check} is named here twice"))
        doubtful = {*control.fails, *control.inconclusive}
        for check, reason in _never_asked(checks, doubtful):
            if check in control.fails:
                found.append((("controls", name, "fails", control.fails.index(check)), f"the check {check} is not asked there: {reason}"))
    for check in definition.unrefuted:
        refuting = [name for name, control in definition.controls.items() if check in control.fails]
        if check not in ids:
            found.append((("unrefuted", check), f"there is no check named {check!r}{nearest(check, ids)}"))
        elif refuting:
            found.append((("unrefuted", check), f"the control {refuting[0]} says that it refutes this check; it is one or the other"))
    return found


def _never_asked(checks: Sequence[Check], doubtful: set[str]) -> Iterator[tuple[str, str]]:
    """The checks that rest, directly or not, on one of these, each with the reason why it is not asked."""
    blocked = set(doubtful)
    for each in checks:
        on = next((name for name in each.after if name in blocked), None)
        if on is not None:
            blocked.add(each.id)
            yield each.id, f"it comes after {on}, which does not pass"


def doubts_about_parts(definition: LabDefinition, experiment: Experiment) -> list[Doubt]:
    """Controls that need parts which the experiment does not have."""
    return [
        (("controls", name, "parts", number), wrong)
        for name, control in definition.controls.items()
        for number, part in enumerate(control.parts)
        if (wrong := experiment.unknown([part]))
    ]
