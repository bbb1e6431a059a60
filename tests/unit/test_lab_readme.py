"""The authoring guide agrees with the code. `python -m tests.guide` writes its generated parts anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

from tests import guide
from tests.guide import GUIDE, PART, Call, generated, objects, parts
from vmlab import bench
from vmlab.cli.app import cli
from vmlab.lab import Record, checks, verdict


def test_the_generated_parts_are_fresh() -> None:
    text = GUIDE.read_text()
    assert generated(text) == text, "the guide is stale: python -m tests.guide"


def test_control_a_stale_part_is_seen() -> None:
    text = GUIDE.read_text().replace("| `memory_mib` |", "| `memory_mb` |")
    assert generated(text) != text


def test_every_generated_part_has_its_place_and_only_one() -> None:
    found = PART.findall(GUIDE.read_text())
    named = [f"{name} of {of}" if of else name for _, name, of, _, _ in found if name != "example"]
    assert sorted(named) == sorted(parts())


def test_every_verdict_and_reader_is_described() -> None:
    text = GUIDE.read_text()
    readers = [name for name, member in vars(Record).items() if inspect.isfunction(member) and not name.startswith("_")]
    missing = [name for name in readers if f"`record.{name}(" not in text]
    missing += [kind.value for kind in verdict.VerdictKind if f"| {kind.value} |" not in text]
    missing += [name for name in ("passed", "failed", "not_observable", "inconclusive") if f"`{name}(" not in text]
    missing += [name for name in inspect.signature(checks.check).parameters if name not in text]
    assert not missing


def test_every_call_of_the_bench_is_described_once() -> None:
    text = GUIDE.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for word, kind in objects().items():
        for name, member in vars(kind).items():
            if inspect.isfunction(member) and not name.startswith("_") and f"{word}.{name}" not in guide.RUNNERS:
                assert len([row for row in rows if re.match(rf"\| `(?:with )?{word}\.{name}\(", row)]) == 1, f"{word}.{name}"


def test_no_call_is_described_that_is_not_there() -> None:
    # (In the example lab, "memory" is an observation; FrozenDisk is a disk too.)
    known = objects()
    called = re.findall(rf"\b({'|'.join(known)})\.([a-z_]+)\(", GUIDE.read_text())
    assert len(called) > 10
    others = (Record, bench.FrozenDisk)
    assert not [f"{word}.{name}" for word, name in called if not any(hasattr(kind, name) for kind in (known[word], *others))]


def test_every_command_is_there() -> None:
    named = set(re.findall(r"vmlab ([a-z]+)\b", GUIDE.read_text()))
    assert named - {"model"} <= set(cli.commands)


def test_every_link_leads_to_a_heading() -> None:
    text = GUIDE.read_text()
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = re.findall(r"\]\(#([^)]*)\)", text)
    assert len(linked) > 40
    assert not [each for each in linked if each not in anchors]
    assert len(anchors) == len(headings), "two headings of one name would have one address"


def test_the_guide_has_two_parts_and_the_first_is_short() -> None:
    first, second = GUIDE.read_text().split("\n# Part 2: Reference\n")
    tutorial = first.split("\n# Part 1: Tutorial\n")[1]
    assert len(tutorial.splitlines()) < 375
    assert "| key | type |" not in tutorial and "| call | gives |" not in tutorial
    assert second.count("| call | gives | what it does |") > 15


def test_types_are_shown_as_an_author_would_say_them() -> None:
    text = GUIDE.read_text()
    for inner in ("Unpack[", "quiet.Me", "quiet.Noise", "frozen.FrozenDisk", "contextlib.", "Breakage", "typing.", "<class", "<function"):
        assert inner not in text, inner


def a_block() -> None:
    """Does nothing, and says so."""


@pytest.mark.parametrize(
    ("member", "shown", "gives"),
    [
        (bench.Guest.start, 'with guest.start(name: str, *args: str \\| int \\| float, user: str = "")', "`Conversation`"),
        (bench.Guest.accelerator, "guest.start", "`str`"),
        (a_block, "guest.start()", ""),
    ],
)
def test_how_a_call_is_shown(member: Callable[..., object], shown: str, gives: str) -> None:
    call = Call("guest.", "start", member)
    assert (call.shown, call.gives) == (shown, gives)
