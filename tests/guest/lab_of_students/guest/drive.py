"""Starts students' programs as it is told, one after the other, and says what became of each."""

import os
import time

from vmlab_guest import proc, sandbox, student
from vmlab_guest.say import encoded, orders, say
from vmlab_guest.student import Program

FOLDER = "/root/attempt"


def hand_in(order: "dict[str, object]") -> None:
    """What the host does: the student's file, and what it is."""
    os.makedirs(f"{FOLDER}/files", 0o700, exist_ok=True)
    for name in os.listdir(f"{FOLDER}/files"):
        os.unlink(f"{FOLDER}/files/{name}")
    with open(f"{FOLDER}/files/{order['program']}", "w", encoding="latin-1", newline="") as file:
        file.write(str(order["source"]))
    limits = {"time_s": 3, "memory_mib": 64, "output_kib": 64, "processes": 32, **order.get("limits", {})}  # type: ignore[dict-item]
    attempt = {"task": "any", "program": order["program"], "as_root": order.get("as_root", False), "limits": limits}
    with open(f"{FOLDER}/attempt.json", "w") as file:
        file.write(encoded(attempt))


def left_over() -> "dict[str, object]":
    """What a program must not leave in the guest: processes of its user, control groups, mounts, directories."""
    uid = sandbox.student_uid()
    return {
        "processes": [pid for pid, owner in proc.tasks()[0] if owner == uid],
        "groups": [name for name in os.listdir("/sys/fs/cgroup") if "student" in name],
        "mounts": [line for line in proc.read("/proc/self/mounts").decode().splitlines() if " /mnt" in line or "student" in line],
        "directories": [name for name in os.listdir("/run") if "student" in name],
        "children": sorted(set().union(*proc.children_of(os.getpid()))),
        "descriptors": len(proc.descriptors()),
    }


def main() -> None:
    """Until there are no more orders."""
    for order in orders():
        hand_in(order)
        program = Program(FOLDER)
        answer: dict[str, object] = {}
        if order.get("build"):
            answer["build"] = program.build()
        if "arguments" in order:
            before = time.monotonic()
            stdin = order.get("stdin")
            with program.running(
                *order["arguments"],
                stdin=stdin if stdin is None else stdin.encode(),
                given=order.get("given"),
                environment={"GREETING": "hi"},
            ) as run:
                started = time.monotonic()
                if lines := order.get("until_lines"):
                    answer["lines_came"] = run.wait_for_lines(lines)
                    answer["members"] = len(run.members())
                    answer["states"] = [str(proc.stat(pid)["state"]) for pid in run.members()]
                for number in order.get("signals", []):
                    run.signal(number)
                for text in order.get("writes", []):
                    run.write(text.encode())
                if order.get("leave_at_once") is None:
                    answer["ended"] = run.wait(20)
                answer["uid"] = proc.status(run.pid)["Uid"].split()[0] if proc.stat_or_none(run.pid) else None
                ended = time.monotonic()
                answer["lines"] = [[at_s - run.started_s, text] for at_s, text in run.lines]
                answer["pid_is_outside"] = run.pid > 2
            gone = time.monotonic()
            answer["record"] = run.record()
            answer["took_s"] = [round(each, 4) for each in (started - before, ended - started, gone - ended)]
        answer["left_over"] = left_over()
        say(answer)


if __name__ == "__main__":
    student.Running  # noqa: B018  (Imported to be found by mypy.)
    main()
