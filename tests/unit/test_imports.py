"""The house's walls: who may import whom, that no modules import each other in a circle, and that each room says what is in it.

The order of the rooms is the table in ``vmlab/__init__.py``, read here. An import counts wherever it stands: in a function and under
TYPE_CHECKING too. (That importing a module runs its package's ``__init__`` first is not counted: a room's ``__init__`` gathers
what its modules offer, and no module of the room may import from it, which would be a circle that counts.)
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

import vmlab

PACKAGE = Path(vmlab.__file__).resolve().parent
PYPROJECT = PACKAGE.parents[1] / "pyproject.toml"
MACHINES, EVIDENCE = {"guest", "image", "host"}, {"lab", "report"}

Sources = Mapping[str, str]


def module_name(path: Path) -> str:
    parts = ("vmlab", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in PACKAGE.rglob("*.py")}
SOURCES = {module: path.read_text() for module, path in FILES.items()}


def rows(table: str) -> list[list[str]]:
    """The names of a table, a list a row: what stands at the beginning of a line or of a second column, before at least two spaces."""
    found = [re.findall(r"(?:^|\s{2,})(?<!\w)([a-z_0-9]+)/?(?=\s{2,}\S)", line) for line in table.splitlines() if not line.startswith(" ")]
    return [names for names in found if names]


STOREYS = rows(vmlab.__doc__ or "")


def storey(part: str) -> int:
    """How far from the top of the house a part is."""
    for depth, names in enumerate(STOREYS):
        if part in names:
            return depth
    raise AssertionError(f"vmlab/{part} has no row in the table of vmlab/__init__.py: give it one, as low as it can be")


def part_of(module: str) -> str:
    """The part of the house that a module belongs to: the name directly below ``vmlab``."""
    return module.split(".")[1]


def imported(module: str, sources: Sources) -> set[str]:
    """The modules of ours that a module imports, wherever the import stands; a name in a package that is no module is the package's."""
    is_package = any(other.startswith(f"{module}.") for other in sources)
    package = module.split(".") if is_package else module.split(".")[:-1]
    names: list[str] = []
    for node in ast.walk(ast.parse(sources[module])):
        match node:
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.ImportFrom():
                base = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])] if node.level else [node.module]
                names += [".".join([*map(str, base), alias.name]) for alias in node.names]
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(name))]):
                names.append(name)
    ours = {module_of(name, sources) for name in names if name.split(".")[0] == "vmlab"}
    return ours - {module, "vmlab"}


def module_of(name: str, sources: Sources) -> str:
    while name not in sources and "." in name:
        name = name.rpartition(".")[0]
    return name


def graph(sources: Sources) -> dict[str, set[str]]:
    return {module: imported(module, sources) for module in sources}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """One circle a knot of modules that import each other, as a path that ends where it began."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(path: list[str]) -> None:
        for other in sorted(edges.get(path[-1], ())):
            if other in path:
                found.append([*path[path.index(other) :], other])
            elif other not in done:
                walk([*path, other])
        done.add(path[-1])

    for module in sorted(edges):
        if module not in done:
            walk([module])
    return found


def faults(sources: Sources) -> list[str]:
    """Imports that point up, across to a neighbour, or from one wing into the other."""
    wrong = []
    for module, others in graph(sources).items():
        for other in others if module != "vmlab" else ():
            mine, theirs = part_of(module), part_of(other)
            across = (mine in MACHINES and theirs in EVIDENCE) or (mine in EVIDENCE and theirs in MACHINES)
            if mine != theirs and (across or storey(theirs) <= storey(mine)):
                wrong.append(f"{module} imports {other}, which is {'in the other wing' if across else 'not below it'}")
    return wrong


def test_imports_point_down_and_never_into_the_other_wing() -> None:
    wrong = faults(SOURCES)
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circles(graph(SOURCES))
    assert not found, "\n".join(" -> ".join(circle) for circle in found)


def test_the_table_grants_nothing_to_what_does_not_exist() -> None:
    there = {part_of(module) for module in SOURCES if module != "vmlab"}
    named = [name for names in STOREYS for name in names]
    assert sorted(named) == sorted(there)
    assert there >= MACHINES | EVIDENCE


def test_the_table_is_read_as_it_is_printed() -> None:
    assert ["guest", "report"] in STOREYS
    assert [names[0] for names in STOREYS][:6] == ["__main__", "cli", "pytest_plugin", "many", "run", "bench"]
    assert STOREYS[-1] == ["errors"]


def test_the_wings_meet_in_the_bench_and_above() -> None:
    """Whoever uses both wings is the bench or stands above it; and the bench uses of the report its model alone."""
    edges = graph(SOURCES)
    used: dict[str, set[str]] = {}
    for module in SOURCES.keys() - {"vmlab"}:
        used.setdefault(part_of(module), set()).update(map(part_of, edges[module]))
    both = {part for part, parts in used.items() if parts & MACHINES and parts & EVIDENCE}
    assert "bench" in both
    assert all(storey(part) <= storey("bench") for part in both)
    of_the_report = {other for module, others in edges.items() if module.startswith("vmlab.bench") for other in others}
    assert {other for other in of_the_report if part_of(other) == "report"} == {"vmlab.report.model"}


def test_whoever_grades_needs_no_machine() -> None:
    """An instructor's laptop has no QEMU: what the evidence wing imports, through any number of modules, names no machine."""
    edges = graph(SOURCES)
    reached: set[str] = set()
    open_ends = [module for module in SOURCES if module != "vmlab" and part_of(module) in EVIDENCE]
    while open_ends:
        module = open_ends.pop()
        if module not in reached:
            reached.add(module)
            open_ends += edges[module]
    assert not {part_of(module) for module in reached} & (MACHINES | {"bench", "run", "many", "cli"})


