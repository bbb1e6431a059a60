"""One lab from the command line to its report: what a run says and leaves when its guest boots, is cloned, or fails in each of its ways."""

from __future__ import annotations

import json
import signal
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.stand_in.machine import StandIn
from tests.tinylab import write_lab

pytestmark = pytest.mark.timeout(120)


def guest_lab(machine: StandIn, body: str, *, time_limit_s: float = 60, scripts: dict[str, str] | None = None) -> Path:
    """A lab whose experiment is ``body``, over ``guest`` and ``bench``; it records what it put into ``seen``."""
    folder = write_lab(machine.labs, "aa", "guest")
    (folder / "lab.yaml").write_text((folder / "lab.yaml").read_text() + f"time_limit_s: {time_limit_s}\n")
    (folder / "experiment.py").write_text(
        "import time\nfrom pathlib import Path\n\n\ndef experiment(bench):\n    seen = {}\n    guest = bench.guest()\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
        + '\n    bench.record("seen", {"right": True, "answer": 42, **seen})\n'
    )
    (folder / "guest").mkdir()
    for name, text in (scripts or {}).items():
        (folder / "guest" / name).write_text(textwrap.dedent(text))
    return folder


def seen(machine: StandIn) -> Any:
    return next(each["data"] for each in machine.report("aa")["evidence"]["observations"] if each["name"] == "seen")


def leftovers(machine: StandIn) -> list[str]:
    """What a run left behind that it should not: working directories, slots, guests."""
    directories = [
        str(path) for part in ("cache/runs", "slots") if (machine.root / part).exists() for path in (machine.root / part).iterdir()
    ]
    guests = [
        each.info["cmdline"] for each in psutil.process_iter(["cmdline"]) if str(machine.root) in " ".join(each.info["cmdline"] or [])
    ]
    return directories + [" ".join(words)[:200] for words in guests]


