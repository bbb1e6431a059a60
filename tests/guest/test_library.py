"""The library for guest scripts in real guests: every module at work, found by whoever looks for it, and quick to import."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BOOT_S
from tests.stage import stage
from vmlab.bench import GUEST_LAB_DIR, Bench, Guest
from vmlab.guest.clone.store import TemplateStore
from vmlab.lab import library, read_lab
from vmlab.progress import Progress

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900), pytest.mark.xdist_group("library")]

LAB = read_lab(Path(__file__).with_name("lab_of_library"))

# (A bare Python takes 130 ms in an emulated guest.)
SAY_LIMIT_MS = 30


@pytest.fixture(scope="module", params=["debian13", "debian12"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    image = request.getfixturevalue(request.param)
    with stage(tmp_path_factory.mktemp("logs"), {"main": image}, limit_s=2 * BOOT_S) as here:
        yield Bench(LAB, dataclasses.replace(here, templates=TemplateStore(Progress())), {})


@pytest.fixture
def guest(bench: Bench) -> Guest:
    return bench.guest()


def test_every_module_works(guest: Guest) -> None:
    seen: dict[str, Any] = guest.script("everything.py").record
    assert seen["python"].startswith(("3.11.", "3.13."))
    assert seen["proc"]["comm"] == "a (b) c"
    assert seen["proc"]["threads"] == [seen["proc"]["pid"]]
    assert seen["proc"]["masks"]["CapEff"].startswith("0x000001")
    assert seen["child"] == {
        "nobody": {"uid": 65534, "capabilities": "0x0000000000000000"},
        "adopted_by": 1,
        "state": "Z",
        "raw_status": 1792,
    }
    assert seen["namespaces"] == {"numbers": [1, 2], "end": {"in_time": True, "members_killed": 1}, "over": True}
    assert seen["cgroup"] == {"throttled": True, "members": 1, "left": [], "pids_max": 5}
    assert seen["syscalls"]["same"] == [True, False]
    assert (seen["syscalls"]["subreaper"], seen["syscalls"]["grace_period"], seen["syscalls"]["policy"]) == (True, True, 0)
    assert (seen["pages"]["frames"], seen["pages"]["hidden"], seen["pages"]["smaps"]) == (8, False, 32)
    assert (seen["pages"]["before"]["cache"], seen["pages"]["after"]["cache"]) == (64, 0)
    assert (seen["native"]["sum"], seen["native"]["getpid"]) == (1000, True)
    assert {name: len(taken) for name, taken in seen["timing"]["samples"].items()} == {"read": 5, "getpid": 5}


def test_it_is_found_by_whoever_looks_for_it(guest: Guest) -> None:
    """By scripts in folders, by what a script starts elsewhere, by other users, and by hand."""
    assert guest.script("sub/within.py").record["uid"] == 0
    assert guest.script("sub/within.py", user="nobody").record == {"uid": 65534, "capabilities": "0x0000000000000000"}
    assert guest.script("elsewhere.sh").record == {"elsewhere": True}
    by_hand = guest.run(f"cd / && env -i /usr/bin/python3 {GUEST_LAB_DIR}/answers.py", input='{"x": 1}\n')
    assert by_hand.stdout == '{"x": 1, "count": 1}\n'
    modes = guest.run(f"stat -c %a {GUEST_LAB_DIR}/vmlab_guest {GUEST_LAB_DIR}/vmlab_guest/say.py").stdout.split()
    assert modes == ["755", "644"]


def test_it_is_talked_to(guest: Guest) -> None:
    with guest.start("answers.py") as talk:
        for count in (1, 2):
            talk.send({"x": None})
            assert talk.read() == {"x": None, "count": count}
        talk.finish()


def test_saying_costs_little(guest: Guest) -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in library.files() if "__init__" not in name]
    taken = guest.script("imports.py", 9, *modules, time_limit_s=200).record["took_ms"]
    # (The least of each: what else the machine does can only add to a time.)
    bare = min(taken.pop("nothing"))
    costs = {name: round(min(samples) - bare, 1) for name, samples in taken.items()}
    print(json.dumps({"bare_ms": bare, **costs}))
    assert costs["vmlab_guest.say"] <= SAY_LIMIT_MS


def test_on_this_machine_too(bench: Bench) -> None:
    seen = bench.here("sub/within.py")
    assert seen["capabilities"].startswith("0x")
