"""What `vmlab lint` says of a lab: everything in its folder that does not fit together, found without running anything."""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vmlab.errors import UsageError
from vmlab.lab import library, places, wording
from vmlab.lab.collection import read_lab
from vmlab.lab.controls.kept import NAME as SOUND_NAME
from vmlab.lab.controls.sound import Sound
from vmlab.lab.definition import QuestionKind
from vmlab.lab.lab import Lab
from vmlab.lab.mistakes import Mistake, language_of, mistakes_of_modules, mistakes_of_scripts
from vmlab.yamlfile import Document, Place, load, shown

HEADINGS = ("Before the run", "After the run")
"""What a lab's README.md has: a student predicts before the run, and is led to what it shows after. More may follow these words."""

_CAPTION = "say how to read the picture: what a steep line would mean, or a flat one"
_HINTLESS = "a student who reads that it failed must know where to look: hint=..."
_FENCE = re.compile(r"^(```|~~~)")


def lint(directory: Path) -> tuple[list[Mistake], Sound | None]:
    """Everything that is wrong with the lab in a folder, in the order of what a run would meet; and its sound set, where it can be read."""
    try:
        lab = read_lab(directory)
    except UsageError as exc:
        return _said(exc), None
    found = [*_broken_checks(lab), *_heard(lambda: _experiment(lab)), *mistakes_of_scripts(lab), *_foreign_imports(lab)]
    found += [*_heard(lambda: mistakes_of_modules(lab)), *_packages(lab), *_readme(lab), *_tests(lab)]
    found += [Mistake(each, _CAPTION) for each in wording.contradictable(directory)]
    # (Checks that are no Python have been named already.)
    with contextlib.suppress(UsageError):
        found += [Mistake(each, _HINTLESS) for each in wording.hintless(directory)]
    try:
        sound = Sound.read(lab)
    except UsageError as exc:
        return list(dict.fromkeys([*found, *_said(exc)])), None
    found += _places(lab, sound)
    if not _broken_checks(lab):
        found += _unsound(sound)
    return list(dict.fromkeys(found)), sound


def _broken_checks(lab: Lab) -> list[Mistake]:
    """What keeps the checks from being read, or else claims that none of them tests."""
    return _heard(lambda: _untested(lab))


def _experiment(lab: Lab) -> list[Mistake]:
    lab.load_experiment()
    return []


def _said(exc: UsageError) -> list[Mistake]:
    """An error as mistakes: one a line, where it names several."""
    lines = exc.detail.splitlines()
    several = bool(lines) and exc.message.startswith(lines[0])
    return [Mistake(line, exc.hint) for line in (lines if several else [exc.message])]


def _heard(look: Callable[[], list[Mistake]]) -> list[Mistake]:
    """What a look finds, or the error that it ends in."""
    try:
        return look()
    except UsageError as exc:
        return _said(exc)


def _untested(lab: Lab) -> list[Mistake]:
    """Claims that no check tests."""
    tested = {each.claim for each in lab.load_checks()}
    document = load(lab.directory / "lab.yaml")
    return [
        Mistake(document.problem(("claims", name), "no check tests this claim"), f'write one: @check(points=1, claim="{name}")')
        for name in lab.definition.claims
        if name not in tested
    ]


