"""Real guests, cloned: who they are, what they cost, and what becomes of them when what they were cloned from is not right."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.conftest import BOOT_S, ROOT
from tests.stage import Heard, setting
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError
from vmlab.guest import qemu
from vmlab.guest.clone import identity as standby
from vmlab.guest.clone import template as saved
from vmlab.guest.clone.store import TemplateStore, status
from vmlab.guest.clone.template import FILES, MANIFEST, Template
from vmlab.guest.machine import BootRequest, Machine
from vmlab.guest.start import start, with_machine_type
from vmlab.guest.workdir import WorkDir, work_dir
from vmlab.image.cache import Cache, sha256
from vmlab.image.image import Image
from vmlab.progress import Kind, Progress, notices

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900), pytest.mark.xdist_group("clones")]

MANY = 16


class Starter:
    """Starts guests of one store in one working directory."""

    def __init__(self, stack: contextlib.ExitStack, work: WorkDir, store: TemplateStore, logs: Path) -> None:
        self.stack, self.work, self.store, self.logs = stack, work, store, logs
        self.heard = Heard()

    @property
    def phases(self) -> list[str]:
        return self.heard.texts(Kind.PHASE)

    def __call__(self, request: BootRequest) -> Machine:
        log = self.logs / f"{request.name}.log"
        return start(self.stack, request, setting(self.work, log, limit_s=BOOT_S, progress=Progress(self.heard)), self.store)


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Callable[[TemplateStore], Starter]]:
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(work_dir())
        yield lambda store: Starter(stack, work, store, tmp_path)


@pytest.fixture(scope="module")
def store() -> TemplateStore:
    """The user's own templates: what one test has made, others (and labs) use too."""
    return TemplateStore(Progress(notices(print)))


def run(machine: Machine, command: str, limit_s: float = 60) -> str:
    return machine.ssh.execute(command, deadline=Deadline(limit_s)).stdout


def clock_error_s(machine: Machine) -> float:
    """How far the guest's clock is from ours at least, by the quickest of some answers: it was read at some time in between."""
    best_trip, error = 1e9, 1e9
    loop = "while read -r _; do date '+{\"now\": %s.%N}'; done"
    with machine.ssh.start(loop, deadline=Deadline(120)) as conversation:
        for _ in range(8):
            before = time.time()
            conversation.send({})
            now = conversation.read()["now"]
            trip = time.time() - before
            if trip < best_trip:
                best_trip, error = trip, now - (before + trip / 2)
        conversation.finish()
    return max(0.0, abs(error) - best_trip / 2)


def test_sixteen_clones_at_once_are_sixteen_guests(debian13: Image, store: TemplateStore, tmp_path: Path) -> None:
    requests = [BootRequest(f"c{number}", debian13, "tcg") for number in range(MANY)]
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(work_dir())
        # Made beforehand, so that all of them start at the same time.
        with contextlib.ExitStack() as first:
            Starter(first, work, store, tmp_path)(requests[0])
        own = [Starter(stack, work, store, tmp_path) for _ in requests]
        with ThreadPoolExecutor(MANY) as pool:
            machines = list(pool.map(lambda pair: pair[0](pair[1]), zip(own, requests, strict=True)))
        assert [machine.birth.fallback for machine in machines] == [""] * MANY
        assert len({machine.birth.template for machine in machines}) == 1
        # The first random bytes that anybody reads in it, what it is called in each place, and its id.
        look = (
            "od -An -tx1 -N32 /dev/urandom | tr -d ' \\n'; echo; cat /proc/sys/kernel/hostname /etc/hostname; "
            "cat /etc/machine-id; awk '/127.0.1.1 c|127.0.1.1 main|127.0.1.1 t/ {print $2}' /etc/hosts"
        )
        with ThreadPoolExecutor(MANY) as pool:
            said = list(pool.map(lambda machine: run(machine, look).split(), machines))
        for machine, (_, *names) in zip(machines, said, strict=True):
            hostname = machine.identity.hostname
            assert hostname.startswith(f"{machine.request.name}-")
            assert names[:2] == [hostname, hostname]
            assert names[3:] == [hostname]
            assert len(names[2]) == 32
        for column in range(4):
            assert len({row[column] for row in said}) == MANY, f"two clones share what is in column {column}: {said}"
        # One after the other: sixteen guests that all tell the time at once show how busy the host is, not how their clocks go.
        errors = [clock_error_s(machine) for machine in machines]
        assert max(errors) < 0.1, errors
        # Debian 13's kernel renews its random numbers by itself too (vmgenid), before any program runs.
        assert "crng reseeded due to virtual machine fork" in run(machines[0], "dmesg | tail -5")


