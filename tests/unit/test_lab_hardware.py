"""What lab.yaml may say of drives, networks and processors, and what the machine wing makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.tinylab import write_lab
from tests.unit.test_template_key import IMAGE
from vmlab.bench.request import boot_request
from vmlab.errors import HostError, UsageError
from vmlab.guest import boot, seed
from vmlab.guest.drive import Drive
from vmlab.guest.link import Link, placeholder
from vmlab.guest.machine import BootRequest
from vmlab.guest.processor import ORDINARY, Processor
from vmlab.host.capacity import Need, Share
from vmlab.lab.collection import read_lab
from vmlab.lab.lab import Lab
from vmlab.run import session

Labs = Callable[[str], Lab]


@pytest.fixture
def lab(tmp_path: Path) -> Labs:
    """A lab whose guests and networks are as given."""
    folder = write_lab(tmp_path, "aa")
    (folder / "book.txt").write_text("a book")

    def make(text: str) -> Lab:
        whole = yaml.safe_load((folder / "lab.yaml").read_text()) | yaml.safe_load(text)
        (folder / "lab.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        return read_lab(folder)

    return make


def request(lab: Lab, name: str = "main", accelerator: str = "kvm") -> BootRequest:
    return boot_request(lab, name, lab.definition.guests[name], IMAGE, "kvm" if accelerator == "kvm" else "tcg")


def test_a_guest_that_asks_for_nothing_has_nothing_more(lab: Labs) -> None:
    plain = request(lab("guests: {main: {}}"))
    assert (plain.drives, plain.links, plain.processor, plain.accelerator) == ((), (), ORDINARY, "kvm")


def test_what_a_guest_asks_for(lab: Labs) -> None:
    made = lab(
        "guests: {main: {accelerator: tcg, cpu: {la57: false, pcid: true, physical_bits: 40}, disks: {data: {size_mib: 64}, "
        "book: {size_mib: 1, read_only: true, host_cache: false, content: book.txt}}}}"
    )
    asked = request(made)
    assert asked.accelerator == "tcg"
    assert asked.processor == Processor(la57=False, pcid=True, physical_bits=40)
    assert asked.drives == (Drive("data", 64), Drive("book", 1, host_cache=False, read_only=True, content=made.directory / "book.txt"))


def test_addresses_are_by_place_and_the_same_in_each_run(lab: Labs) -> None:
    made = lab("{networks: {one: {}, two: {delay_ms: 5}}, guests: {a: {networks: [two, one]}, b: {networks: [two]}, c: {}}}")
    assert request(made, "a").links == (Link("two", "52:54:00:77:02:01", "10.77.2.1"), Link("one", "52:54:00:77:01:01", "10.77.1.1"))
    assert request(made, "b").links == (Link("two", "52:54:00:77:02:02", "10.77.2.2"),)
    assert request(made, "c").links == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("guests: {main: {disks: {data: {}}}}", r"disks\.data\.size_mib: is missing"),
        ("guests: {main: {disks: {data: {size_mib: 0}}}}", "at least 1"),
        ("guests: {main: {disks: {data: {size_mib: 8193}}}}", "at most 8192"),
        ("guests: {main: {disks: {root: {size_mib: 1}}}}", "and not root"),
        ("guests: {main: {disks: {aaaaaaaaaabbbbbbbbbbc: {size_mib: 1}}}}", "at most 20"),
        ("guests: {main: {disks: {Data: {size_mib: 1}}}}", "lower-case"),
        ("guests: {main: {disks: {'a,b=c': {size_mib: 1}}}}", "lower-case"),
        ("guests: {main: {disks: {data: {size_mib: 1, content: /etc/passwd}}}}", "a file in the lab's folder"),
        ("guests: {main: {disks: {data: {size_mib: 1, content: ../x}}}}", "a file in the lab's folder"),
        ("guests: {main: {disks: {data: {size_mib: 1, content: tests/x}}}}", "not among its tests"),
        ("guests: {main: {disks: {data: {size_mib: 1, content: ''}}}}", "a file in the lab's folder"),
        ("guests: {main: {disks: {data: {size_mib: 1, cache: none}}}}", "cache"),
        ("guests: {main: {networks: [wire]}}", r"guest main is on the network wire, .* networks: \{wire: \{\}\}"),
        ("{networks: {wire: {}}, guests: {main: {networks: [wire, wire]}}}", "once"),
        ("networks: {eth0: {}}", "none of the kernel's own names"),
        ("networks: {lo: {}}", "none of the kernel's own names"),
        ("networks: {abcdefghijklm: {}}", "at most 12"),
        ("networks: {wire: {loss_percent: 101}}", "at most 100"),
        ("networks: {wire: {delay_ms: -1}}", "at least 0"),
        ("guests: {main: {cpu: {physical_bits: 31}}}", "at least 32"),
        ("guests: {main: {cpu: {la58: true}}}", "la57"),
        ("guests: {main: {accelerator: kvm}}", "tcg"),
        ("guests: {main: {cpus: 1, virtualisation: svm, cpu: {la57: false}}}", "a processor of its own"),
        ("guests: {main: {emulator: bochs, cpus: 1, memory_mib: 512, disks: {data: {size_mib: 1}}}}", "no disks"),
        ("{networks: {wire: {}}, guests: {main: {emulator: bochs, cpus: 1, memory_mib: 512, networks: [wire]}}}", "no networks"),
    ],
)
def test_a_mistake_is_answered_in_one_line(lab: Labs, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        lab(text)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "says"), [("missing.txt", "has no file missing.txt"), ("guest", "has no file guest"), ("large.bin", "and the disk 1 MiB")]
)
def test_content_that_cannot_be_had_is_a_mistake_in_lab_yaml_and_told_before_a_slot_is_waited_for(
    lab: Labs, content: str, says: str
) -> None:
    made = lab(f"guests: {{main: {{disks: {{data: {{size_mib: 1, content: {content}}}}}}}}}")
    (made.directory / "large.bin").write_bytes(bytes((1 << 20) + 1))
    need = Need({"main": Share(1, 1)})
    for asks in (lambda: request(made), lambda: session.check_drives(made, need)):
        with pytest.raises(UsageError, match=says) as caught:
            asks()
        assert "lab.yaml: guests.main.disks.data.content" in caught.value.message


def test_room_for_all_drives_of_a_run_is_looked_for_first(lab: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lab("guests: {a: {disks: {x: {size_mib: 8000}, y: {size_mib: 8000}}}, b: {disks: {x: {size_mib: 8000}}}, c: {}}")
    asked = []
    monkeypatch.setattr(session, "require_space", lambda directory, drives_bytes: asked.append(drives_bytes >> 20))
    session.check_drives(made, Need(dict.fromkeys("ab", Share(1, 1))))
    session.check_drives(made, Need({"c": Share(1, 1)}))
    assert asked == [24000]
    with pytest.raises(HostError, match="needs at least"):
        boot.require_space(made.directory, 1 << 60)


def test_a_boot_leaves_a_labs_interfaces_alone_and_an_ordinary_seed_is_as_it_was() -> None:
    nobody = seed.Identity("HOST", "INSTANCE", seed.KeyPair("PRIVATE", "PUBLIC"), seed.KeyPair("PRIVATE", "PUBLIC"))
    ordinary = seed.render(nobody, user="debian", extra={})["network-config"]
    assert ordinary.endswith('      name: "e*"\n    dhcp4: true\n')
    config = yaml.safe_load(seed.render(nobody, user="debian", extra={}, idle=[placeholder(1), placeholder(2)])["network-config"])
    # netplan's files are read in the order of these names, and the first that matches counts: they must come before `primary`.
    assert sorted(config["ethernets"]) == ["lab1", "lab2", "primary"]
    assert config["ethernets"]["lab2"]["match"] == {"macaddress": "52:54:00:76:6c:02"}
    assert (config["ethernets"]["lab1"]["optional"], config["ethernets"]["lab1"]["dhcp4"]) == (True, False)
