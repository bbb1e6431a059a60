"""What a student is told of a program that did not end by itself, within its limits."""

from __future__ import annotations

from typing import Any

import pytest

from vmlab.lab import EvidenceProblem, Record, VerdictKind, not_built, trouble

HONEST: dict[str, Any] = {
    "how": "exited",
    "status": 0,
    "signal": None,
    "wall_s": 1.25,
    "cpu_s": 0.5,
    "stdout": "one\ntwo\n",
    "stderr": "",
    "stdout_bytes": 8,
    "refused_forks": 0,
    "oom_kills": 0,
    "left_behind": 0,
    "disk_full": False,
    "state": "",
    "sent": [],
    "limits": {"time_s": 10, "memory_mib": 64, "output_kib": 32, "processes": 16},
}
KILLED = {"how": "killed", "status": None, "signal": "SIGKILL"}


def record(**changed: Any) -> Record:
    return Record("run", HONEST | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"status": 7},
        {"left_behind": 3},
        {"how": "ended by the lab", "status": None, "signal": "SIGKILL"},
        {**KILLED, "signal": "SIGTERM", "sent": ["SIGUSR1", "SIGTERM"]},
    ],
)
def test_what_is_for_its_test_to_judge(changed: dict[str, Any]) -> None:
    assert trouble(record(**changed)) is None


@pytest.mark.parametrize(
    ("changed", "rationale"),
    [
        ({**KILLED, "oom_kills": 2}, "It needed more than its 64 MiB of memory, and the kernel ended it."),
        ({"refused_forks": 1}, "It wanted more than its 16 processes at a time: the kernel refused 1."),
        ({"how": "time limit", "state": "R", "refused_forks": 9}, "It wanted more than its 16 processes at a time: the kernel refused 9."),
        ({"how": "output limit"}, "It printed more than its 32 KiB, and was ended."),
        ({"disk_full": True}, "It filled all the space that it has for files."),
        ({"how": "time limit", "state": "R"}, "Its time of 10 s was over: it was computing."),
        ({"how": "time limit", "state": "S"}, "Its time of 10 s was over: it was waiting."),
        ({"how": "time limit", "state": "T"}, "Its time of 10 s was over: it had been stopped by a signal, and nobody continued it."),
        ({"how": "time limit", "state": ""}, "Its time of 10 s was over: it had not ended."),
        ({**KILLED, "signal": "SIGSEGV"}, "It was killed by the signal SIGSEGV."),
        ({**KILLED, "signal": "34"}, "It was killed by the signal 34."),
        ({**KILLED, "sent": ["SIGTERM"]}, "It was killed by the signal SIGKILL."),
    ],
)
def test_what_keeps_it_from_being_judged(changed: dict[str, Any], rationale: str) -> None:
    verdict = trouble(record(**changed))
    assert verdict is not None
    assert (verdict.kind, verdict.rationale) == (VerdictKind.FAIL, rationale)
    assert verdict.measured == "1.25 s, 0.50 s of them computing; the last line of its stdout: two"
    assert verdict.hint


def test_its_last_words_are_quoted() -> None:
    verdict = trouble(record(how="output limit", stderr="a\nKeyError: 'x'\n"))
    assert verdict is not None
    assert verdict.measured.endswith("the last line of its stderr: KeyError: 'x'")
    verdict = trouble(record(how="output limit", stdout=" \n"))
    assert verdict is not None
    assert verdict.measured.endswith("it printed nothing")


@pytest.mark.parametrize("changed", [{"how": "vanished"}, {"how": None}, {"oom_kills": -1}, {"disk_full": 0}, {**KILLED, "signal": None}])
def test_a_record_that_is_none(changed: dict[str, Any]) -> None:
    with pytest.raises(EvidenceProblem):
        trouble(record(**changed))


def test_what_could_not_be_built() -> None:
    built = {"language": "c", "built": True, "messages": "a.c:1: warning: x", "missing": ""}
    assert not_built(Record("build", built)) is None
    verdict = not_built(Record("build", built | {"built": False, "messages": "a.c:2: error: ';' expected\n"}))
    assert verdict is not None
    assert (verdict.kind, verdict.measured) == (VerdictKind.FAIL, "a.c:2: error: ';' expected")
    verdict = not_built(Record("build", built | {"built": False, "messages": ""}))
    assert verdict is not None
    assert verdict.measured == "the compiler failed and said nothing"
    verdict = not_built(Record("build", built | {"built": False, "missing": "tcc"}))
    assert verdict is not None
    assert verdict.kind is VerdictKind.NOT_OBSERVABLE