def _foreign_imports(lab: Lab) -> Iterator[Mistake]:
    """What guest scripts import and no guest has. There are Python's standard library, the script's neighbours and `vmlab_guest`."""
    ours = {path.stem for path in lab.guest_files() if path.suffix == ".py"} | {path.parent.name for path in lab.guest_files()}
    modules = {name.removesuffix(".py").replace("/", ".") for name in library.files()} | {library.NAME}
    for path in lab.guest_files():
        if language_of(path) != "python":
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # (That is another mistake, told elsewhere.)
        for line, name in _imports(tree):
            top = name.split(".")[0]
            if top == library.NAME and name not in modules:
                yield Mistake(
                    f"{shown(path)}:{line}: the library for guests has no module {name}", f"there are: {', '.join(sorted(modules))}"
                )
            elif top != library.NAME and top not in sys.stdlib_module_names and top not in ours:
                hint = "a guest script has Python's standard library, vmlab_guest, and its neighbours in guest/"
                yield Mistake(f"{shown(path)}:{line}: no guest has the module {name}", hint)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each absolute import that must succeed, with its line. (One within a `try` may fail.)"""
    may_fail = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.Try) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        if id(node) in may_fail:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def _packages(lab: Lab) -> Iterator[Mistake]:
    """The files that make the lab and its tests packages."""
    for folder in (lab.directory, lab.directory / "tests"):
        if folder.is_dir() and not (folder / "__init__.py").is_file():
            yield Mistake(
                f"{shown(folder / '__init__.py')} does not exist",
                "mypy and pytest need it; it holds one line in quotes that says what this is",
            )


def _readme(lab: Lab) -> Iterator[Mistake]:
    """README.md with its headings."""
    path = lab.directory / "README.md"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        yield Mistake(f"{shown(path)} does not exist, or is no text", "it is what a student reads before and after the run")
        return
    if not lines or not lines[0].startswith("# "):
        yield Mistake(f"{shown(path)}:1: expected the lab's name as a heading, found {(lines or [''])[0][:40]!r}", "begin with: # Name")
    within, headings = False, []
    for line in lines:
        if _FENCE.match(line):
            within = not within
        elif not within and line.startswith("## "):
            headings.append(line[3:].strip())
    for wanted in HEADINGS:
        if not any(heading.casefold().startswith(wanted.casefold()) for heading in headings):
            yield Mistake(
                f"{shown(path)}:{len(lines) or 1}: there is no heading `## {wanted}`", f"headings of a lab: {', '.join(HEADINGS)}"
            )


def _tests(lab: Lab) -> Iterator[Mistake]:
    """That there are tests."""
    folder = lab.directory / "tests"
    if not list(folder.glob("test_*.py")):
        yield Mistake(f"{shown(folder)} has no test_*.py", "a check that was never seen to fail proves nothing: vmlab.lab.controls helps")


# --- against the sound set -----------------------------------------------------------------------------------------------------------


def _unsound(sound: Sound) -> Iterator[Mistake]:
    """Checks that do not pass on the sound set."""
    path = shown(sound.lab.directory / "tests" / SOUND_NAME)
    for name, kind in sound.verdicts().items():
        if not kind.is_sound:
            verdict = sound.verdict(name)
            why = verdict.rationale if verdict.kind is kind else "it comes after one that does not pass"
            yield Mistake(
                f"{path}: the check {name} comes out as {kind}: {why}", f"vmlab record {sound.lab.name} writes it anew from a run"
            )


def _places(lab: Lab, sound: Sound) -> Iterator[Mistake]:
    """Places that questions, plots and translations name, and that lead nowhere in the sound set."""
    document, world = load(lab.directory / "lab.yaml"), sound.world()
    observations = world.observations
    for place, wanted, problem in _expected(lab):
        wrong = problem(places.look_up(observations, wanted)) if wanted in world else _misplaced(observations, wanted)
        if wrong:
            yield Mistake(document.problem(place, wrong), "places are those of tests/sound.json: an observation, then members and indices")
    yield from _rows(lab, document, observations)
    yield from _kept(lab, document, observations)


def _expected(lab: Lab) -> Iterator[tuple[Place, str, Callable[[Any], str]]]:
    """Each place of ``lab.yaml`` that names a place in the evidence, the latter, and what is wrong with a value that is found there."""
    for i, question in enumerate(lab.definition.questions):
        if question.measured_by:
            number = question.kind is QuestionKind.NUMBER
            yield ("questions", i, "measured_by"), question.measured_by, (_no_number if number else _no_answer)
    for i, picture in enumerate(lab.definition.translations):
        yield ("translations", i, "walk"), picture.walk, lambda value: "" if isinstance(value, dict) else "expected an object there"
        yield ("translations", i, "marker"), picture.marker, _no_text
        for j, stage in enumerate(picture.stages):
            yield ("translations", i, "stages", j, "address"), stage.address, lambda value: "" if value is None else _no_text(value)
            # (What the host's kernel does not show is an object that says so.)
            yield ("translations", i, "stages", j, "holds"), stage.holds, lambda _: ""


def _rows(lab: Lab, document: Document, observations: dict[str, Any]) -> Iterator[Mistake]:
    """Series of plots whose rows are no list of objects, or have none of the members that are drawn."""
    hint = "the places of plots are those of tests/sound.json: a list of objects, and members of each"
    for i, plot in enumerate(lab.definition.plots):
        for j, series in enumerate(plot.series):
            at: Place = ("plots", i, "series", j)
            rows = places.look_up(observations, series.rows)
            if not isinstance(rows, list) or not rows:
                wrong = "expected a list of objects there" if rows is not None else _misplaced(observations, series.rows)
                yield Mistake(document.problem((*at, "rows"), wrong), hint)
                continue
            for key, member in (("x", series.x), ("y", series.y), ("end", series.end)):
                if member and all(places.look_up(row, member) is None for row in rows):
                    yield Mistake(document.problem((*at, key), f"no object of {series.rows} has a member {member!r}"), hint)


def _kept(lab: Lab, document: Document, observations: dict[str, Any]) -> Iterator[Mistake]:
    """Places that are kept for the reader, and that lead nowhere."""
    for i, kept in enumerate(lab.definition.kept_for_the_reader):
        for j, place in enumerate(kept.places):
            if not places.leads_somewhere(observations, place):
                wrong = document.problem(("kept_for_the_reader", i, "places", j), f"nothing is recorded at {place!r}")
                yield Mistake(wrong, "places are those of tests/sound.json; `*` is any member, `[*]` any index")


def _misplaced(observations: dict[str, Any], place: str) -> str:
    """Why a place leads nowhere, by the last step that leads somewhere."""
    steps = places.steps_of(place)
    for end in range(len(steps) - 1, 0, -1):
        outer = places.written(steps[:end])
        value = places.look_up(observations, outer)
        if value is not None:
            has = f"; it has: {', '.join(map(str, value))}"[:200] if isinstance(value, dict) else ""
            return f"{place!r} leads nowhere: {outer} has no {places.written(steps[end : end + 1])}{has}"
    return f"{place!r} leads nowhere; the observations are: {', '.join(observations)}"


def _no_number(value: Any) -> str:
    return "" if isinstance(value, int | float) and not isinstance(value, bool) else "expected a number there"


def _no_answer(value: Any) -> str:
    return "" if isinstance(value, str | int | float) else "expected a text, a number, or true or false there"


def _no_text(value: Any) -> str:
    return "" if isinstance(value, str) else "expected a text there"