def test_a_lab_passes_and_its_report_tells_of_its_guest(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    done = machine.run("run", "aa", "--cold", "--student", "s1", "--param", "answer=7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ pass            It is so." in done.stdout
    report = machine.report("aa")
    assert report["run"]["error"] is None
    assert (report["run"]["student"], report["run"]["parameters"]) == ("s1", {"answer": 7})
    assert report["run"]["slot"]["from_s"] < report["run"]["slot"]["until_s"]
    (guest,) = report["guests"]
    assert (guest["start"], guest["os"], guest["memory_bytes"]) == ("cold", "A stand-in for Debian", 512 << 20)
    assert [step["name"] for step in guest["steps"]][-5:] == ["kernel", "sshd", "login", "cloud-init", "first-command"]
    assert (guest["cloud_init"]["status"], guest["ended"]) == ("done", "quit")
    assert "Linux version 6.1.0-stand-in" in (machine.reports / "aa/latest/console.log").read_text()
    assert seen(machine)["said"] == "hello"
    assert leftovers(machine) == []


def test_a_second_run_clones_what_the_first_one_saved(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    starts = []
    for _ in range(2):
        done = machine.run("run", "aa")
        assert done.returncode == 0, done.stdout + done.stderr
        starts.append(machine.report("aa")["guests"][0])
    assert [(each["start"], each["fallback"]) for each in starts] == [("clone", "")] * 2
    assert "Making a template" not in done.stdout
    assert starts[0]["template"] == starts[1]["template"] != ""
    assert [step["name"] for step in starts[1]["steps"]][-4:] == ["alive", "login", "identity", "first-command"]
    log = (machine.reports / "aa/latest/console.log").read_text()
    assert log.index("Linux version") < log.index("saved here; what follows is the clone's own")
    (row,) = json.loads(machine.run("template list", "--json").stdout)
    assert (row["image"], row["memory_mib"], row["accelerator"]) == ("file-tiny", 512, "tcg")
    assert leftovers(machine) == []


def test_a_template_whose_clone_dies_is_dropped_and_the_guest_booted(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    assert machine.run("run", "aa").returncode == 0
    machine.trouble("clone-exits")
    done = machine.run("run", "aa")
    assert done.returncode == 0, done.stdout + done.stderr
    (guest,) = machine.report("aa")["guests"]
    assert guest["start"] == "cold"
    assert "a stand-in that was told to end" in guest["fallback"]
    assert json.loads(machine.run("template list", "--json").stdout) == []


def test_a_guest_that_cannot_be_saved_is_booted_and_says_why(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    machine.trouble("unsaved")
    done = machine.run("run", "aa")
    assert done.returncode == 0, done.stdout + done.stderr
    (guest,) = machine.report("aa")["guests"]
    assert guest["start"] == "cold"
    assert "State blocked by a stand-in" in guest["fallback"]
    assert list((machine.root / "cache/templates").glob("file-*")) == []
    assert leftovers(machine) == []


@pytest.mark.parametrize(
    ("trouble", "limit_s", "kind", "words"),
    [
        ("exits", 60, "GuestExited", ["QEMU ended by itself", "a stand-in that was told to end"]),
        ("panics", 60, "GuestPanicked", ["Unable to mount root fs"]),
        ("hangs", 6, "BootTimeout", ["hung at the step 'kernel'"]),
        ("cloud-init-fails", 60, "GuestError", ["cloud-init failed in the guest", "no such module"]),
    ],
)
def test_a_guest_that_does_not_boot_is_the_runs_error(machine: StandIn, trouble: str, limit_s: float, kind: str, words: list[str]) -> None:
    guest_lab(machine, "pass", time_limit_s=limit_s)
    machine.trouble(trouble)
    done = machine.run("run", "aa", "--cold")
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr
    error = machine.report("aa")["run"]["error"]
    assert error["kind"] == kind
    for word in words:
        assert word in error["message"]
        assert word in done.stdout
    assert error["phase"] == "Booting guest main"
    assert {check["verdict"] for check in machine.report("aa")["checks"] if check["id"] == "it_is_so"} == {"error"}
    assert leftovers(machine) == []


def test_a_guest_whose_cloud_init_warns_is_used_and_the_warning_kept(machine: StandIn) -> None:
    write_lab(machine.labs, "aa", "guest")
    machine.trouble("degraded")
    assert machine.run("run", "aa", "--cold").returncode == 0
    (guest,) = machine.report("aa")["guests"]
    assert guest["cloud_init"] == {"status": "degraded", "exit_code": 2, "detail": ["init: WARNING: a warning"]}


def test_an_experiment_runs_talks_and_copies(machine: StandIn) -> None:
    scripts = {
        "sum.py": 'import json, sys\nprint(json.dumps({"sum": sum(map(int, sys.argv[1:])), "input": sys.stdin.read()}))\n',
        "echo.py": """\
            import json, sys
            for line in sys.stdin:
                print(json.dumps({"heard": json.loads(line)}), flush=True)
            print(json.dumps({"over": True}), flush=True)
            """,
    }
    guest_lab(
        machine,
        """\
        seen["record"] = guest.script("sum.py", 1, 2, 3, input="words").record
        with guest.start("echo.py") as talk:
            talk.send({"n": 1})
            seen["heard"] = talk.read()
            talk.finish()
        here = Path(__file__).parent
        (here / "local").write_text("there and back")
        guest.put(here / "local", "/tmp/copied")
        seen["text"] = guest.read_text("/tmp/copied")
        guest.get("/tmp/copied", here / "back")
        seen["back"] = (here / "back").read_text()
        seen["failed"] = guest.run("cat /tmp/nothing", check=False).status
        outside = guest.outside()
        seen["outside"] = [outside["status"], outside["resident_bytes"] > 0, outside["panicked"]]
        seen["console"] = guest.wait_for_console("login:", time_limit_s=0.1)
        seen["booted"] = "Linux version" in guest.console()
        seen["statistics"] = guest.kvm_statistics()
        with bench.phase("A pause"):
            bench.wait(0.05, "nothing")
        """,
        scripts=scripts,
    )
    done = machine.run("run", "aa", "--cold")
    assert done.returncode == 0, done.stdout + done.stderr
    told = seen(machine)
    assert told["record"] == {"sum": 6, "input": "words"}
    assert told["heard"] == {"heard": {"n": 1}}
    assert told["text"] == told["back"] == "there and back"
    assert told["failed"] == 1
    assert told["outside"] == ["running", True, False]
    assert told["booted"]
    assert told["statistics"] == {}
    assert "A pause" in {phase["name"] for phase in machine.report("aa")["phases"]}


def test_what_a_script_does_wrong_is_said_and_leaves_the_guest_usable(machine: StandIn) -> None:
    scripts = {
        "mute.py": "pass\n",
        "words.py": 'print("hello")\n',
        "two.py": 'print("{}")\nprint("{}")\n',
        "broken.py": 'raise SystemExit("broken")\n',
        "slow.py": "import time\ntime.sleep(60)\n",
        "many.py": 'print("{}" * 100000)\n',
    }
    guest_lab(
        machine,
        """\
        from vmlab.errors import VmlabError

        seen["said"] = []
        for wrong in (
            lambda: guest.run("cat /tmp/nothing"),
            lambda: guest.script("no" + ".py"),  # (Names that can be read in the file are looked for before the run.)
            lambda: guest.script("mute.py"),
            lambda: guest.script("words.py"),
            lambda: guest.script("two.py").record,
            lambda: guest.script("broken.py"),
            lambda: guest.script("slow.py", time_limit_s=0.3),
            lambda: guest.script("many.py", output_limit_bytes=1000),
            lambda: bench.guest("oth" + "er"),
            lambda: bench.record("wrong", {"a": {1, 2}}),
        ):
            try:
                wrong()
            except VmlabError as exc:
                seen["said"].append(f"{exc.kind}: {exc.message}")
        seen["after"] = guest.run("echo still there").stdout
        """,
        scripts=scripts,
    )
    done = machine.run("run", "aa", "--cold")
    assert done.returncode == 0, done.stdout + done.stderr
    told = seen(machine)
    assert told["after"] == "still there\n"
    for said, words in zip(
        told["said"],
        (
            "ScriptError: it failed in guest main with exit status 1: cat /tmp/nothing",
            "UsageError: the lab aa has no guest script named no.py",
            "ScriptError: the guest script guest/mute.py printed nothing",
            "ScriptError: it printed what is not JSON: guest/words.py",
            "ScriptError: guest/two.py printed 2 objects where one was expected",
            "ScriptError: the guest script guest/broken.py failed with exit status 1",
            "ScriptError: guest/slow.py: it ran longer than",
            "ScriptError: guest/many.py: it printed more than 1000 bytes",
            "UsageError: lab.yaml of aa declares no guest named 'other'",
            "ScriptError: ",
        ),
        strict=True,
    ):
        assert said.startswith(words), said


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ('guest.run("cat /tmp/nothing")', "ScriptError", "it failed in guest main"),
        ("guest.no_such_thing", "ExperimentError", "the experiment of aa broke: AttributeError"),
    ],
)
def test_what_ends_an_experiment_is_its_runs_error(machine: StandIn, body: str, kind: str, words: str) -> None:
    guest_lab(machine, body)
    done = machine.run("run", "aa", "--cold")
    assert done.returncode == 3, done.stdout + done.stderr
    error = machine.report("aa")["run"]["error"]
    assert error["kind"] == kind, error
    assert words in error["message"]
    assert leftovers(machine) == []


def test_a_disk_that_was_frozen_boots_again_until_its_line_comes(machine: StandIn) -> None:
    guest_lab(
        machine,
        """\
        disk = guest.freeze()
        booted = bench.cold_boot(disk, init="systemd", until="stand-in: up", time_limit_s=20)
        seen["port"] = [line["text"] for line in booted["port"]]
        seen["times"] = [line["at_s"] for line in booted["console"]]
        seen["broken"] = booted["broken"]
        seen["digest"] = len(disk.digest())
        """,
    )
    done = machine.run("run", "aa", "--cold")
    assert done.returncode == 0, done.stdout + done.stderr
    told = seen(machine)
    assert (told["port"], told["broken"], told["digest"]) == (["stand-in: up"], [], 64)
    assert told["times"] == sorted(told["times"])
    assert told["times"][0] > 0
    assert machine.report("aa")["guests"][0]["ended"] == "switched off"
    assert leftovers(machine) == []


def test_a_frozen_disk_that_never_says_its_line_is_a_boot_that_timed_out(machine: StandIn) -> None:
    guest_lab(machine, 'bench.cold_boot(guest.freeze(), init="systemd", until="never", time_limit_s=8)')
    assert machine.run("run", "aa", "--cold").returncode == 3
    error = machine.report("aa")["run"]["error"]
    assert (error["kind"], "'never' did not come within 8 s" in error["message"]) == ("BootTimeout", True)
    assert "stand-in: up" in error["detail"], "what did come is told"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_takes_its_guest_along(machine: StandIn, number: signal.Signals) -> None:
    guest_lab(machine, 'print("it runs", flush=True)\nbench.wait(60, "the end")')
    run = machine.start("run", "aa", "--cold")
    assert run.stdout is not None
    assert any("it runs" in line for line in run.stdout)
    family = psutil.Process(run.pid).children(recursive=True)
    assert family
    run.send_signal(number)
    _, err = run.communicate(timeout=30)
    assert run.returncode == (-number if number is signal.SIGKILL else 130), err
    assert "Traceback" not in err
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert not (machine.reports / "aa/latest").exists()
    if number is signal.SIGKILL:
        # What it could not remove itself, the next one removes.
        write_lab(machine.labs, "bb", "guest")
        assert machine.run("run", "bb", "--cold").returncode == 0
    assert leftovers(machine) == []
