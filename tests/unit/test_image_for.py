"""Which image a guest of a lab boots."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmlab.errors import UsageError
from vmlab.lab.guests import GuestRequest
from vmlab.progress import Progress
from vmlab.run.session import image_for

GUESTS = {
    "main": GuestRequest(images=["debian-13-kvm", "debian-12"]),
    "amd_host": GuestRequest(images=["debian-13-kvm"], cpus=1, virtualisation="svm"),
    "any": GuestRequest(),
}


class Store:
    """An image store that hands out names."""

    default = "debian-13"

    def is_users_own(self, name: str) -> bool:
        return name == "./own.qcow2"

    def get(self, name: str, _deadline: object) -> str:
        return name


def image(guest: str, chosen: str | None, **guests: GuestRequest) -> Any:
    lab = SimpleNamespace(name="memory", directory=Path(), definition=SimpleNamespace(guests=guests or GUESTS))
    return image_for(cast(Any, lab), guest, cast(Any, Store()), chosen, Progress())


def test_without_a_choice_it_is_the_guests_first_or_the_catalogues_default() -> None:
    assert [image(guest, None) for guest in GUESTS] == ["debian-13-kvm", "debian-13-kvm", "debian-13"]


def test_a_choice_is_for_the_guests_that_it_suits() -> None:
    """``--image debian-12`` does not take from the guest that runs guests what it runs them with."""
    assert [image(guest, "debian-12") for guest in GUESTS] == ["debian-12", "debian-13-kvm", "debian-12"]


def test_whoever_brings_an_image_of_their_own_finds_out() -> None:
    assert [image(guest, "./own.qcow2") for guest in GUESTS] == ["./own.qcow2"] * 3


def test_a_choice_that_suits_none_is_refused_with_those_that_would() -> None:
    named = {name: GUESTS[name] for name in ("main", "amd_host")}
    with pytest.raises(UsageError, match="does not run on") as caught:
        image("main", "fedora-43", **named)
    assert caught.value.hint == "it runs on: debian-13-kvm, debian-12"
