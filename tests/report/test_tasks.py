"""The student's own work in a report: judged from evidence, shown in every form, with points of its own."""

from __future__ import annotations

from typing import Any

from vmlab.lab import Evidence, Verdict, failed, passed, task_test
from vmlab.lab.task import Task
from vmlab.lab.task_tests import TaskTest
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.work import Attempt
from vmlab.report.assemble import differences, rejudge, with_tests
from vmlab.report.html import report_html
from vmlab.report.junit import junit_xml
from vmlab.report.lines import closing_lines, report_lines
from vmlab.report.model import ErrorPart, Report, TaskPart
from vmlab.report.tasks import Tried, task_part

TASK = Task.model_validate({"title": "A supervisor", "kind": "program", "points": 5, "program": ["reaper.py"]})
BUILT = {"program": "reaper.py", "files": {}, "build": {"built": True, "messages": "", "missing": ""}}


@task_test(task="reaper", points=3)
def it_reaps(evidence: Evidence) -> Verdict:
    """Forty children end at once.

    Zombies are counted from outside.
    """
    left = evidence["reaper_burst"].integer("left")
    return passed("None is left.", measured="0") if left == 0 else failed("Some stay.", measured=str(left), hint="wait again")


@task_test(task="reaper", points=2)
def it_sleeps(evidence: Evidence) -> Verdict:
    """Nothing happens."""
    return passed("It sleeps.", measured=str(evidence["reaper_idle"].number("cpu_s")))


TESTS: list[TaskTest] = [getattr(each, "__vmlab_task_test__") for each in (it_reaps, it_sleeps)]  # noqa: B009


def part(*, changed: bool = True, text: str = "print(1)\n", **more: Any) -> TaskPart:
    return task_part(Tried(Attempt("reaper", {"reaper.py": text}, "reaper.py", changed), **more), TASK)


def report(samples: Any, data: dict[str, Any], task: TaskPart) -> Report:
    found: Report = with_tests(samples.report(samples.data() | data, tasks=[task]), TESTS)
    return found


def tried(samples: Any, data: dict[str, Any], **more: Any) -> TaskPart:
    return report(samples, data, part(**more)).tasks[0]


def kinds(task: TaskPart) -> list[str]:
    return [test.verdict.value for test in task.tests]


def test_each_test_is_judged_from_what_was_recorded(samples: Any) -> None:
    found = tried(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 3}, "reaper_idle": {"cpu_s": 0.01}})
    assert kinds(found) == ["fail", "pass"]
    assert (found.score.earned, found.score.possible) == (2, 5)
    assert found.files[0].text == "print(1)\n"


def test_the_points_of_tasks_are_none_of_the_demonstration(samples: Any) -> None:
    with_work = report(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 0}, "reaper_idle": {"cpu_s": 0.01}}, part())
    assert with_work.score == samples.report().score
    assert with_work.tasks[0].score.earned == 5


def test_a_failed_test_makes_the_run_fail(samples: Any) -> None:
    passing = samples.passing()
    with_work = passing.model_copy(
        update={"tasks": [tried(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 3}, "reaper_idle": {"cpu_s": 0}})]}
    )
    assert passing.verdict() is not VerdictKind.FAIL
    assert with_work.verdict() is VerdictKind.FAIL


def test_what_was_not_attempted_has_no_verdict_and_no_points(samples: Any) -> None:
    found = tried(samples, {}, changed=False)
    assert found.tests == []
    assert (found.score.earned, found.score.possible) == (0, 5)
    assert any("not attempted" in line for line in closing_lines(report(samples, {}, part(changed=False)), "here"))


def test_a_program_that_does_not_compile_fails_every_test_with_the_compilers_words(samples: Any) -> None:
    broken = BUILT | {"build": {"built": False, "messages": 'reaper.py:3\n  SyntaxError: "(" was never closed\n', "missing": ""}}
    found = tried(samples, {"task_reaper": broken})
    assert kinds(found) == ["fail", "fail"]
    assert "could not be compiled" in found.tests[0].rationale
    assert "reaper.py:3" in found.tests[0].measured
    assert "never closed" in found.tests[0].measured


def test_an_image_without_a_compiler_is_nobodys_fault(samples: Any) -> None:
    lacking = BUILT | {"build": {"built": False, "messages": "", "missing": "tcc"}}
    assert kinds(tried(samples, {"task_reaper": lacking})) == ["not-observable", "not-observable"]


def test_a_guest_that_roots_program_lost_fails_what_was_not_seen_before(samples: Any) -> None:
    lost = {"task_reaper_lost": {"kind": "GuestPanicked", "message": "the kernel of guest main panicked"}}
    found = tried(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 0}, **lost})
    assert kinds(found) == ["pass", "fail"]
    assert "panicked" in found.tests[1].rationale


def test_a_try_that_broke_is_an_error_and_no_failure(samples: Any) -> None:
    found = tried(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 0}}, error=ErrorPart(kind="SshError", message="lost"))
    assert kinds(found) == ["pass", "error"]
    assert report(samples, {}, part(error=ErrorPart(kind="SshError", message="lost"))).verdict() is VerdictKind.ERROR


def test_judging_again_believes_nothing_that_is_claimed_of_tests(samples: Any) -> None:
    honest = report(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 3}, "reaper_idle": {"cpu_s": 0.01}}, part())
    assert rejudge(honest, samples.checks(), TESTS) == honest
    forged_test = honest.tasks[0].tests[0].model_copy(update={"verdict": VerdictKind.PASS, "points": 3.0})
    forged = honest.model_copy(update={"tasks": [honest.tasks[0].model_copy(update={"tests": [forged_test, honest.tasks[0].tests[1]]})]})
    judged = rejudge(forged, samples.checks(), TESTS)
    assert judged.tasks == honest.tasks
    assert differences(forged, judged) == ["test it_reaps: the report says pass, its evidence gives fail"]


def test_a_file_that_was_changed_shows(samples: Any) -> None:
    honest = report(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 0}, "reaper_idle": {"cpu_s": 0}}, part())
    file = honest.tasks[0].files[0].model_copy(update={"text": "print(2)\n"})
    forged = honest.model_copy(update={"tasks": [honest.tasks[0].model_copy(update={"files": [file]})]})
    assert differences(forged, rejudge(forged, samples.checks(), TESTS)) == ["task reaper: the file reaper.py does not match its sha256"]


def test_the_page_shows_the_files_and_the_tests_and_escapes_both(samples: Any) -> None:
    hostile = "</pre><script>alert(1)</script>\x1b[31m\n"
    page = report_html(
        report(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 3}, "reaper_idle": {"cpu_s": 0}}, part(text=hostile))
    )
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "Forty children end at once." in page
    assert 'href="#task-reaper"' in page
    assert "Own work: of 2 tests, 1 fails" in page
    assert "Claim </dt>" not in page, "a test is of no claim"


def test_junit_and_lines_have_each_test(samples: Any) -> None:
    found = report(samples, {"task_reaper": BUILT, "reaper_burst": {"left": 3}, "reaper_idle": {"cpu_s": 0}}, part())
    assert b'name="reaper.it_reaps"' in junit_xml(found)
    lines = report_lines(found)
    assert any(line.startswith("✗ fail") and "Forty children end at once.  [0/3]" in line for line in lines)
    assert "task reaper: A supervisor: 2/5 points (1 pass, 1 fail)" in lines
