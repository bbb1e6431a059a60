"""Two real guests, one cloned and one booted, with drives and processors of a lab's choice, on one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BOOT_S
from tests.stage import stage
from vmlab.bench import Bench
from vmlab.errors import ScriptError
from vmlab.guest.clone.store import TemplateStore
from vmlab.image.image import Image
from vmlab.lab.collection import read_lab
from vmlab.progress import Progress

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900), pytest.mark.xdist_group("hardware")]

LAB = read_lab(Path(__file__).with_name("lab_of_hardware"))


@pytest.fixture(scope="module")
def bench(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with stage(tmp_path_factory.mktemp("logs"), dict.fromkeys(LAB.definition.guests, debian13), limit_s=2 * BOOT_S) as here:
        yield Bench(LAB, dataclasses.replace(here, templates=TemplateStore(Progress())), {})


def test_one_is_cloned_and_one_booted_and_both_are_on_the_network(bench: Bench) -> None:
    left, right = bench.guest("left"), bench.guest("right")
    assert [(guest.part().start, guest.part().fallback) for guest in (left, right)] == [("clone", ""), ("cold", "")]
    for guest, address in ((left, "10.77.1.1"), (right, "10.77.1.2")):
        assert guest.address("wire") == address
        rows = [line.split() for line in guest.run("ip -br address").stdout.splitlines()]
        assert ["wire", "UP", f"{address}/24"] in rows
        assert any(row[:3] == ["eth0", "UP", "10.0.2.15/24"] for row in rows)
    # (Its seed says of these interfaces what an ordinary one does not.)
    assert right.run("cloud-init schema --system", check=False).status == 0
    # The template wrote nothing to its drive, and announced nothing on the network.
    assert bench.network("wire").statistics()["sent"] == 0


def test_a_segment_that_is_dropped_is_sent_again_and_seen_on_the_wire_alone(bench: Bench) -> None:
    left, right, wire = bench.guest("left"), bench.guest("right"), bench.network("wire")
    with left.packets("wire") as near, left.packets() as elsewhere, wire.packets() as between, right.start("receive.py") as talk:
        assert talk.read() == {"ready": True}
        with wire.dropping(3, sender="left", matching=lambda packet: packet.get("payload_bytes", 0) > 0) as dropped:
            left.script("send.py", right.address("wire"))
            assert talk.read() == {"received": 20006, "sender": "10.77.1.1"}
        talk.finish()
    (lost,) = dropped
    again = [each for each in between.packets() if each.get("sequence") == lost["sequence"] and each["sender"] == "left"]
    assert [each["fate"] for each in again[:2]] == ["dropped", "forwarded"]
    assert near.count(b"MARKER") == between.count(b"MARKER") == 1
    assert elsewhere.count(b"MARKER") == 0
    assert elsewhere.packets(), "the runner's own SSH passes there"
    # The only way to it is a descriptor that QEMU inherited.
    (netdev,) = [word for word in left.machine.argv if word.startswith("socket,id=net1")]
    assert netdev.split(",")[2].startswith("fd=")


def test_what_is_delayed_takes_its_time(bench: Bench) -> None:
    left, right, wire = bench.guest("left"), bench.guest("right"), bench.network("wire")
    with right.start("receive.py") as talk:
        talk.read()
        with wire.delaying(300):
            # The connection alone takes two ways.
            assert left.script("send.py", right.address("wire")).record["took_s"] >= 0.6
            talk.read()
        talk.finish()


def test_a_drive_is_seen_from_both_sides(bench: Bench) -> None:
    left = bench.guest("left")
    disk = left.disk("data")
    assert disk.statistics()["wr_operations"] == 0
    left.run("mkfs.ext4 -q -b 4096 /dev/disk/by-id/virtio-data && mount /dev/disk/by-id/virtio-data /mnt && echo 'a needle' >/mnt/file")
    assert disk.find(b"a needle") is None, "it is in the guest's page cache"
    before = disk.statistics()
    left.run("sync")
    place = disk.find(b"a needle")
    assert place is not None
    after = disk.statistics()
    assert after["wr_bytes"] > before["wr_bytes"]
    assert after["flush_operations"] > before["flush_operations"]
    disk.write(place, b"b")
    assert left.read_text("/mnt/file") == "a needle\n", "the guest has it in its page cache"
    left.run("umount /mnt && mount /dev/disk/by-id/virtio-data /mnt")
    assert left.read_text("/mnt/file") == "b needle\n"
    assert bench.guest("right").disk("data").find(b"needle") is None


def test_a_drive_that_may_only_be_read_holds_what_the_lab_gave_it(bench: Bench) -> None:
    left = bench.guest("left")
    assert left.run("head -n 1 /dev/disk/by-id/virtio-book").stdout == "What the book says.\n"
    assert left.run("echo x >/dev/disk/by-id/virtio-book", check=False).status != 0
    assert left.disk("book").read(0, 8) == b"What the"


def test_without_the_hosts_cache_and_with_a_limit(bench: Bench) -> None:
    left, right = bench.guest("left"), bench.guest("right")
    assert right.disk("data").cache() == {"direct": True, "no_flush": False, "writeback": True}
    assert left.disk("data").cache() == left.disk().cache() == {"direct": False, "no_flush": True, "writeback": True}
    with left.disk("data").limited(operations_per_s=100):
        # A tenth of a second's worth passes at once.
        limited_s = left.script("reads.py", "/dev/disk/by-id/virtio-data", 60).record["took_s"]
        assert limited_s >= 0.45
    assert left.script("reads.py", "/dev/disk/by-id/virtio-data", 60).record["took_s"] < limited_s


def test_a_processor_is_what_the_lab_asks_for(bench: Bench) -> None:
    left, right = bench.guest("left"), bench.guest("right")
    assert "la57" in left.run("grep ^flags /proc/cpuinfo").stdout.split()
    assert "la57" not in right.run("grep ^flags /proc/cpuinfo").stdout.split()
    assert "40 bits physical" in right.run("grep ^address /proc/cpuinfo").stdout
    with left.memory.frozen() as (five,), right.memory.frozen() as (four,):
        assert (five.levels, four.levels) == (5, 4)
        assert five.general.keys() == four.general.keys()
        assert five.rflags & 2, "bit 1 is always set (Intel SDM, volume 1, 3.4.3)"
        # The kernel's half is the same in every process: the stack of one that idles is found by another's tables too.
        stack = four.rsp if four.cpl == 0 else four.rip
        assert right.memory.walk(four, stack).physical == right.memory.walk(four, stack, cr3=four.cr3).physical is not None


def test_commands_and_scripts_run_as_another_user_and_are_ended_all_the_same(bench: Bench) -> None:
    left = bench.guest("left")
    said = left.run("id -u; touch /root/x || echo refused; pwd", user="nobody").stdout.split()
    assert said == ["65534", "refused", "/"]
    record = left.script("who.py", user="nobody", input="\n").record
    assert record == {"uid": 65534, "groups": [65534], "capabilities": "0000000000000000", "home": "/nonexistent"}
    user = left.machine.request.image.default_user
    assert left.script("who.py", user=user, input="\n").record["home"] == f"/home/{user}"
    assert left.script("who.py", input="\n").record["uid"] == 0
    with left.start("who.py", "abandoned", user="nobody") as talk:
        assert talk.read()["uid"] == 65534
    assert left.run("pgrep -u nobody", check=False).stdout == ""
    with pytest.raises(ScriptError, match="longer than its 1 s"):
        left.run("sleep 1000 & wait", user="nobody", time_limit_s=1)
    assert left.run("pgrep -u nobody", check=False).stdout == ""
    with pytest.raises(ScriptError, match="the guest has no user 'nobody2'"):
        left.run("true", user="nobody2")
    # (Longer than a command may be over SSH: it goes into a file first.)
    assert left.run(f"true {'x' * 10000}; id -u", user="nobody").stdout == "65534\n"


def test_a_file_is_written_whole(bench: Bench) -> None:
    left = bench.guest("left")
    text = 'it\'s a "text" with $(echo all) of it\n\\ \u00fc\n'
    left.write_text("/root/a file", text, 0o600)
    assert left.read_text("/root/a file") == text
    assert left.run("stat -c '%a %U' '/root/a file'; ls -A /root | grep -c 'a file'").stdout == "600 root\n1\n"


def test_its_files_go_with_it(bench: Bench) -> None:
    """(The last test: it looks at what the others used.)"""
    directory = bench.guest("left").machine.directory
    assert sorted(path.name for path in directory.glob("drive-*")) == ["drive-book.raw", "drive-data.raw"]
    assert (directory / "drive-data.raw").stat().st_blocks * 512 < 64 << 20
