"""Students' programs in a real guest: the wicked ones end within their limits, each for its own reason, and leave the guest as it was."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BOOT_S
from tests.stage import stage
from vmlab.bench import Bench
from vmlab.guest.clone.store import TemplateStore
from vmlab.image.image import Image
from vmlab.lab import Record, read_lab, trouble
from vmlab.progress import Progress

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900), pytest.mark.xdist_group("student")]

LAB = read_lab(Path(__file__).with_name("lab_of_students"))

Start = Callable[..., dict[str, Any]]

# What a program leaves; the script itself has its three descriptors open.
NOTHING = {"processes": [], "groups": [], "mounts": [], "directories": [], "children": [], "descriptors": 3}

# A start of a program costs 60 ms in an emulated guest of a quiet machine, its end 15 ms; this is for a very busy one.
START_LIMIT_S, END_LIMIT_S = 15.0, 15.0


@contextlib.contextmanager
def starting(image: Image, logs: Path) -> Iterator[Start]:
    """Starts one program after the other in the same guest; whatever one does, the next finds it as it was."""
    with stage(logs, {"main": image}, limit_s=2 * BOOT_S) as here:
        guest = Bench(LAB, dataclasses.replace(here, templates=TemplateStore(Progress())), {}).guest()
        with guest.start("drive.py") as talk:

            def start(program: str, source: str, *arguments: str, **more: Any) -> dict[str, Any]:
                talk.send({"program": program, "source": source, "arguments": list(arguments), **more})
                answer = talk.read()
                assert answer is not None
                assert "broke" not in answer, answer["broke"]
                assert answer["left_over"] == NOTHING
                if "took_s" in answer:
                    assert answer["took_s"][0] < START_LIMIT_S
                    assert answer["took_s"][2] < END_LIMIT_S
                return answer

            yield start
            assert start("last.sh", "echo last")["record"]["stdout"] == "last\n"
            talk.finish()


@pytest.fixture(scope="module")
def start(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with starting(debian13, tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(scope="module")
def start_on_12(debian12: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with starting(debian12, tmp_path_factory.mktemp("logs")) as made:
        yield made


def why(answer: dict[str, Any]) -> str:
    """The reason that a student is told; empty when the program did as it may."""
    verdict = trouble(Record("record", answer["record"]))
    return verdict.rationale if verdict else ""


PY = "import os, signal, socket, sys, time\n"


def test_an_honest_program(start: Start) -> None:
    answer = start("a.py", PY + "print(sys.argv[1:], sys.stdin.read(), os.environ['GREETING'])\nsys.exit(7)", "x", "7", stdin="in")
    record = answer["record"]
    assert (record["how"], record["status"], record["signal"]) == ("exited", 7, None)
    assert (record["stdout"], record["stderr"], record["stdout_bytes"]) == ("['x', '7'] in hi\n", "", 17)
    assert (record["refused_forks"], record["oom_kills"], record["left_behind"], record["disk_full"]) == (0, 0, 0, False)
    assert record["cpu_s"] > 0
    assert why(answer) == ""


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("a.c", '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("1\\n"); usleep(300000); printf("2"); return 0; }'),
        ("a.py", "import time\nprint(1)\ntime.sleep(0.3)\nprint(2, end='')"),
        ("a.sh", "echo 1; sleep 0.3; printf 2"),
    ],
    ids=["c", "python", "sh"],
)
def test_each_language_is_heard_line_by_line(start: Start, program: str, source: str) -> None:
    answer = start(program, source, build=True)
    assert answer["build"] == {"language": answer["build"]["language"], "built": True, "messages": "", "missing": ""}
    assert answer["record"]["stdout"] == "1\n2"
    (first_s, one), (second_s, two) = answer["lines"]
    assert (one, two) == ("1", "2")
    assert 0.25 < second_s - first_s < 2


def test_a_program_that_is_talked_to(start: Start) -> None:
    source = PY + "print('ready')\nfor line in sys.stdin:\n    print(line.strip() * 2)\n    if line == 'b\\n': sys.exit(0)"
    answer = start("a.py", source, stdin=None, until_lines=1, writes=["a\n", "b\n"])
    assert (answer["lines_came"], answer["states"]) == (True, ["S"])
    assert answer["uid"] == answer["uid_of_student"] > 1000
    assert answer["record"]["stdout"] == "ready\naa\nbb\n"


def test_the_scripts_own_signals_are_no_trouble(start: Start) -> None:
    answer = start("a.py", PY + "print('ready')\ntime.sleep(60)", until_lines=1, signals=[15])
    assert (answer["record"]["how"], answer["record"]["signal"], answer["record"]["sent"]) == ("killed", "SIGTERM", ["SIGTERM"])
    assert why(answer) == ""
    answer = start("a.py", PY + "print('ready')\ntime.sleep(60)", until_lines=1, leave_at_once=True)
    assert answer["record"]["how"] == "ended by the lab"
    assert why(answer) == ""


def test_members_are_counted_zombies_too(start: Start) -> None:
    source = (
        PY
        + "for each in (1, 2):\n    if os.fork() == 0:\n        os._exit(0)\nif os.fork() == 0: time.sleep(60)\ntime.sleep(0.3)\nprint(1)\n"
    )
    answer = start("a.py", source + "time.sleep(60)", until_lines=1, leave_at_once=True)
    assert answer["states"] == ["S", "S", "Z", "Z"]


def test_what_it_is_given(start: Start) -> None:
    answer = start("a.sh", "ls; wc -l <notes; echo x >notes; ls etc/passwd", given={"notes": "/etc/passwd", "etc": "/etc"})
    assert answer["record"]["stdout"].split()[:3] == ["a.sh", "etc", "notes"]
    assert answer["record"]["stdout"].endswith("etc/passwd\n")
    assert "Read-only file system" in answer["record"]["stderr"]


# --- compilers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "source", "words"),
    [
        ("a.c", "int main(void) {\n    return x;\n}", "a.c:2: error: "),
        ("a.c", "int main(void) { return foo(); }", "undefined symbol 'foo'"),
        ("a.c", "int man(void) { return 0; }", "undefined symbol 'main'"),
        ("a.c", '#include "/run/vmlab/lab/drive.py"\nint main(void) { return 0; }', "include file '/run/vmlab/lab/drive.py' not found"),
        ("a.c", '#include "/etc/shadow"\nint main(void) { return 0; }', "include file '/etc/shadow' not found"),
        ("a.c", '#include "a.c"\nint main(void) { return 0; }', "#include recursion too deep"),
        ("a.c", "int main(void) { return 0; }\0", "a.c:1: error: there is a NUL byte"),
        ("a.c", "", "undefined symbol 'main'"),
        ("a.py", "def f(:\n    pass", 'File "a.py", line 1'),
        ("a.py", "(" * 5000, "a.py"),
        ("a.py", "x = 1\ny = \0", "a.py:2: error: there is a NUL byte"),
        ("a.py", "x = '\xff'", "a.py"),
        ("a.sh", "if true; then\n", "a.sh: 2: Syntax error"),
        ("a.sh", "echo a\r\necho b\r\n", "CR LF"),
        ("a.sh", "\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
        ("a.sh", "echo \0", "a.sh:1: error: there is a NUL byte"),
    ],
    ids=[
        *("c_syntax", "c_undefined", "c_no_main", "c_lab", "c_shadow", "c_itself", "c_nul", "c_empty", "python_syntax", "python_deep"),
        *("python_nul", "python_latin", "sh_syntax", "sh_crlf", "sh_bom", "sh_nul"),
    ],
)
def test_what_cannot_be_started(start: Start, program: str, source: str, words: str) -> None:
    build = start(program, source, build=True, only_build=True)["build"]
    assert (build["built"], build["missing"]) == (False, "")
    assert words in build["messages"]
    assert len(build["messages"]) <= 4200


def test_a_source_without_end(start: Start) -> None:
    build = start("a.c", '#include "/dev/zero"\nint main(void) { return 0; }', build=True, only_build=True)["build"]
    assert not build["built"]
    assert "a.c" in build["messages"] or "could not be compiled within the limits" in build["messages"]


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("a.py", "#!/no/such/python\r\nprint(\r\n'here')\r\n"),
        ("a.py", "\xef\xbb\xbfprint('here')"),
        ("a.sh", "#!/no/such/sh\necho here"),
        ("a.c", '#include <stdio.h>\r\nint main(void) {\r\n    puts("here");\r\n    return 0;\r\n}\r\n'),
    ],
    ids=["python_crlf", "python_bom", "sh_shebang", "c_crlf"],
)
def test_what_can_though_it_looks_odd(start: Start, program: str, source: str) -> None:
    answer = start(program, source, build=True)
    assert answer["build"]["built"], answer["build"]
    assert answer["record"]["stdout"] == "here\n"


def test_warnings_reach_the_student_too(start: Start) -> None:
    source = "#include <stdio.h>\nint main(void) { int *p = 5; return p == 0; }"
    build = start("a.c", source, build=True, only_build=True)["build"]
    assert build["built"]
    assert "a.c:2: warning:" in build["messages"]


# --- the wicked -------------------------------------------------------------------------------------------------------------------

FORKS_IN_C = "#include <unistd.h>\nint main(void) { for (;;) fork(); }"


def short(start: Start, holds: Callable[[dict[str, Any]], bool], *program: str, **more: Any) -> dict[str, Any]:
    """What becomes of a program that is given little time: more, when it has not come to what it is about, on a machine that is busy."""
    for time_s in (0.6, 3, 15):
        answer = start(*program, limits={"time_s": time_s}, **more)
        if holds(answer["record"]):
            break
    return answer


def was_refused(record: dict[str, Any]) -> bool:
    return bool(record["refused_forks"])


@pytest.mark.parametrize(
    ("program", "source", "state", "words"),
    [
        ("a.py", "while True: pass", "R", "it was computing"),
        ("a.py", PY + "time.sleep(60)", "S", "it was waiting"),
        (
            "a.py",
            PY + "for each in range(1, 32):\n    if each not in (9, 19): signal.signal(each, signal.SIG_IGN)\ntime.sleep(60)",
            "S",
            "it was waiting",
        ),
        ("a.py", PY + "os.close(1); os.close(2); os.close(0)\ntime.sleep(60)", "S", "it was waiting"),
        ("a.py", PY + "os.kill(os.getpid(), signal.SIGSTOP)", "T", "it had been stopped by a signal, and nobody continued it"),
        ("a.py", PY + "os.setsid() if os.fork() == 0 else 0\ntime.sleep(60)", "S", "it was waiting"),
        ("a.c", "#include <unistd.h>\nint main(void) { if (vfork() == 0) pause(); }", "D", "it was waiting in the kernel"),
    ],
    ids=["computes", "sleeps", "deaf", "closes", "stops", "has_a_child", "vfork"],
)
def test_what_never_ends(start: Start, program: str, source: str, state: str, words: str) -> None:
    answer = short(start, lambda record: record["state"] == state, program, source)
    record = answer["record"]
    assert (record["how"], record["status"], record["signal"], record["state"]) == ("time limit", None, "SIGKILL", state)
    assert record["limits"]["time_s"] <= record["wall_s"] < record["limits"]["time_s"] + END_LIMIT_S
    assert f"Its time of {record['limits']['time_s']} s was over: {words}." in why(answer)


@pytest.mark.parametrize(
    "source",
    ["import sys\nwhile True: print('{\"pid\": 1}')", "import os\nwhile True: os.write(2, b'x' * 100000)"],
    ids=["stdout", "stderr"],
)
def test_floods(start: Start, source: str) -> None:
    answer = start("a.py", source)
    record = answer["record"]
    assert record["how"] == "output limit"
    assert len(record["stdout"]) <= 64 << 10
    assert len(record["stderr"]) <= 4096
    assert "more than its 64 KiB" in why(answer)


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("a.c", FORKS_IN_C),
        ("a.py", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
        ("a.sh", "f() { f | f & }; f; sleep 9"),
    ],
    ids=["c", "python", "sh"],
)
def test_fork_bombs(start: Start, program: str, source: str) -> None:
    answer = short(start, was_refused, program, source)
    assert answer["record"]["refused_forks"] > 0
    assert "more than its 32 processes" in why(answer)


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("a.py", "x = []\nwhile True: x.append(bytearray(1 << 20))"),
        ("a.c", "#include <stdlib.h>\n#include <string.h>\nint main(void) { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }"),
        ("a.py", "import os\nx = []\nwhile True: x.append(os.memfd_create('x')); os.write(x[-1], b'x' * (1 << 20))"),
    ],
    ids=["python", "c", "memfd"],
)
def test_memory_without_end(start: Start, program: str, source: str) -> None:
    answer = start(program, source)
    record = answer["record"]
    assert (record["how"], record["signal"]) == ("killed", "SIGKILL")
    assert record["oom_kills"] > 0
    assert "more than its 64 MiB of memory" in why(answer)


def test_disks_without_end(start: Start) -> None:
    """There is one limit for all places, whichever is filled."""
    source = """for place in ["/tmp", "/var/tmp", "/dev/shm", "."]:
    f = open(place + '/x', 'wb', 0)
    try:
        while True: f.write(b'x' * (1 << 20))
    except OSError as error: print(place, error.errno, f.tell() >> 20)
