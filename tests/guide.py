"""What of labs/README.md is written by a program: tables of keys and calls, and the example lab. `python -m tests.guide` writes it anew."""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import importlib
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import vmlab.bench as bench
import vmlab.lab as lab
from tests.guide_keys import first_paragraph, keys, table
from vmlab.bench.guest import SCRIPT_OUTPUT_BYTES, Limits
from vmlab.errors import RunError
from vmlab.guest.look.packets import Capture
from vmlab.host.pages import HostPage, Mapping
from vmlab.lab import controls
from vmlab.lab.evidence import GuestFacts, RunFacts
from vmlab.lab.skeleton import create
from vmlab.paths import guest_library
from vmlab_guest import native

GUIDE = Path(__file__).resolve().parents[1] / "labs" / "README.md"
EXAMPLE = "page_touch"

# --- calls ----------------------------------------------------------------------------------------------------------------------------

# Types as an author would say them: what the code calls by a name of its own, and where it comes from.
PLAIN = {
    "quiet.Measure": "Callable[[], Mapping[str, Any]]",
    "quiet.NoiseOf": "Callable[[Mapping[str, Any]], float]",
    "quiet.QUIET": "0.1",
    "Breakage": "Callable[[World], None]",
    "Callable[[CheckFunction], CheckFunction]": "a decorator",
    "Callable[[Callable[[World], None]], Callable[[World], None]]": "a decorator",
    "Callable[[Bench], Made]": "Callable[[Bench], T]",
    "Literal['kvm', 'tcg']": "'kvm' | 'tcg'",
    "Literal['inside', 'outside', 'across']": "'inside' | 'outside' | 'across'",
    "frozen.FrozenDisk": "FrozenDisk",
}
RUNNERS = {
    *("guest.part", "guest.put_scripts", "guest.check_alive", "guest.history", "guest.machine", "guest.has_qemu"),
    *("network.plugged", "network.join", "network.close", "end.is_known", "end.wait", "noise.stop"),
    *("SOUND.read", "SOUND.check", "SOUND.verdict_in", "evidence.watched", "evidence.run"),
}
"""Members of what an author is given that are for the runner."""


ATTRIBUTES = {
    "bench": {"parameters": ("Mapping[str, int | float | str | bool]", "The parameters of the run by name; `bool` is what a flag is.")},
    "guest": {"name": ("str", "Its name in lab.yaml.")},
    "talk": {"__iter__": ("dict[str, Any]", "The objects that the script prints, until it ends: `for record in talk:`.")},
}
"""What an object has that is set where it is made, with type and meaning."""


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute that is no property."""

    type: str
    does: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A function, method or property as the guide shows it: what is typed, what it gives, and what it does."""

    owner: str
    name: str
    member: Any

    @property
    def shown(self) -> str:
        """How it is called, with the types of what it takes."""
        if isinstance(self.member, Attribute) and self.name == "__iter__":
            return f"for record in {self.owner.removesuffix('.')}"
        if isinstance(self.member, property | cached_property | Attribute):
            return f"{self.owner}{self.name}"
        given = [each for each in inspect.signature(self.function).parameters.values() if each.name not in ("self", "cls")]
        words: list[str] = []
        for place, each in enumerate(given):
            if each.kind is each.KEYWORD_ONLY and not any(
                before.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL) for before in given[:place]
            ):
                words.append("*")
            words += expanded(each, self.name)
        call = f"{self.owner}{self.name}({', '.join(words)})"
        return f"with {call}" if self.is_block else call

    @property
    def function(self) -> Callable[..., Any]:
        """What is called, without what makes it a static or class method."""
        found: Callable[..., Any] = getattr(self.member, "__func__", self.member)
        return found

    @property
    def returns(self) -> str:
        """The type of what it gives, as its text has it."""
        if isinstance(self.member, Attribute):
            return self.member.type
        getter = self.member.fget if isinstance(self.member, property) else getattr(self.member, "func", self.function)
        found = getattr(getter, "__annotations__", {}).get("return", "")
        return "None" if found is None else found.__name__ if type(found) is type else str(found)

    @property
    def is_block(self) -> bool:
        """Whether it is for a `with`."""
        if inspect.isclass(self.member):
            return hasattr(self.member, "__enter__")
        return "AbstractContextManager[" in self.returns or (self.returns.startswith("Iterator[") and hasattr(self.member, "__wrapped__"))

    @property
    def gives(self) -> str:
        """What it gives in words; in a `with`, what stands after `as`."""
        if inspect.isclass(self.member):
            own = attributes_of(self.member)
            return f"attributes {', '.join(f'`{each}`' for each in own)}" if own else ""
        found = self.returns
        if self.is_block:
            found = re.sub(r"^(?:contextlib\.)?(?:AbstractContextManager|Iterator)\[(.*)\]$", r"\1", found)
        return "" if found in ("None", "") else f"`{plain(found)}`"

    @property
    def does(self) -> str:
        """The first paragraph of its docstring."""
        return self.member.does if isinstance(self.member, Attribute) else first_paragraph(self.member)


