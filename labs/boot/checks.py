"""What the evidence of the boot lab shows: the disk, the arms, and what SysV init reads.

`checks_time.py` judges order and time, `checks_unit.py` the unit file of the course page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, not_observable, passed

from . import boots, reading


@check(points=1, claim="D1")
def only_the_command_line_differs(evidence: Evidence) -> Verdict:
    """One disk, one machine: the arms' QEMU commands differ in the kernel's command line alone, and nothing wrote to the disk meanwhile."""
    disk = evidence["disk"]
    before, after = disk.text("sha256_before"), disk.text("sha256_after")
    commands = {each.text("arm"): each.texts("argv", at_least=10) for each in evidence["warm_up"].records("boots")}
    if set(commands) != set(reading.arms_of(evidence)):
        raise EvidenceProblem(f"warm_up.boots: expected a boot of each arm, found {', '.join(commands) or 'none'}")
    stripped = {tuple(without_what_must_differ(words)) for words in commands.values()}
    lines = {words[words.index("-append") + 1] if "-append" in words else "" for words in commands.values()}
    measured = f"{len(stripped)} command without its -append, {len(lines)} command lines for {len(commands)} arms; "
    measured += f"disk {before[:12]}, then {after[:12]}"
    expected = f"1 command, {len(commands)} command lines, one digest of the disk"
    if len(stripped) == 1 and len(lines) == len(commands) and before == after and re.fullmatch(r"[0-9a-f]{64}", before):
        return passed("The arms are the same machine with the same disk.", expected=expected, measured=measured)
    return failed("The arms differ in more than the kernel's command line.", expected=expected, measured=measured)


def without_what_must_differ(words: Sequence[str]) -> list[str]:
    """A QEMU command without the kernel's command line, and without what is new in each run: descriptors and the generation's id."""
    kept = [word for previous, word in pairwise(["", *words]) if previous != "-append"]
    return [re.sub(r"\bfd=\d+|guid=[0-9a-f-]+", "", word) for word in kept]


@check(points=1, claim="D1")
def each_arm_is_what_it_says(evidence: Evidence) -> Verdict:
    """Each boot was of the arm that it is counted as: its own words on the ports say so, not the label that the experiment gave it.

    PID 1 and the kernel's command line as the guest read them; "Using makefile-style concurrent boot" from Debian's rc script, which is
    missing where it runs the scripts one by one; and under systemd the files that the units came from.
    """
    wrong = []
    seen = dict.fromkeys(reading.arms_of(evidence), 0)
    for each in reading.all_boots(evidence):
        arm = each.text("arm")
        if arm not in reading.ARMS:
            raise EvidenceProblem(f"{each.place}.arm: expected one of {', '.join(reading.ARMS)}, found {arm!r}")
        wrong += [f"{each.place} ({arm}): {what}" for what in reading.contradictions(each, arm, evidence)]
        seen[arm] = seen.get(arm, 0) + 1
    if any(count == 0 for count in seen.values()):
        raise EvidenceProblem(f"expected boots of each arm, found {seen}")
    measured = ", ".join(f"{count} of {arm}" for arm, count in seen.items())
    if wrong:
        return failed(
            f"{len(wrong)} boots or facts do not fit their label: {wrong[0]}.",
            expected="in each boot the init, the command line and the order of its arm",
            measured=measured,
            hint="an arm that falls back to another way of booting measures that other way",
        )
    return passed("Init, command line and unit files are those of the arm in every boot.", expected="each as labelled", measured=measured)


@check(points=1, claim="S1")
def sysv_init_reads_inittab(evidence: Evidence) -> Verdict:
    """SysV init reads /etc/inittab: a line that stands only there was run in its boots, and in none of systemd's.

    Seen in the first boots, which went on until they had switched themselves off. The file also says which runlevel to enter, and each
    measured boot's console says "Entering runlevel: 2", though nothing on the kernel's command line named one.
    """
    lines = evidence["sysv"].texts("inittab", at_least=3)
    default = [line.split(":")[1] for line in lines if line.split(":")[2:3] == ["initdefault"]]
    written = any(line.startswith("l2:2:wait:/etc/init.d/rc 2") for line in lines) and any(line.startswith("lab:") for line in lines)
    whole = evidence["warm_up"].records("boots")
    ran = {each.text("arm"): any(mark.text("event") == "inittab" for mark in each.records("marks")) for each in whole}
    inits = {each.text("arm"): each.text("init") for each in whole}
    if set(inits.values()) != {"sysv", "systemd"}:
        return not_observable("The run booted only one of the two init systems (ARMS=).")
    entered = [
        any("Entering runlevel: 2" in line.text("text") for line in each.records("console"))
        for each in evidence["boots"].records("boots")
        if each.text("init") == "sysv"
    ]
    measured = f"initdefault {default}; runlevel 2 entered in {sum(entered)} of {len(entered)} boots; our line ran: "
    measured += ", ".join(f"{arm} {'yes' if did else 'no'}" for arm, did in ran.items())
    expected = "initdefault ['2'], entered in all; our line ran under sysv and not under systemd"
    if default == ["2"] and written and entered and all(entered) and all(did is (inits[arm] == "sysv") for arm, did in ran.items()):
        return passed("The line was run by the init that reads the file, and only by that.", expected=expected, measured=measured)
    return failed("What ran is not what /etc/inittab says.", expected=expected, measured=measured)


@check(points=1, claim="S2")
def runlevels_2_to_5_are_alike(evidence: Evidence) -> Verdict:
    """There are runlevels 0 to 6, but on Debian 2, 3, 4 and 5 start the same services; 0, 1 and 6 stop them.

    The lab's own services are left out of the comparison: the lab put each graph into a runlevel of its own, so that the kernel's command
    line can choose it.
    """
    links = evidence["sysv"].record("links")
    ours = {f"lab-{name}" for name in lab_services(evidence)}
    starts = {level: {name for name in started(links, level) if name not in ours} for level in "0123456"}
    stops = {level: len([each for each in links.records(level, at_least=0) if each.text("name").startswith("K")]) for level in "0126"}
    if not starts["2"]:
        raise EvidenceProblem("sysv.links.2: expected links that start something")
    measured = f"started in 2: {len(starts['2'])}, " + ", ".join(f"{level}: {len(starts[level])}" for level in "345016")
    measured += "; stopped in " + ", ".join(f"{level}: {count}" for level, count in stops.items())
    expected = "the same set in 2, 3, 4 and 5; more to stop in 0, 1 and 6 than in 2"
    alike = all(starts[level] == starts["2"] for level in "345")
    if alike and all(starts[level] != starts["2"] for level in "016") and all(stops[level] > stops["2"] for level in "016"):
        return passed("Four of the seven are one and the same.", expected=expected, measured=measured)
    return failed("The runlevels do not differ as they should.", expected=expected, measured=measured)


def lab_services(evidence: Evidence) -> list[str]:
    """The names of all services that the lab installed."""
    names = list(evidence["plan"].record("graphs"))
    return [each.name for graph in names for each in reading.graph_of(evidence, graph)] + [f"ready-{graph}" for graph in names]


def started(links: Record, runlevel: str) -> list[str]:
    """The scripts that a runlevel's S links start, in the order of the links' names."""
    names = [each.text("name") for each in links.records(runlevel, at_least=0)]
    return [name[3:] for name in sorted(names) if re.fullmatch(r"S\d\d.+", name)]


@check(points=1, claim="S3", after="each_arm_is_what_it_says")
def s_links_start_by_number(evidence: Evidence) -> Verdict:
    """A link that begins with S starts its script, and the number after it decides when: in the sequential boots the services began in
    exactly the order of the names in /etc/rc2.d.

    The numbers are not written by hand: insserv works them out from the headers of the scripts.
    """
    try:
        measured_boots = reading.boots_of(evidence, reading.SEQUENTIAL)
    except reading.LeftOut as why:
        return not_observable(f"{why}.")
    links = evidence["sysv"].record("links")
    ours = {f"lab-{each.name}": each.name for each in reading.graph_of(evidence)}
    wanted = [ours[name] for name in started(links, "2") if name in ours]
    targets = [each.text("target") for each in links.records("2") if each.text("name")[3:] in ours]
    orders = {tuple(sorted(each.begins, key=lambda name: (each.begins[name].guest_s, each.begins[name].host_s))) for each in measured_boots}
    numbers = sorted({each.text("name")[:3] for each in links.records("2") if each.text("name")[3:] in ours})
    expected = f"{' '.join(wanted)} ({' '.join(numbers)})"
    measured = f"in {len(measured_boots)} boots: " + " or ".join(" ".join(order) for order in sorted(orders))
    if set(wanted) != set(ours.values()) or not all(target.startswith("../init.d/lab-") for target in targets):
        return failed("The runlevel has no link to each of the services.", expected=expected, measured=measured)
    if orders == {tuple(wanted)} and len(numbers) > 1:
        return passed("The order of the names is the order of the boot.", expected=expected, measured=measured)
    return failed("The services did not begin in the order of their links.", expected=expected, measured=measured)


@check(points=1, claim="S4", after="each_arm_is_what_it_says")
def k_links_stop_by_number(evidence: Evidence) -> Verdict:
    """A link that begins with K ends its script: it is run with the word `stop`, in the order of the numbers, at the guest's shutdown.

    Seen in the first sequential boot, which went on until it had switched itself off. What was started last is stopped first.
    """
    shutdown = [each for each in evidence["warm_up"].records("boots") if each.text("arm") == reading.SEQUENTIAL]
    if reading.SEQUENTIAL not in reading.arms_of(evidence):
        return not_observable(f"The run left out {reading.SEQUENTIAL} (ARMS=).")
    if len(shutdown) != 1:
        raise EvidenceProblem(f"warm_up.boots: expected one boot of {reading.SEQUENTIAL}, found {len(shutdown)}")
    ours = set(lab_services(evidence))
    names = sorted(each.text("name") for each in evidence["sysv"].record("links").records("0"))
    wanted = [name[7:] for name in names if re.match(r"K\d\dlab-", name)]
    stopped = list(boots.marks(shutdown[0], "stop"))
    place = {name: number for number, name in enumerate(stopped)}
    graph = [each for name in evidence["plan"].record("graphs") for each in reading.graph_of(evidence, name)]
    backwards = all(place[name] > place[each.name] for each in graph for name in each.after if {name, each.name} <= set(place))
    expected, measured = " ".join(wanted), " ".join(stopped) or "none was stopped"
    if set(wanted) == ours and stopped == wanted and backwards:
        return passed("Each was told to stop, what was started last first.", expected=expected, measured=measured)
    return failed("The services were not stopped in the order of their K links.", expected=expected, measured=measured)