raise SystemExit(3)"""
    answer = start("a.py", source)
    record = answer["record"]
    assert (record["how"], record["status"], record["disk_full"]) == ("exited", 3, True)
    assert record["stdout"] == "/tmp 28 32\n/var/tmp 28 0\n/dev/shm 28 0\n. 28 0\n"
    assert "space that it has for files" in why(answer)


def test_files_without_end(start: Start) -> None:
    answer = start("a.py", PY + "for each in range(100000): os.close(os.open(f'{each}', os.O_CREAT | os.O_WRONLY))")
    assert answer["record"]["disk_full"]
    assert answer["record"]["how"] == "exited"


def test_it_kills_whatever_it_can(start: Start) -> None:
    source = (
        PY
        + "if os.fork() == 0: time.sleep(60)\nos.kill(-1, 9)\nprint(os.wait()[1])\ntry: os.kill(1, 9)\nexcept OSError as e: print(e.errno)"
    )
    assert start("a.py", source)["record"]["stdout"] == "9\n1\n"
    assert start("a.sh", "kill -9 -1; kill -9 0")["record"]["signal"] == "SIGKILL"


def test_a_daemon_is_gone_with_it(start: Start) -> None:
    source = PY + "if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    while True: pass\nos.wait()"
    answer = start("a.py", source)
    assert (answer["record"]["how"], answer["record"]["left_behind"]) == ("exited", 1)
    assert why(answer) == ""


def test_a_crash_leaves_no_core(start: Start) -> None:
    record = start("a.c", "int main(void) { return *(volatile int *)0; }")["record"]
    assert (record["how"], record["signal"], record["status"]) == ("killed", "SIGSEGV", None)
    answer = start("a.sh", "ulimit -c unlimited; sh -c 'kill -ABRT $$'; ls; ulimit -c")
    assert answer["record"]["stdout"] == "a.sh\n0\n"


def test_bytes_that_are_no_text(start: Start) -> None:
    answer = start("a.py", PY + "os.write(1, bytes(range(256))); os.write(2, b'\\xff\\x00')")
    assert answer["record"]["stdout_bytes"] == 256
    assert answer["record"]["stdout"].endswith("\\xfe\\xff")
    assert answer["record"]["stderr"] == "\\xff\0"


def test_it_sees_nothing_of_the_lab(start: Start) -> None:
    source = """import glob, os