def with_code(module: str, code: str) -> Sources:
    """The house with nothing in it but this."""
    return {**dict.fromkeys(SOURCES, ""), module: code}


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("vmlab.lab.collection", "from vmlab.guest import qemu"),
        ("vmlab.lab.collection", "if TYPE_CHECKING:\n    from vmlab.bench import Bench"),
        ("vmlab.report.html", "def f():\n    import vmlab.host.facts"),
        ("vmlab.report.store", "from ..guest.machine import Machine"),
        ("vmlab.report.store", "from .. import host"),
        ("vmlab.guest.machine", "from vmlab.lab.definition import GuestRequest"),
        ("vmlab.host.facts", "from vmlab.guest import qemu"),
        ("vmlab.host.facts", "from vmlab.report.text import size"),
        ("vmlab.host.facts", "importlib.import_module('vmlab.guest.qemu')"),
        ("vmlab.lab.checks", "from vmlab.report.text import size"),
        ("vmlab.errors", "from vmlab import process"),
        ("vmlab.bench.bench", "from .. import run"),
    ],
)
def test_control_an_import_that_points_up_or_across_is_seen(module: str, code: str) -> None:
    assert [fault for fault in faults(with_code(module, code)) if fault.startswith(f"{module} imports ")]


def test_control_an_import_that_points_down_is_allowed() -> None:
    code = "from vmlab.errors import UsageError\nfrom vmlab.lab import checks\nfrom vmlab import __version__, process\nimport yaml"
    assert not faults(with_code("vmlab.bench.bench", code))
    assert imported("vmlab.bench.bench", with_code("vmlab.bench.bench", code)) == {"vmlab.errors", "vmlab.lab.checks", "vmlab.process"}


def test_control_a_part_without_a_row_is_seen() -> None:
    with pytest.raises(AssertionError, match="vmlab/gradings has no row"):
        faults(with_code("vmlab.gradings", "import vmlab.lab"))


@pytest.mark.parametrize(
    "back",
    [
        "from vmlab.report.batch import Batch",
        "from . import batch",
        "def save():\n    from vmlab.report.batch import Batch  # noqa: PLC0415",
        "if TYPE_CHECKING:\n    from vmlab.report import batch",
    ],
)
def test_control_a_circle_in_a_room_is_seen(back: str) -> None:
    sources = {"vmlab.report": "", "vmlab.report.batch": "from vmlab.report import store", "vmlab.report.store": back}
    assert circles(graph(sources)) == [["vmlab.report.batch", "vmlab.report.store", "vmlab.report.batch"]]


