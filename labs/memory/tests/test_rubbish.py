"""Nothing, and garbage: no check decides anything on it, and none breaks."""

from __future__ import annotations

from typing import Any

import pytest

from vmlab.lab.controls import INCONCLUSIVE, put

from .sound import CHAIN, KVM, SOUND


@pytest.mark.parametrize("check", SOUND.names)
def test_nothing_is_inconclusive(check: str) -> None:
    KVM.hold_without_evidence(check)


@pytest.mark.parametrize("nothing", ["0x1", {"walk": {}, "ready": {}, "host": {}, "answer": {}}], ids=repr)
@pytest.mark.parametrize("name", CHAIN)
def test_nothing_in_the_shape_of_something_is_inconclusive(name: str, nothing: Any) -> None:
    read = next(each for each in SOUND.world().observations if each in SOUND.reads(name).places)
    assert SOUND.verdict(name, put(read, nothing)).kind is INCONCLUSIVE


@pytest.mark.parametrize("check", SOUND.names)
def test_no_garbage_breaks_a_check(check: str) -> None:
    KVM.hold_on_garbage(check)