for path in ["/run/vmlab", "/root", "/sys", "/mnt", "/boot", "/proc/1/cmdline", "/proc/1/environ", "/proc/1/root/etc", "/etc/shadow",
             "/proc/2/root/../run/vmlab", "../../run/vmlab", "/dev/vda", "/dev/kmsg", "/dev/mem", "/proc/kcore", "/home/debian"]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read(1)
        print("read", path)
    except OSError:
        pass
print([open(path).read() for path in glob.glob("/proc/[0-9]*/cmdline")])
print(open("/proc/self/mountinfo").read().count("/run"), os.listdir("/run"), os.listdir("/proc/self/fd"))
"""
    printed = start("a.py", source)["record"]["stdout"].splitlines()
    assert printed == [f"['{printed[0].split(chr(39))[1]}']", "0 ['support'] ['0', '1', '2', '3']"]
    assert printed[0].endswith("python3\\x00a.py\\x00']")


def test_it_writes_nowhere_else(start: Start) -> None:
    source = """import os
for top, folders, files in os.walk("/"):
    folders[:] = [each for each in folders if not os.path.ismount(top + "/" + each) or each != "proc"]
    if os.access(top, os.W_OK): print(top)
    for each in files:
        path = top + "/" + each
        if os.access(path, os.W_OK) and not os.path.islink(path) and not top.startswith("/proc"): print(path)