def plain(words: str) -> str:
    """A type as an author would say it, in a cell of a table."""
    for ours, theirs in PLAIN.items():
        words = words.replace(ours, theirs)
    quoted = re.fullmatch(r"'([^']*)'", words)  # (The library's annotations are, because typing is not imported there.)
    return ("T" if words == "Made" else quoted[1] if quoted else words).replace("|", "\\|")


def expanded(each: inspect.Parameter, call: str) -> list[str]:
    """A parameter as it is given; what is passed on as options one by one."""
    match str(each.annotation).strip("'"):
        case "Unpack[Limits]":
            return [
                f"{name}: {plain(forward(kind))} = {LIMITS[call, name] if (call, name) in LIMITS else LIMITS['', name]}"
                for name, kind in Limits.__annotations__.items()
            ]
        case "Unpack[Differs]":
            return ['init: "systemd" \\| "sysv"', 'kernel_args: str = ""', "cpus: int = as before"]
    return [parameter(each)]


LIMITS = {
    ("", "input"): "None",
    ("", "time_limit_s"): "60.0",
    ("run", "output_limit_bytes"): "1 << 20",
    ("script", "output_limit_bytes"): f"{SCRIPT_OUTPUT_BYTES >> 20} << 20",
    ("", "user"): '""',
}


def forward(kind: Any) -> str:
    """The text of an annotation that was not evaluated."""
    return str(getattr(kind, "__forward_arg__", getattr(kind, "__name__", kind)))


def parameter(each: inspect.Parameter) -> str:
    """A parameter with its type and its default."""
    star = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
    kind = "" if each.annotation is inspect.Parameter.empty else f": {plain(forward(each.annotation))}"
    if each.default is inspect.Parameter.empty:
        return f"{star}{each.name}{kind}"
    value = repr(each.default) if not isinstance(each.default, str) else f'"{each.default}"'
    if isinstance(each.default, StrEnum):
        value = each.default.name
    if isinstance(each.default, int) and each.name == "mode":
        value = oct(each.default)
    return f"{star}{each.name}{kind} = {value}" if kind else f"{star}{each.name}={value}"


def calls_of(word: str, kind: type) -> list[Call]:
    """What an author may use of an object that the guide calls by this word."""
    found = [Call(f"{word}.", name, Attribute(*told)) for name, told in ATTRIBUTES.get(word, {}).items()]
    for name, member in vars(kind).items():
        called = inspect.isfunction(member) or isinstance(member, property | cached_property | staticmethod | classmethod)
        if called and not name.startswith("_") and f"{word}.{name}" not in RUNNERS:
            found.append(Call(f"{word}.", name, member))
    return found


def attributes_of(kind: type) -> list[str]:
    """What an object of a class has beside its methods, by the text of the class."""
    found = [
        target.attr
        for node in ast.walk(ast.parse(inspect.getsource(kind)))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        if not target.attr.startswith("_")
    ]
    return list(dict.fromkeys(found))


