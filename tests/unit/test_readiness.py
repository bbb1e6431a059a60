"""Readiness: the order of steps, the deadline's error, and cloud-init's verdict."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from vmlab.deadline import Deadline
from vmlab.errors import BootTimeout, GuestPanicked
from vmlab.guest.readiness import Step, cloud_init_status, parse_cloud_init, wait
from vmlab.progress import Progress


def nothing(*_: object) -> None:
    pass


class Sleeper:
    """A guest that lives and says little."""

    began = 0.0

    def check_alive(self) -> None:
        pass

    def tail(self) -> str:
        return "last words"


def test_steps_are_asked_in_order_until_they_come_true() -> None:
    asked: list[str] = []

    def step(name: str, needed: int) -> Step:
        def probe(_: Deadline) -> bool:
            asked.append(name)
            return asked.count(name) >= needed

        return Step(name, "", probe)

    reached = wait([step("kernel", 2), step("sshd", 1)], Sleeper(), Deadline(5), Progress())
    assert asked == ["kernel", "kernel", "sshd"]
    assert [each.name for each in reached] == ["kernel", "sshd"]


def test_the_deadline_names_the_step_its_hint_and_the_consoles_tail() -> None:
    hangs = Step("sshd", "look at the console", lambda _: False)
    with pytest.raises(BootTimeout) as caught:
        wait([hangs], Sleeper(), Deadline(0.2), Progress())
    assert "'sshd'" in caught.value.message
    assert caught.value.hint == "look at the console"
    assert caught.value.detail == "last words"


def test_a_death_ends_the_wait_long_before_the_deadline() -> None:
    began = time.monotonic()

    class Dead(Sleeper):
        def check_alive(self) -> None:
            raise GuestPanicked("it panicked")

    with pytest.raises(GuestPanicked):
        wait([Step("sshd", "", lambda _: False)], Dead(), Deadline(60), Progress())
    assert time.monotonic() - began < 5


CLEAN: dict[str, Any] = {"v1": {"datasource": "NoCloud", "init": {"errors": [], "recoverable_errors": {}}, "stage": None}}
RESULT = {"v1": {"datasource": "NoCloud", "errors": []}}


def test_cloud_init_without_errors_is_done() -> None:
    status = parse_cloud_init(json.dumps(CLEAN) + "\n" + json.dumps(RESULT) + "\n")
    assert (status.status, status.exit_code, status.detail) == ("done", 0, [])


def test_recoverable_errors_are_degraded_and_kept() -> None:
    degraded = {"v1": {"init": {"errors": [], "recoverable_errors": {"WARNING": ["bad key"]}}}}
    status = cloud_init_status(degraded, RESULT)
    assert (status.status, status.exit_code) == ("degraded", 2)
    assert status.detail == ["init: WARNING: bad key"]


def test_errors_of_any_stage_or_of_the_result_are_fatal() -> None:
    assert cloud_init_status({"v1": {"modules-final": {"errors": ["boom"]}}}, RESULT).exit_code == 1
    assert cloud_init_status(CLEAN, {"v1": {"errors": ["boom"]}}).exit_code == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[] []", "{} {}", '{"v1": 3} {"v1": []}', "null null", '{"v1": {"init": 1}} {"v1": {"errors": 7}}']
)
def test_garbage_from_the_guest_is_an_error_or_nothing_found_never_an_exception(text: str) -> None:
    assert parse_cloud_init(text).exit_code in (0, 1)


def test_missing_stages_are_no_success() -> None:
    assert parse_cloud_init("{} {}").exit_code == 1
