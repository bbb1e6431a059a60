"""What an experiment can do with a guest, and what becomes of a guest script that misbehaves. One real guest serves all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.guest.conftest import LAB, World
from vmlab.bench import Guest
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, SshError, StrangerError, UsageError
from vmlab.guest.seed import Identity
from vmlab.guest.ssh import Connection
from vmlab.lab.collection import read_lab

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("guest")]


def test_it_became_ready_step_by_step(world: World) -> None:
    (part,) = world.notebook.guests
    assert [step.name for step in part.steps] == ["disk", "exec", "qmp", "kernel", "sshd", "login", "cloud-init", "first-command"]
    assert (part.start, part.template, part.fallback) == ("cold", "", "")
    times = [step.at_s for step in part.steps]
    assert times == sorted(times)
    assert part.cloud_init is not None
    assert (part.cloud_init.status, part.cloud_init.exit_code) == ("done", 0)
    assert "Debian GNU/Linux 13" in part.os
    assert len(part.boot_id) == 36


def test_the_user_data_is_valid_by_cloud_inits_own_schema(world: World) -> None:
    result = world.guest.run("cloud-init schema --system", check=False)
    assert result.status == 0, result.stdout + result.stderr


def test_cloud_init_itself_agrees_with_our_reading_of_its_files(world: World) -> None:
    result = world.guest.run("cloud-init status --format json", check=False)
    part = world.notebook.guests[0].cloud_init
    assert part is not None
    assert result.status == part.exit_code
    assert f'"status": "{part.status}"' in result.stdout


def test_the_guest_is_who_the_seed_says(world: World) -> None:
    user = world.guest.machine.request.image.default_user
    said = world.guest.run(
        f"hostname; cat /etc/ssh/ssh_host_ed25519_key.pub; echo; id -un {user}; sudo -u {user} sudo -n id -u"
    ).stdout.splitlines()
    assert said[0] == world.guest.machine.identity.hostname
    assert said[1].split()[:2] == world.guest.machine.identity.host.public.split()[:2]
    assert said[2:] == [user, "0"]


def test_the_guest_has_no_way_out(world: World) -> None:
    # 10.0.2.2 is the host as QEMU's user network shows it; an unrestricted guest would reach the port that leads back to its own sshd.
    port = world.guest.machine.port
    probe = f"import socket; s=socket.socket(); s.settimeout(3); s.connect(('10.0.2.2', {port})); print(s.recv(4))"
    result = world.guest.run(f'python3 -c "{probe}"', check=False)
    assert result.status != 0
    assert "SSH-" not in result.stdout


def test_a_command_gives_status_output_and_time(world: World) -> None:
    result = world.guest.run("echo out; echo err >&2; cat; exit 3", input="in", check=False)
    assert (result.status, result.stdout, result.stderr) == (3, "out\nin", "err\n")
    assert 0 < result.duration_s < 60


def test_a_failing_command_is_an_error_unless_asked_otherwise(world: World) -> None:
    with pytest.raises(ScriptError, match="exit status 4") as caught:
        world.guest.run("echo why >&2; exit 4")
    assert "why" in caught.value.detail


def test_a_script_gets_its_arguments_and_input_as_they_are(world: World) -> None:
    nasty = "a b; $(reboot) 'q' \"d\" *"
    record = world.guest.script("hello.py", nasty, 3, input="line\n").record
    assert record == {"hello": f"{nasty} 3", "input": "line\n"}


def test_large_input_and_output_cross_each_other(world: World) -> None:
    data = "0123456789abcdef\n" * 60_000
    assert world.guest.run("cat", input=data, output_limit_bytes=4 << 20).stdout == data


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nothing", "printed nothing"),
        ("garbage", "not JSON"),
        ("list", "not an object"),
        ("nan", "not JSON"),
        ("half", "not JSON"),
        ("megabytes", "more than"),
        ("flood", "more than"),
        ("crash", "exit status 7"),
        ("signal", "exit status"),
    ],
)
def test_a_script_that_misbehaves_is_a_script_error_and_the_guest_goes_on(world: World, fault: str, words: str) -> None:
    with pytest.raises(ScriptError, match=words):
        world.guest.script("fault.sh", fault)
    assert world.guest.run("echo alive").stdout == "alive\n"


def test_a_script_that_hangs_is_ended_at_its_limit(world: World) -> None:
    began = time.monotonic()
    with pytest.raises(ScriptError, match="longer than its 2 s"):
        world.guest.script("fault.sh", "hang", time_limit_s=2)
    assert time.monotonic() - began < 6


def left(guest: Guest) -> list[str]:
    """What of the stubborn script lives in the guest."""
    lines = guest.run("ps -A -o stat=,args=").stdout.splitlines()
    return [line for line in lines if "stubborn" in line and not line.startswith("Z")]


def test_a_script_at_its_limit_leaves_no_process_behind(world: World) -> None:
    with pytest.raises(ScriptError, match="longer than its 10 s") as caught:
        world.guest.script("fault.sh", "stubborn", time_limit_s=10)
    assert '{"started": true}' in caught.value.detail
    assert left(world.guest) == []


def test_a_conversation_that_is_left_leaves_no_process_behind(world: World) -> None:
    world.guest.run("sleep 1000.5 >/dev/null 2>&1 &")
    with world.guest.start("fault.sh", "stubborn") as talk:
        assert talk.read() == {"started": True}
        assert len(left(world.guest)) == 3
    assert left(world.guest) == []
    with pytest.raises(ZeroDivisionError), world.guest.start("fault.sh", "stubborn") as talk:
        talk.read()
        raise ZeroDivisionError
    assert left(world.guest) == []
    # What another command left running on purpose is not theirs.
    world.guest.run("pkill -f 'sleep 1000[.]5'")


def test_a_conversation_does_not_outlive_the_run(world: World) -> None:
    guest = Guest("main", world.guest.machine, read_lab(LAB), Deadline(4))
    drip = "while :; do echo '{}'; sleep 0.3; done"
    with pytest.raises(ScriptError, match="it did not end within"), guest.machine.ssh.start(drip, deadline=Deadline(3)) as talk:
        for record in talk:
            assert record == {}
    with pytest.raises(ScriptError, match=r"printed nothing for|longer than its|did not end within|no time is left"):
        guest.run("sleep 100", time_limit_s=100)
    with pytest.raises(ScriptError, match="no time is left"):
        guest.put(LAB / "lab.yaml", "/tmp/lab.yaml")


def test_much_on_standard_error_does_no_harm(world: World) -> None:
    result = world.guest.script("fault.sh", "stderr")
    assert result.record == {"done": True}
    assert len(result.stderr) <= 64 << 10


def test_an_unknown_script_is_named(world: World) -> None:
    with pytest.raises(UsageError, match=r"no guest script named nope\.py"):
        world.guest.script("nope.py")


def test_a_conversation_line_by_line(world: World) -> None:
    with world.guest.start("echo.py") as talk:
        talk.send({"n": 1})
        assert talk.read() == {"heard": {"n": 1}}
        talk.send({"n": 2})
        assert talk.read() == {"heard": {"n": 2}}
        talk.finish()


def test_a_conversation_that_ends_badly_says_so(world: World) -> None:
    with world.guest.start("echo.py") as talk:
        talk.send({"exit": 5})
        with pytest.raises(ScriptError, match="ended where another line was expected") as caught:
            talk.read()
    assert "as you wish" in caught.value.detail
    with world.guest.start("echo.py") as talk, pytest.raises(ScriptError, match="printed nothing for 1 s"):
        talk.read(time_limit_s=1)
    with world.guest.start("echo.py") as talk, pytest.raises(ScriptError, match="exit status 6"):
        talk.send({"exit": 6})
        talk.finish()


def test_files_go_in_and_out(world: World, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)) * 100)
    world.guest.put(tmp_path / "in", "/tmp/file")
    world.guest.get("/tmp/file", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    with pytest.raises(ScriptError):
        world.guest.get("/no/such/file", tmp_path / "never")


def test_the_look_from_outside_sees_the_guest_work(world: World) -> None:
    before = world.guest.outside()
    world.guest.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    after = world.guest.outside()
    assert before["status"] == after["status"] == "running"
    assert after["cpu_s"] > before["cpu_s"]
    assert 32 << 20 < after["resident_bytes"] < 3 << 30


def test_what_the_guest_prints_on_its_console_is_seen_from_outside(world: World) -> None:
    world.guest.run("echo 'a message for the host' > /dev/ttyS0")
    assert "a message for the host" in str(world.guest.wait_for_console("message for the host", 10))
    assert world.guest.wait_for_console("message for the host", 0.2) is None
    assert "a message for the host" in world.guest.console()
    assert "a message for the host" in (world.logs / "console.log").read_text()


def test_a_guest_with_another_host_key_is_refused(world: World) -> None:
    machine = world.guest.machine
    stranger = Identity.new("main")
    impostor = Identity(machine.identity.hostname, machine.identity.instance_id, machine.identity.client, stranger.host)
    with pytest.raises(StrangerError, match="another host key"):
        Connection.connect(machine.port, impostor, user="root", deadline=Deadline(60))


def test_a_client_without_the_key_is_refused(world: World) -> None:
    machine = world.guest.machine
    stranger = Identity(machine.identity.hostname, "", Identity.new("x").client, machine.identity.host)
    with pytest.raises(SshError, match="cannot log in"):
        Connection.connect(machine.port, stranger, user="root", deadline=Deadline(60))


def test_the_port_is_open_on_the_loopback_address_only(world: World) -> None:
    machine = world.guest.machine
    # Columns of /proc/net/tcp: local address, then the state 0A (listening).
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    ours = [address for address in listening if int(address.split(":")[1], 16) == machine.port]
    assert ours == [f"0100007F:{machine.port:04X}"]


def test_the_working_directory_is_private(world: World) -> None:
    for path in [world.work.path, *world.work.path.iterdir()]:
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0
            assert path.stat().st_uid == os.getuid()


def test_a_second_guest_is_another_machine(world: World) -> None:
    other = world.bench.guest("other")
    assert other.machine.port != world.guest.machine.port
    assert other.machine.identity.host != world.guest.machine.identity.host
    first, second = world.notebook.guests[0], world.notebook.guests[-1]
    assert first.boot_id != second.boot_id
    same = "cat /etc/machine-id; hostname"
    assert other.run(same).stdout != world.guest.run(same).stdout
    # The last act of this file: cutting the connection from inside the guest is our error, told at once, and no failed check.
    began = time.monotonic()
    with pytest.raises(SshError, match="lost"):
        other.script("fault.sh", "drop")
    assert time.monotonic() - began < 10
