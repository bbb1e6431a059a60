"""JUnit XML as CI services read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from junitparser import JUnitXml

from vmlab.report.assemble import file_part
from vmlab.report.junit import junit_xml
from vmlab.report.model import FilePart


def parsed(document: bytes) -> ET.Element:
    return ET.fromstring(document)


def test_one_case_a_check(samples: Any) -> None:
    root = parsed(junit_xml(samples.report()))
    cases = root.findall("./testsuite/testcase")

    assert [(case.get("name"), [child.tag for child in case]) for case in cases] == [
        ("an_unreaped_child_is_a_zombie", ["properties"]),
        ("a_zombie_holds_a_few_kib_of_slab", ["properties"]),
        ("forks_fail_when_zombies_fill_the_limit", ["failure", "properties"]),
        ("kill_does_not_remove_a_zombie", ["failure", "properties"]),
        ("orphans_go_to_the_nearest_subreaper", ["skipped", "properties"]),
        ("the_check_that_breaks", ["error", "properties"]),
    ]
    assert {case.get("classname") for case in cases} == {"vmlab.zombies"}
    assert all(case.get("time") is not None for case in cases)
    suite = root.find("testsuite")
    assert suite is not None
    assert {name: suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped", "time")} == {
        "name": "zombies",
        "tests": "6",
        "failures": "2",
        "errors": "1",
        "skipped": "1",
        "time": "21.37",
    }


def properties(element: ET.Element) -> dict[str | None, str | None]:
    return {each.get("name"): each.get("value") for each in element.findall("./properties/property")}


def test_how_a_claim_stands_is_a_property_of_its_checks_and_no_result(samples: Any) -> None:
    root = parsed(junit_xml(samples.report()))
    cases = {str(case.get("name")): properties(case) for case in root.findall("./testsuite/testcase")}

    assert cases["an_unreaped_child_is_a_zombie"] == {"claim": "Z1", "claim_stands": "simplified"}
    assert cases["kill_does_not_remove_a_zombie"] == {"claim": "Z4", "claim_stands": "wrong"}
    suite = root.find("testsuite")
    assert suite is not None
    assert properties(suite)["predictions_of_the_student_that_held"] == "1 of 2"


def test_what_people_read_is_in_the_content_too(samples: Any) -> None:
    failure, inconclusive = parsed(junit_xml(samples.report())).findall("./testsuite/testcase/failure")

    assert failure.get("message") == "Fork failed for another reason than a full process table."
    assert failure.get("type") == "fail"
    assert (failure.text or "").splitlines() == [
        "When zombies fill the limit, fork fails with EAGAIN.",
        "Fork failed for another reason than a full process table.",
        "expected: EAGAIN",
        "measured: ENOMEM",
        "hint: Look at pids.events in the cgroup, and at dmesg.",
    ]
    assert inconclusive.get("type") == "inconclusive"


def test_a_broken_run_stands_in_front(samples: Any) -> None:
    first = parsed(junit_xml(samples.broken())).findall("./testsuite/testcase")[0]
    error = first.find("error")

    assert first.get("name") == "run"
    assert error is not None
    assert error.get("type") == "GuestPanicked"
    assert "Attempted to kill init" in (error.text or "")


def test_names_are_unique(samples: Any) -> None:
    report = samples.broken().model_copy(deep=True)
    for check in report.checks[:3]:
        check.id = "run"

    names = [case.get("name") for case in parsed(junit_xml(report)).findall("./testsuite/testcase")]

    assert names[:4] == ["run", "run-2", "run-3", "run-4"]


@pytest.mark.parametrize("name", ["report", "passing", "broken", "empty", "nasty"])
def test_documents_are_well_formed_and_read_by_a_parser(samples: Any, name: str) -> None:
    document = junit_xml(getattr(samples, name)())

    assert document.startswith(b"<?xml")
    assert sum(1 for suite in JUnitXml.fromstring(document) for _ in suite) == len(parsed(document).findall("./testsuite/testcase"))
    assert b"\x1b" not in document
    assert "\u202e" not in document.decode()


def test_only_files_that_exist_are_attached(samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "reports" / "x"
    directory.mkdir(parents=True)
    (directory / "console-vm.log").write_text("x")
    gone = FilePart(path="gone.log", sha256="", size_bytes=0)
    outside = FilePart(path="../../../etc/passwd", sha256="", size_bytes=0)
    report = samples.report(files=[file_part(directory, "console-vm.log"), gone, outside])
    monkeypatch.chdir(tmp_path)

    attached = [case.findtext("system-out") for case in parsed(junit_xml(report, directory)).findall("./testsuite/testcase")]

    assert attached[0] is None, "a check that passed needs no log"
    assert attached[2] == "[[ATTACHMENT|reports/x/console-vm.log]]"
    assert b"ATTACHMENT" not in junit_xml(report)