"""
    home = "/home/student"
    devices = [f"/dev/{name}" for name in ("full", "null", "random", "urandom", "zero")]
    printed = start("a.py", source, limits={"time_s": 30})["record"]["stdout"].split()
    assert sorted(printed) == sorted([*devices, "/dev/shm", home, f"{home}/a.py", "/tmp", "/var/tmp"])


def test_it_reaches_nobody(start: Start) -> None:
    source = (
        PY
        + """
for address in [("127.0.0.1", 22), ("10.0.2.2", 22), ("0.0.0.0", 22)]:
    s = socket.socket(); s.settimeout(1)
    try: s.connect(address); print("reached", address)
    except OSError: pass
print(open("/proc/net/unix").read().count("@"))
"""
    )
    assert start("a.py", source)["record"]["stdout"] == "0\n"


def test_it_becomes_nothing_more(start: Start) -> None:
    source = (
        PY
        + """
import ctypes
libc = ctypes.CDLL(None)
def tried(name, call, *more):
    try:
        result = call(*more)
        if result != -1: print(name, result)
    except OSError: pass
tried("nice", os.nice, -20)
tried("fifo", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))
tried("setuid", os.setuid, 0)
tried("chroot", os.chroot, "/tmp")
for flag in (0x10000000, 0x20000000, 0x40000000, 0x02000000, 0x20000000 | 0x10000000):
    tried("unshare", libc.unshare, flag)
