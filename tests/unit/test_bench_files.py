"""What an experiment makes of the files in its lab's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import stage
from vmlab.bench import Bench
from vmlab.errors import UsageError
from vmlab.lab.collection import read_lab
from vmlab.lab.skeleton import create


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return create("files", tmp_path)


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    with stage(folder) as here:
        yield Bench(read_lab(folder), here, {})


def test_a_yaml_file_is_read_as_lab_yaml_is(bench: Bench, folder: Path) -> None:
    (folder / "graph.yaml").write_text("services: {a: {sleep: 1.5, after: [no]}}\n")
    assert bench.data("graph.yaml") == {"services": {"a": {"sleep": 1.5, "after": ["no"]}}}
    (folder / "graph.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(UsageError, match=r"graph\.yaml:2"):
        bench.data("graph.yaml")


def test_a_template_is_filled_in(bench: Bench, folder: Path) -> None:
    (folder / "templates").mkdir()
    (folder / "templates" / "unit.j2").write_text("[Unit]\n{% if after %}\nAfter={{ after }}\n{% endif %}\nName={{ name }}\n")
    assert bench.render("templates/unit.j2", name="a<b", after="") == "[Unit]\nName=a<b\n"
    assert bench.render("templates/unit.j2", name="a", after="b") == "[Unit]\nAfter=b\nName=a\n"


@pytest.mark.parametrize("text", ["{{ missing }}", "line\n{% if %}", "{% include 'none' %}"])
def test_a_template_that_cannot_be_filled_in_is_the_authors_to_mend(bench: Bench, folder: Path, text: str) -> None:
    (folder / "x.j2").write_text(text)
    with pytest.raises(UsageError, match=r"files/x\.j2"):
        bench.render("x.j2")


def test_a_guest_that_is_for_other_runs_is_refused_with_those(bench: Bench) -> None:
    (bench._lab.definition.guests["main"]).when["host"] = ["amd", "intel"]
    with pytest.raises(UsageError, match=r"guest main is for runs with host=amd\|intel"):
        bench.guest()