def fields_of(kind: type) -> list[str]:
    """The attributes of a result with their types."""
    inner = ("request", "disk", "seed_iso")  # (Of a frozen disk, for the runner.)
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    words = [f"`{each.name}: {plain(str(each.type))}`" for each in fields if each.name not in inner]
    for call in calls_of(kind.__name__, kind):
        name = call.shown.removeprefix("with ").removeprefix(f"{kind.__name__}.")
        words.append(f"`{name}: {call.gives.strip('`')}`" if isinstance(call.member, property) else f"`{name}` (a call; {call.gives})")
    return words


def rows_of(calls: Sequence[Call]) -> str:
    """A table of calls."""
    return table("call | gives | what it does", [[f"`{call.shown}`", call.gives, call.does] for call in calls])


def objects() -> dict[str, type]:
    """What an experiment is given, by the word that the guide has for it."""
    return {
        "bench": bench.Bench,
        "guest": bench.Guest,
        "talk": bench.Conversation,
        "end": bench.ExpectedEnd,
        "noise": bench.NoiseMeter,
        "memory": bench.MemoryView,
        "disk": bench.DiskView,
        "network": bench.Network,
        "capture": Capture,
    }


def experiments_tables() -> dict[str, str]:
    """The calls of an experiment, a table an object."""
    found = {f"calls of {word}": rows_of(calls_of(word, kind)) for word, kind in objects().items()}
    results: dict[str, type] = {
        "guest.run": bench.CommandResult,
        "guest.script": bench.ScriptResult,
        "guest.freeze": bench.FrozenDisk,
        "memory.frozen, memory.frozen_in": bench.Registers,
        "memory.walk": bench.Walk,
        "walk.steps": bench.Step,
        "memory.mapping": Mapping,
        "memory.host_pages": HostPage,
    }
    found["results"] = table(
        "what | of | attributes", [[f"`{kind.__name__}`", f"`{call}`", ", ".join(fields_of(kind))] for call, kind in results.items()]
    )
    found["errors"] = table(
        "exception | when",
        [
            [f"`{name}`", f"{first_paragraph(kind)}"]
            for name in bench.__all__
            if inspect.isclass(kind := getattr(bench, name)) and issubclass(kind, RunError)
        ],
    )
    return found


def checks_tables() -> dict[str, str]:
    """What checks are written with."""
    makers = [lab.passed, lab.failed, lab.not_observable, lab.inconclusive]
    numbers = [lab.median_interval, lab.ratio_interval, lab.attempts_of, lab.noise_of]
    facts = [*calls_of("evidence", lab.Evidence), *calls_of("evidence.run", RunFacts), *calls_of('evidence.run.guest("b")', GuestFacts)]
    return {
        "decorator": rows_of([Call("@", "check", lab.check)]),
        "makers": rows_of([Call("", each.__name__, each) for each in makers]),
        "readers": rows_of([*calls_of("record", lab.Record)]),
        "facts": rows_of([call for call in facts if call.name != "run"]),
        "values": table(
            "what | of | attributes",
            [
                [f"`{kind.__name__}`", of, ", ".join(fields_of(kind))]
                for kind, of in (
                    (lab.Interval, "`median_interval`, `ratio_interval`"),
                    (lab.Attempt, "`attempts_of`"),
                    (lab.Verdict, "each of the five verdicts"),
                )
            ],
        ),
        "numbers": rows_of([*(Call("", each.__name__, each) for each in numbers)]),
        "kit": rows_of(
            [
                *(Call("", each.__name__, each) for each in (controls.put, controls.add, controls.drop, controls.take, controls.changed)),
                *calls_of("SOUND", controls.Sound),
                *calls_of("CONTROLS", controls.Controls),
                *calls_of("control", controls.Control),
            ]
        ),
    }


# --- the library for guest scripts -------------------------------------------------------------------------------------------------------