tried("mount", libc.mount, b"none", b"/tmp", b"tmpfs", 0, None)
tried("ptrace", libc.ptrace, 16, 1, 0, 0)
tried("mknod", os.mknod, "/tmp/vda", 0o60666, os.makedev(254, 0))
tried("adj", os.write, os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000")
tried("sysrq", lambda: open("/proc/sysrq-trigger", "w").write("b"))
tried("hostname", libc.sethostname, b"x", 1)
print(os.getuid() > 1000, os.getresuid() == (os.getuid(),) * 3, os.getgroups(), os.sched_getscheduler(0), os.getpriority(0, 0))
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(*(status[each].strip() for each in ("CapEff", "CapPrm", "NoNewPrivs", "SigBlk", "SigIgn")))
print(os.system("sudo -n true 2>/dev/null"))
"""
    )
    # (Python itself ignores SIGPIPE and SIGXFSZ.)
    printed = start("a.py", source)["record"]["stdout"].splitlines()
    assert printed == ["True True [] 0 0", "0000000000000000 0000000000000000 1 0000000000000000 0000000001001000", "256"]


def test_it_leaves_nothing_to_the_next(start: Start) -> None:
    """Keys are the kernel's and a user's, whatever his namespaces: what one start has left there the next does not find."""
    call = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    keep = call + "for ring in (-3, -4, -5): print(libc.syscall(248, b'user', b'note', b'secret', 6, ring) > 0)"
    find = call + "print(*(libc.syscall(250, 10, ring, b'user', b'note', 0) > 0 for ring in (-4, -5)))"
    assert start("a.py", keep + "\n" + find)["record"]["stdout"] == "True\n" * 3 + "True True\n"
    assert start("a.py", find)["record"]["stdout"] == "False False\n"


def test_a_program_of_roots(start: Start) -> None:
    answer = start("fix.sh", "id -u; ls /root/attempt/files; pwd >&2; sleep 60 & ulimit -c", as_root=True)
    assert answer["record"]["stdout"] == "0\nfix.sh\n0\n"
    assert answer["record"]["left_behind"] == 1
    source = PY + "print(open('notes').readline().strip())\ntime.sleep(60)"
    answer = short(start, lambda record: bool(record["stdout"]), "fix.py", source, given={"notes": "/etc/hostname"}, as_root=True)
    assert len(answer["lines"]) == 1
    assert answer["record"]["how"] == "time limit"
    answer = short(start, was_refused, "fix.c", FORKS_IN_C, as_root=True)
    assert answer["record"]["refused_forks"] > 0


def test_the_older_kernel_python_and_tcc_too(start_on_12: Start) -> None:
    answer = start_on_12("a.c", '#include <stdio.h>\nint main(void) { puts("here"); return 3; }', build=True)
    assert (answer["build"]["messages"], answer["record"]["stdout"], answer["record"]["status"]) == ("", "here\n", 3)
    answer = short(start_on_12, was_refused, "a.py", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert "more than its 32 processes" in why(answer)
    assert start_on_12("a.py", "x = []\nwhile True: x.append(bytearray(1 << 20))")["record"]["oom_kills"] > 0
    answer = short(start_on_12, lambda record: bool(record["stdout"]), "a.py", "import os\nprint(os.listdir('/run'))\nwhile True: pass")
    assert (answer["record"]["stdout"], answer["record"]["how"]) == ("['support']\n", "time limit")