def test_control_a_circle_through_a_rooms_own_init_is_seen() -> None:
    sources = {"vmlab.lab": "from vmlab.lab.checks import check", "vmlab.lab.checks": "from vmlab.lab import check"}
    assert circles(graph(sources)) == [["vmlab.lab", "vmlab.lab.checks", "vmlab.lab"]]


def test_control_a_long_circle_is_seen_and_a_diamond_is_none() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == [["b", "c", "d", "b"]]
    assert not circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()})


def deferred(code: str) -> Iterator[tuple[int, str]]:
    """(line, name) of each import that waits in a function."""
    for function in ast.walk(ast.parse(code)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield node.lineno, (node.module or ".") if isinstance(node, ast.ImportFrom) else node.names[0].name


def excused() -> list[str]:
    """The files of the engine whose imports may wait, as pyproject.toml names them."""
    ignores: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    return [pattern for pattern, rules in ignores.items() if "PLC0415" in rules and pattern.startswith("runner/")]


def in_the_repository(path: Path) -> str:
    return path.relative_to(PYPROJECT.parent).as_posix()


def excuse_faults(code: str) -> list[int]:
    """The lines of imports in functions that are of ours, or of which neither their noqa nor the line above says why they wait."""
    lines = code.splitlines()
    wrong, reasoned = [], set()
    for number, name in sorted(deferred(code)):
        line, above = lines[number - 1], lines[number - 2].strip()
        if re.search(r"# noqa: PLC0415 +\(\w", line) or above.startswith("# ") or number - 1 in reasoned:
            reasoned.add(number)
        if number not in reasoned or name.split(".")[0] in ("vmlab", ""):
            wrong.append(number)
    return wrong


def test_only_heavy_libraries_wait_in_functions_and_it_is_said_why() -> None:
    """An import of ours that waits hides a circle, or a room that knows too much; only what a person types may be answered sooner by it."""
    excuses = excused()
    strict = [path for path in FILES.values() if not any(fnmatch(in_the_repository(path), pattern) for pattern in excuses)]
    assert not [f"{path}:{line}" for path in strict for line in excuse_faults(path.read_text())]


def test_every_excuse_is_used() -> None:
    excuses = excused()
    assert excuses
    for pattern in excuses:
        assert any(list(deferred(path.read_text())) for path in FILES.values() if fnmatch(in_the_repository(path), pattern)), pattern


def test_control_an_import_that_waits_is_seen() -> None:
    assert excuse_faults("def f():\n    from vmlab.report import html  # noqa: PLC0415 (heavy)") == [2]
    assert excuse_faults("def f():\n    from . import html  # noqa: PLC0415 (heavy)") == [2]
    assert excuse_faults("class A:\n    async def f(self):\n        import rich") == [3]
    assert excuse_faults("def f():\n    import rich  # noqa: PLC0415") == [2]
    assert excuse_faults("def f():\n    import rich  # noqa: PLC0415 (slow)\n    import jinja2  # noqa: PLC0415\n\n    import x") == [5]
    assert not excuse_faults("import vmlab.report\ndef f():\n    # It is slow.\n    import rich  # noqa: PLC0415")


ROOMS = sorted(path.parent for path in PACKAGE.glob("*/**/__init__.py"))


def misnamed(docstring: str, folder: Path) -> set[str]:
    """What a room's table names and the room does not have, and the other way round; a folder of data may be named or not."""
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")}
    data = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("__")} - rooms
    named = {names[0] for names in rows(docstring)}
    return (named ^ (modules | rooms)) - data


@pytest.mark.parametrize("folder", ROOMS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_names_what_is_in_it(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert docstring
    assert not misnamed(docstring, folder)


def test_control_a_module_that_is_new_or_gone_is_seen(tmp_path: Path) -> None:
    for name in ("__init__.py", "one.py", "two.py", "data/x.css", "inner/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert not misnamed("A room.\n\none     a\ntwo     b; more   text\ninner/  c\n", tmp_path)
    assert misnamed("A room: one, two.\n\none     a\ninner/  c\n", tmp_path) == {"two"}
    assert misnamed("one     a\ntwo     b\ninner/  c\nthree   d", tmp_path) == {"three"}


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 100
    assert len(ROOMS) > 10
    assert sum(map(len, graph(SOURCES).values())) > 200
