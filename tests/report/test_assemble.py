"""Judging, judging again, and evidence that was tampered with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vmlab.lab import Evidence, Verdict, check, not_observable, passed
from vmlab.lab.checks import Check
from vmlab.lab.verdict import VerdictKind
from vmlab.report.assemble import differences, evidence_digest, file_part, observation, rejudge, verify_evidence
from vmlab.report.model import Report


def changed(report: Report, **update: Any) -> Report:
    return report.model_copy(update=update, deep=True)


def test_all_five_verdicts_and_their_points(samples: Any) -> None:
    report = samples.report()

    assert [check.verdict.value for check in report.checks] == ["pass", "pass", "fail", "inconclusive", "not-observable", "error"]
    assert report.score.earned == 5
    assert report.score.possible == 10, "what is not observable does not count, what is inconclusive or broken does"
    assert report.score.counts == {kind: 2 if kind is VerdictKind.PASS else 1 for kind in VerdictKind}
    assert report.verdict() is VerdictKind.ERROR


def test_checks_without_evidence_after_a_broken_run_are_errors(samples: Any) -> None:
    report = samples.broken()

    assert [check.verdict.value for check in report.checks] == ["pass", "error", "error", "error", "error", "error"]
    assert "the kernel of guest vm panicked" in report.checks[1].rationale


def test_rejudging_an_honest_report_changes_nothing(samples: Any) -> None:
    for report in (samples.report(), samples.passing(), samples.broken(), samples.empty(), samples.nasty()):
        checks = samples.checks()[: len(report.checks)]
        again = rejudge(report, checks)
        assert again == report
        assert differences(report, again) == []


def test_each_verdict_says_on_which_evidence_it_rests(samples: Any) -> None:
    by_id = {each.id: each for each in samples.report().checks}
    names = {each.name for each in samples.report().evidence.observations}
    assert all(each.rests_on for each in by_id.values() if each.verdict in (VerdictKind.PASS, VerdictKind.FAIL))
    assert {place.split(".")[0] for each in by_id.values() for place in each.rests_on} <= {*names, "parameters", "run"}


def test_a_check_may_know_what_ran_the_guests_and_a_grader_judges_the_same(samples: Any) -> None:
    @check(points=1, claim="Z1")
    def by_the_run(evidence: Evidence) -> Verdict:
        """A check that needs KVM and says which kernel it was."""
        if evidence.run.accelerator != "kvm":
            return not_observable("emulated")
        return passed("ran", measured=f"{evidence.run.kernel} of {evidence.run.guest('vm').image}")

    declared: Check = by_the_run.__vmlab_check__  # type: ignore[attr-defined]
    report = rejudge(samples.report(), [declared])
    (found,) = report.checks
    guest = report.guests[0]
    assert (found.verdict, found.measured) == (VerdictKind.PASS, f"{guest.kernel} of {guest.image}")
    assert found.rests_on == ["run.accelerator", "run.guests.vm.kernel", "run.guests.vm.image"]
    emulated = report.host.model_copy(update={"accelerator": report.host.accelerator.model_copy(update={"name": "tcg"})})
    (found,) = rejudge(changed(report, host=emulated), [declared]).checks
    assert found.verdict is VerdictKind.NOT_OBSERVABLE


def test_rejudging_detects_a_forged_verdict(samples: Any) -> None:
    honest = samples.report()
    forged = changed(honest)
    forged.checks[2].verdict = VerdictKind.PASS
    forged.checks[2].points = 3
    forged.score.earned = 8

    again = rejudge(forged, samples.checks())

    assert again.checks == honest.checks
    assert again.score == honest.score
    assert differences(forged, again) == [
        "check forks_fail_when_zombies_fill_the_limit: the report says pass, its evidence gives fail",
        "score: the report says 8 of 10, its evidence gives 5 of 10",
    ]
    assert forged.score.earned == 8, "the report given is not changed"


def test_rejudging_detects_forged_points_answers_and_dropped_checks(samples: Any) -> None:
    forged = changed(samples.report())
    forged.checks[0].points = forged.checks[0].max_points = 50
    forged.answers[1].answer_right = True
    del forged.checks[2]

    found = differences(forged, rejudge(forged, samples.checks()))

    assert "check an_unreaped_child_is_a_zombie: the report gives 50/50 points, the lab 2/2" in found
    assert "check forks_fail_when_zombies_fill_the_limit: the report does not have it" in found
    assert "answer bytes_each: the report says right, its evidence gives wrong" in found


def test_rejudging_with_the_graders_definition_ignores_the_reports_questions(samples: Any) -> None:
    forged = changed(samples.report())
    forged.lab.questions[1] = forged.lab.questions[1].model_copy(update={"tolerance": 100.0})
    assert rejudge(forged, samples.checks()).answers[1].answer_right is True

    again = rejudge(forged, samples.checks(), definition=samples.definition())

    assert again.answers[1].answer_right is False
    assert again.lab.digest == forged.lab.digest


def test_evidence_as_recorded_has_no_problem(samples: Any) -> None:
    for report in (samples.report(), samples.nasty(), samples.empty()):
        assert verify_evidence(report, None) == []


def test_a_changed_observation_is_found(samples: Any) -> None:
    report = changed(samples.report())
    report.evidence.observations[3].data["errno"] = "EAGAIN"

    assert verify_evidence(report, None) == ["observation 'exhaustion': its data does not match its sha256"]


def test_a_changed_observation_with_its_digest_renewed_is_found(samples: Any) -> None:
    report = changed(samples.report())
    report.evidence.observations[3] = observation("exhaustion", {"errno": "EAGAIN"}, at_s=1)

    (problem,) = verify_evidence(report, None)
    assert problem.startswith("evidence: the digest over all observations")


@pytest.mark.parametrize("forge", [lambda o: o.pop(), lambda o: o.reverse(), lambda o: setattr(o[0], "name", "other")])
def test_removed_moved_and_renamed_observations_are_found(samples: Any, forge: Any) -> None:
    report = changed(samples.report())
    forge(report.evidence.observations)

    assert len(verify_evidence(report, None)) == 1


def test_an_observation_given_twice_is_found(samples: Any) -> None:
    report = changed(samples.report())
    report.evidence.observations.append(report.evidence.observations[0])
    report.evidence.sha256 = evidence_digest(report.evidence.observations)

    assert verify_evidence(report, None) == ["observation 'anatomy': recorded twice"]


def test_data_without_a_canonical_form_is_a_problem_and_no_crash(samples: Any) -> None:
    report = changed(samples.report())
    report.evidence.observations[0].data["x"] = float("nan")
    report.evidence.observations[1].data["x"] = "\ud800"

    assert len(verify_evidence(report, None)) == 2


def test_files_are_verified(samples: Any, tmp_path: Path) -> None:
    (tmp_path / "console-vm.log").write_text("Linux version 6.1\n")
    part = file_part(tmp_path, "console-vm.log")
    report = samples.report(files=[part])

    assert verify_evidence(report, tmp_path) == []
    (tmp_path / "console-vm.log").write_text("Linux version 6.2\n")
    assert "size or sha256 differs" in verify_evidence(report, tmp_path)[0]
    (tmp_path / "console-vm.log").unlink()
    assert verify_evidence(report, tmp_path) == ["file console-vm.log: missing"]
    assert verify_evidence(report, None) == []


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "link", "fifo", "a\\b", "a\nb"])
def test_paths_of_a_forged_report_lead_nowhere(samples: Any, tmp_path: Path, path: str) -> None:
    inside = tmp_path / "report"
    inside.mkdir()
    (tmp_path / "secret").write_text("x")
    (inside / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "fifo")
    part = file_part(tmp_path, "secret").model_copy(update={"path": path})

    assert len(verify_evidence(samples.report(files=[part]), inside)) == 1


def test_lone_surrogates_are_replaced_before_they_are_hashed(samples: Any) -> None:
    part = observation("x", {"\ud800": ["a\udfffb"]}, at_s=0)

    assert part.data == {"\ufffd": ["a\ufffdb"]}
    assert Report.model_validate_json(samples.report({"x": part.data}).model_dump_json()).evidence.observations[0] == part.model_copy(
        update={"at_s": 1.5}
    )