@pytest.fixture(scope="module")
def clone(debian13: Image, store: TemplateStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One clone for the tests that only look."""
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(work_dir())
        yield Starter(stack, work, store, tmp_path_factory.mktemp("logs"))(BootRequest("looked-at", debian13, "tcg"))


def test_it_is_ready_in_steps_that_are_timed(clone: Machine) -> None:
    names = [step.name for step in clone.reached]
    assert names == ["disk", "exec", "qmp", "running", "alive", "login", "identity", "first-command"]
    times = [step.at_s for step in clone.reached]
    assert times == sorted(times)
    assert clone.birth.clock_error_s is not None


def test_nothing_of_the_waiting_is_left_in_it(clone: Machine) -> None:
    processes = run(clone, "ps -A -o stat=,args= | grep -v '\\]$'")
    assert "standby" not in processes
    assert not [line for line in processes.splitlines() if line.startswith("Z")]
    assert run(clone, "ls -A /run/vmlab") == ""
    # What programs inherit is what they inherit in a guest that was booted: no signal is ignored.
    assert run(clone, "grep SigIgn /proc/self/status").split()[1] == "0" * 16


def test_it_is_a_whole_system(clone: Machine) -> None:
    assert run(clone, "systemctl is-system-running").strip() in ("running", "degraded")
    assert run(clone, "systemctl list-timers --no-legend") == ""
    assert run(clone, "touch /root/x && sync && echo written").strip() == "written"
    # A second connection, over the network and by sshd's ordinary way: what `vmlab shell` uses.
    from vmlab.guest.ssh import Connection

    other = Connection.connect(clone.port, clone.identity, user=clone.request.image.default_user, deadline=Deadline(60))
    assert other.execute("id -un", deadline=Deadline(60)).stdout.strip() == clone.request.image.default_user
    other.close()


def test_it_is_reached_by_the_quick_server_and_cannot_tell(clone: Machine) -> None:
    from vmlab.guest.ssh import Connection

    assert run(clone, "ps -o comm= -p $PPID").strip() == "dropbear"
    own = "-e ^VMLAB_COMMAND= -e ^SSH_ -e ^_= -e ^MAIL="
    look = f"env | grep -v {own} | sort; umask; ulimit -a; id; cat /proc/self/oom_score_adj; echo $-; cd; pwd; nice"
    by_sshd = Connection.connect(clone.port, clone.identity, user="root", deadline=Deadline(60))
    with contextlib.closing(by_sshd):
        assert run(clone, look) == by_sshd.execute(look, deadline=Deadline(60)).stdout
        assert by_sshd.execute("ps -o comm= -p $PPID", deadline=Deadline(60)).stdout.startswith("sshd")


def test_commands_of_any_length_and_output_of_any_size_pass(clone: Machine) -> None:
    for size in (8000, 20_000, 100_000):
        said = clone.ssh.execute(f"echo {'x' * size}; exit 3", deadline=Deadline(60))
        assert (said.status, said.stdout) == (3, "x" * size + "\n")
    assert run(clone, "ls /tmp").split() == []
    assert clone.ssh.execute("wc -c", stdin=bytes(3 << 20), deadline=Deadline(60)).stdout.strip() == str(3 << 20)
    assert len(clone.ssh.execute("head -c 3000000 /dev/zero", deadline=Deadline(60), output_limit_bytes=4 << 20).stdout) == 3_000_000
    assert clone.ssh.execute("kill -9 $$", deadline=Deadline(60)).status != 0


STUBBORN = "sh -c ': stubborn; while :; do sleep 0.2; done'"


def test_a_command_that_is_given_up_is_ended_whichever_server_runs_it(clone: Machine) -> None:
    from vmlab.guest.ssh import Connection

    command = f"trap '' TERM HUP; {STUBBORN} & sh -c 'setsid {STUBBORN.replace(chr(39), chr(34))} & :'; echo '{{}}'; wait; sleep 1000"
    look = "ps -A -o stat=,args= | grep 'stubborn;' | grep -v -e ^Z -e grep; true"
    by_sshd = Connection.connect(clone.port, clone.identity, user="root", deadline=Deadline(60))
    with contextlib.closing(by_sshd):
        for connection in (clone.ssh, by_sshd):
            connection.execute("sleep 1000.5 >/dev/null 2>&1 &", deadline=Deadline(60))
            with pytest.raises(ScriptError, match="longer than its 3 s"):
                connection.execute(command, deadline=Deadline(3))
            assert connection.execute(look, deadline=Deadline(60)).stdout == ""
            with connection.start(command, deadline=Deadline(60)) as talk:
                talk.read()
                assert len(run(clone, look).splitlines()) == 3
            assert connection.execute(look, deadline=Deadline(60)).stdout == ""
            # The server's own processes, and what another command left running on purpose, are not theirs.
            assert connection.execute("pkill -f 'sleep 1000[.]5'", deadline=Deadline(60)).status == 0


def mappings(pid: int, field: str) -> dict[str, int]:
    """Bytes of a process by what is mapped: the sum of one field of /proc/PID/smaps (proc_pid_smaps(5)); "" is anonymous memory."""
    sums: dict[str, int] = {}
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *rest = line.split()
        if "-" in key and not key.endswith(":"):
            name = rest[4] if len(rest) > 4 else ""
        elif key == f"{field}:":
            sums[name] = sums.get(name, 0) + int(rest[0]) * 1024
    return sums


def test_it_keeps_little_memory_of_its_own(starter: Callable[[TemplateStore], Starter], debian13: Image, store: TemplateStore) -> None:
    machine = starter(store)(BootRequest("weighed", debian13, "tcg"))
    # Copied pages are anonymous ones; those that are still the file's are shared by all clones, in the host's page cache.
    private = {name: size for name, size in mappings(machine.pid, "Anonymous").items() if name.endswith("/ram")}
    assert len(private) == 1
    # Some 10 MiB after the first command (benchmarks/README.md); a guest that is still at work has more.
    assert sum(private.values()) <= 14 << 20
    for _ in range(100):
        run(machine, "true")
    anonymous = mappings(machine.pid, "Anonymous")
    # What the guest itself has written is counted above; the rest is QEMU's.
    assert sum(size for name, size in anonymous.items() if not name.endswith("/ram")) <= 300 << 20


@pytest.mark.parametrize(("image", "cpus", "init"), [("debian12", 1, "systemd"), ("debian13", 1, "sysv")])
def test_other_guests_can_be_cloned_too(
    image: str, cpus: int, init: str, request: pytest.FixtureRequest, store: TemplateStore, starter: Callable[[TemplateStore], Starter]
) -> None:
    source: Image = request.getfixturevalue(image)
    one, other = (starter(store)(BootRequest(name, source, "tcg", cpus=cpus, init=init)) for name in ("one", "other"))
    look = "od -An -tx1 -N16 /dev/urandom; cat /proc/1/comm /etc/machine-id /proc/sys/kernel/hostname"
    said = [run(machine, look).splitlines() for machine in (one, other)]
    assert (one.birth.fallback, other.birth.fallback) == ("", "")
    assert said[0][1] == said[1][1] == ("systemd" if init == "systemd" else "init")
    assert all(said[0][column] != said[1][column] for column in (0, 2, 3))
    assert max(clock_error_s(machine) for machine in (one, other)) < 0.1


# When it is not right.


@pytest.fixture
def copy(debian13: Image, store: TemplateStore, tmp_path: Path) -> Iterator[tuple[TemplateStore, Template]]:
    """A template that may be broken: a copy of the default guest's in a store of its own."""
    request = with_machine_type(BootRequest("main", debian13, "tcg"), store)
    with work_dir() as work:
        original = store.get(request, setting(work, tmp_path / "made.log", limit_s=BOOT_S))
    mine = TemplateStore(Progress(notices(print)), directory=tmp_path / "templates")
    entry = Cache(tmp_path / "templates", Progress()).final(original.entry)
    subprocess.run(["cp", "-r", "--sparse=always", str(original.directory), str(entry)], check=True)
    entry.chmod(0o700)
    for name in FILES:
        (entry / name).chmod(0o600)
    (entry / MANIFEST).chmod(0o600)
    rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", str(entry / "disk.qcow2"), str(entry / "empty.qcow2")]
    subprocess.run(rebase, check=True)
    declare(entry)
    found = mine.find(request)
    assert found is not None
    yield mine, found


def declare(directory: Path) -> None:
    """Let the manifest say that the files are as they should be."""
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"] = {name: {"size": (directory / name).stat().st_size, "sha256": sha256(directory / name)} for name in FILES}
    (directory / MANIFEST).write_text(json.dumps(manifest))


def corrupt_state(template: Template) -> None:
    """Overwrite a stretch of the state with what no QEMU ever wrote, and let all digests agree with it."""
    path = template.file("state")
    data = bytearray(path.read_bytes())
    data[2000:200000] = b"\xa5" * 198000
    path.write_bytes(data)
    declare(template.directory)


def cut_state(template: Template) -> None:
    path = template.file("state")
    os.truncate(path, path.stat().st_size // 2)
    declare(template.directory)


def lose_memory(template: Template) -> None:
    """The memory of another guest: all of it zero."""
    size = template.file("ram").stat().st_size
    os.truncate(template.file("ram"), 0)
    os.truncate(template.file("ram"), size)
    declare(template.directory)


@pytest.mark.parametrize("damage", [corrupt_state, cut_state, lose_memory])
def test_a_template_that_is_wrong_although_its_digests_are_right_ends_in_a_cold_boot(
    damage: Callable[[Template], None],
    copy: tuple[TemplateStore, Template],
    debian13: Image,
    starter: Callable[[TemplateStore], Starter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standby, "ANSWER_LIMIT_S", 5.0)
    store, template = copy
    damage(template)
    starting = starter(store)
    machine = starting(BootRequest("main", debian13, "tcg"))
    assert machine.birth.template == ""
    assert machine.birth.fallback
    # (The last phase may be another: the emulator breaks a boot now and then, which is then begun again.)
    assert any(title.startswith("Booting it instead of cloning it: ") for title in starting.phases)
    assert not template.directory.exists()
    assert run(machine, "echo works").strip() == "works"


def test_a_clone_that_hangs_on_another_processor_is_noticed_and_booted(
    copy: tuple[TemplateStore, Template], debian13: Image, starter: Callable[[TemplateStore], Starter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst of them: QEMU loads the state without complaint, and the guest never answers. No key can be made wrong here by a user."""
    monkeypatch.setattr(standby, "ANSWER_LIMIT_S", 5.0)
    real_argv = qemu.argv

    def argv(spec: qemu.GuestSpec) -> list[str]:
        command = real_argv(spec)
        if spec.incoming:
            command[command.index("-cpu") + 1] = "qemu64"
        return command

    store, template = copy
    with monkeypatch.context() as patch:
        patch.setattr(qemu, "argv", argv)
        patch.setattr(saved, "key_of", lambda *_: template.key)
        machine = starter(store)(BootRequest("main", debian13, "tcg"))
    assert machine.birth.template == ""
    assert "answer" in machine.birth.fallback
    assert not template.directory.exists()
    assert run(machine, "echo works").strip() == "works"


def test_a_template_that_is_deleted_under_a_running_clone_does_not_disturb_it(
    copy: tuple[TemplateStore, Template], debian13: Image, starter: Callable[[TemplateStore], Starter]
) -> None:
    store, template = copy
    machine = starter(store)(BootRequest("main", debian13, "tcg"))
    assert machine.birth.template == template.key
    shutil.rmtree(template.directory)
    # Programs that were never run here come from the disk and through the page cache of the template.
    assert run(machine, "find / -xdev -type f | wc -l; python3 -c 'import email, http, xml; print(6*7)'").split()[-1] == "42"
    assert run(machine, "cat $(find /usr/lib -name '*.so*' -type f) | wc -c; sync; echo done").split()[-1] == "done"


def test_the_template_is_never_written(
    copy: tuple[TemplateStore, Template], debian13: Image, starter: Callable[[TemplateStore], Starter]
) -> None:
    store, template = copy
    before = {name: sha256(template.file(name)) for name in FILES}
    machine = starter(store)(BootRequest("main", debian13, "tcg"))
    run(machine, "dd if=/dev/urandom of=/root/x bs=1M count=30 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches")
    machine.stop()
    assert {name: sha256(template.file(name)) for name in FILES} == before


def test_a_builder_that_is_killed_takes_its_guest_along_and_hinders_nobody(debian13: Image, tmp_path: Path) -> None:
    """SIGKILL in the middle of a real build; what the next one makes serves."""
    lab = tmp_path / "labs" / "tiny"
    lab.mkdir(parents=True)
    for name in ("lab.yaml", "experiment.py", "checks.py", "guest"):
        (lab / name).symlink_to(ROOT / "tests/guest/lab_of_faults" / name)
    # A store of its own in a cache whose images are the user's.
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    (cache / "images").symlink_to(debian13.directory.parent)
    argv = [sys.executable, "-m", "vmlab", "template", "build", "tiny", "--labs", str(lab.parent)]
    env = {**os.environ, "VMLAB_CACHE": str(cache)}
    killed = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert killed.stdout is not None
    said: list[str] = []
    for line in killed.stdout:
        said.append(line)
        if "waiting for sshd" in line:
            break
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    assert children, said
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert status(cache / "templates") == []

    # Two at once, as in a class that all begin with `make lab`: one builds, the other waits; both have it.
    outputs: list[str] = []

    def build() -> None:
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
        outputs.append(f"{done.returncode}\n{done.stdout}{done.stderr}")

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [output.partition("\n")[0] for output in outputs] == ["0", "0"], outputs
    assert sum("Making a template" in output for output in outputs) == 1
    assert len(status(cache / "templates")) == 1