def members_of(module: ModuleType) -> Iterator[Call]:
    """Each call that a module of the guest's library offers, in the order in which it stands there; a class, then its methods."""
    for name, member in vars(module).items():
        if (
            name.startswith("_")
            or getattr(member, "__module__", "") != module.__name__
            or not (inspect.isfunction(member) or inspect.isclass(member))
            or (inspect.isclass(member) and issubclass(member, ctypes.Structure))
        ):
            continue
        yield Call("", name, member)
        if inspect.isclass(member):
            yield from (call for call in calls_of(name, member))


def constants_of(module: ModuleType) -> list[str]:
    """The numbers and names that a module offers, by its text."""
    tree = ast.parse(inspect.getsource(module))
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in (target.elts if isinstance(target, ast.Tuple) else [target])
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id)
    ]
    return [name for name in dict.fromkeys(names) if name != "TYPE_CHECKING"]


def guests_library() -> str:
    """The calls of each module of vmlab_guest, by their docstrings' first paragraphs."""
    parts = []
    for name in sorted(path.stem for path in guest_library().glob("*.py") if path.stem != "__init__"):
        module = importlib.import_module(f"vmlab_guest.{name}")
        rows = [[f"`{call.shown}`", call.gives, call.does] for call in members_of(module)]
        constants = constants_of(module)
        if name == "native":
            rows += [[f"`Routine({routine})`", "", text] for routine, text in routines()]
            constants = [each for each in constants if each not in native.ROUTINES]
        also = f"\n\nConstants: {', '.join(f'`{each}`' for each in constants)}." if constants else ""
        parts.append(f"#### vmlab_guest.{name}\n\n{first_paragraph(module)}\n\n{table('call | gives | what it does', rows)}{also}")
    return "\n\n".join(parts)


def routines() -> list[tuple[str, str]]:
    """The loops in machine code, by the comment above each."""
    source = (guest_library() / "native.py").read_text()
    found = re.findall(r"((?:^# .*\n)+)^([A-Z_]+): \"Sequence\[Line\]\" = ", source, re.MULTILINE)
    assert len(found) == len(native.ROUTINES)
    return [(name, " ".join(line.removeprefix("# ") for line in comment.splitlines())) for comment, name in found]


# --- the example ----------------------------------------------------------------------------------------------------------------------


def example() -> dict[str, str]:
    """The skeleton's files by name, those of its tests too."""
    with tempfile.TemporaryDirectory() as directory:
        folder = create(EXAMPLE, Path(directory))
        return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def excerpt(file: str, sections: str) -> str:
    """A file of the example; of lab.yaml the sections that are named, of Python the text until the end of the function that is named."""
    text = example()[file]
    if sections.startswith("until "):
        last = next(node for node in ast.parse(text).body if getattr(node, "name", "") == sections.removeprefix("until "))
        text = "\n".join(text.splitlines()[: last.end_lineno])
    elif sections:
        wanted = [part for part in re.split(r"^(?=[a-z_]+:)", text, flags=re.MULTILINE) if part.partition(":")[0] in sections.split(", ")]
        assert len(wanted) == len(sections.split(", ")), (file, sections)
        text = "".join(wanted)
    return f"`{file}`\n\n```{'yaml' if file.endswith('yaml') else 'python'}\n{text.rstrip()}\n```"


# --- the guide ------------------------------------------------------------------------------------------------------------------------

PART = re.compile(r"(<!-- written by tests/guide\.py: ([a-z ]+?)(?: of (\S+)(?: \(([a-z_, ]+)\))?)? -->\n).*?(<!-- end -->)", re.DOTALL)


def parts() -> dict[str, str]:
    """Every generated part but the example's, by name."""
    return {"keys": keys(), "library": guests_library()} | experiments_tables() | checks_tables()


def generated(guide: str) -> str:
    """The guide with its generated parts as they should be."""
    known = parts()

    def fresh(found: re.Match[str]) -> str:
        head, name, of, sections, end = found.groups()
        text = excerpt(of, sections or "") if name == "example" else known[f"{name} of {of}" if of else name]
        return f"{head}\n{text}\n\n{end}"

    return PART.sub(fresh, guide)


if __name__ == "__main__":
    GUIDE.write_text(generated(GUIDE.read_text()))
