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
    """All boots are of one disk and one machine: only the kernel's command line differs between the arms.

    The command of each boot's QEMU is in the evidence. Without its -append, which is the kernel's command line, it must be the same in all
    boots, but for one thing: a graph says with how many processors (-smp) it is booted. There must be as many command lines as arms. The
    digest of the disk before the first boot and after the last shows that no boot changed it.
    """
    disk = evidence["disk"]
    before, after = disk.text("sha256_before"), disk.text("sha256_after")
    groups: dict[tuple[str, str], dict[str, set[str]]] = {}
    machines, wrong = set[tuple[str, ...]](), list[str]()
    for name, each in reading.all_boots(evidence):
        words, graph = each.texts("argv", at_least=10), each.text("graph")
        machines.add(tuple(without_what_must_differ(words)))
        lines = groups.setdefault((name, graph), {})
        lines.setdefault(each.text("arm"), set()).add(following(words, "-append"))
        if following(words, "-smp") != str(reading.cpus_of(evidence, graph)):
            wrong.append(f"{each.place} has {following(words, '-smp') or 'no number of'} processors")
    for part in ("warm_up", "boots"):
        reading.require_all_arms(evidence, {arm for (name, _), lines in groups.items() if name == part for arm in lines})
    # (A boot without any command line shows itself here, too: it has the empty one, and so has every other such arm.)
    for (name, graph), lines in groups.items():
        different = {line for those in lines.values() for line in those}
        if len(different) != len(lines) or any(len(those) != 1 for those in lines.values()):
            wrong.append(f"{name}, {graph}: {len(different)} command lines for {len(lines)} arms")
    if len(machines) != 1:
        wrong.append(f"{len(machines)} different machines")
    measured = f"{len(machines)} command without its -append and -smp; disk {before[:12]}, then {after[:12]}"
    measured += f"; {wrong[0]}" if wrong else ""
    expected = "1 command without them, one command line for each arm, one digest of the disk"
    if not wrong and before == after and re.fullmatch(r"[0-9a-f]{64}", before):
        return passed("The arms are the same machine with the same disk.", expected=expected, measured=measured)
    hint = "compare the boots' argv in the evidence word by word, and the two digests under disk"
    return failed("The arms differ in more than the kernel's command line.", expected=expected, measured=measured, hint=hint)


def following(words: Sequence[str], option: str) -> str:
    """The word after an option of a command; empty when there is none."""
    return next((word for previous, word in pairwise(words) if previous == option), "")


def without_what_must_differ(words: Sequence[str]) -> list[str]:
    """A QEMU command without what may differ, and without what is new in each run: descriptors and the generation's id."""
    kept = [word for previous, word in pairwise(["", *words]) if previous not in ("-append", "-smp")]
    return [re.sub(r"\bfd=\d+|guid=[0-9a-f-]+", "", word) for word in kept]


@check(points=1, claim="D1")
def each_arm_is_what_it_says(evidence: Evidence) -> Verdict:
    """Each boot was of the arm that it is counted as: its own words on the ports say so, not the label that the experiment gave it.

    Each boot tells which program was PID 1, the kernel's command line as the guest read it, and under systemd from which files the units
    came and that all of them were started. Debian's rc script writes "Using makefile-style concurrent boot" on the console when it starts
    scripts in parallel, and nothing when it runs them one by one.
    """
    wrong = []
    seen = dict.fromkeys(reading.arms_of(evidence), 0)
    for _, each in reading.all_boots(evidence):
        arm = each.text("arm")
        if arm not in reading.ARMS:
            raise EvidenceProblem(f"{each.place}.arm: expected one of {', '.join(reading.ARMS)}, found {arm}")
        wrong += [f"{each.place} ({arm}): {what}" for what in reading.contradictions(each, arm, evidence)]
        seen[arm] = seen.get(arm, 0) + 1
    reading.require_all_arms(evidence, {arm for arm, count in seen.items() if count})
    measured = ", ".join(f"{count} of {arm}" for arm, count in seen.items())
    if wrong:
        return failed(
            f"{len(wrong)} boots or facts do not fit their label: {wrong[0]}.",
            expected="in each boot the init, the command line and the order of its arm",
            measured=measured,
            hint="an arm that falls back to another way of booting measures that other way: look at this boot's facts and console",
        )
    return passed("Init, command line and unit files are those of the arm in every boot.", expected="each as labelled", measured=measured)


@check(points=1, claim="S1")
def sysv_init_reads_inittab(evidence: Evidence) -> Verdict:
    """SysV init reads /etc/inittab: a line that stands only there was run in its boots, and in none of systemd's.

    The lab adds a line to the file that nothing else knows of, and looks for what it does in the first boots, which went on until they had
    switched themselves off. The file also says which runlevel to enter, and each measured boot's console says "Entering runlevel: 2",
    though nothing on the kernel's command line named one.
    """
    lines = evidence["sysv"].texts("inittab", at_least=3)
    default = [line.split(":")[1] for line in lines if line.split(":")[2:3] == ["initdefault"]]
    written = any(line.startswith("l2:2:wait:/etc/init.d/rc 2") for line in lines) and any(line.startswith("lab:") for line in lines)
    whole = evidence["warm_up"].records("boots")
    ran = {each.text("arm"): any(mark.text("event") == "inittab" for mark in each.records("marks")) for each in whole}
    reading.require_all_arms(evidence, set(ran))
    if len({reading.is_sysv(arm) for arm in ran}) < 2:
        return not_observable("The run booted only one of the two init systems (ARMS=).")
    missed = [reading.is_missing(each, "Entering runlevel: 2") for each in reading.measured_sysv(evidence)]
    measured = f"runlevel to enter by the file: {', '.join(default) or 'none'}; entered in {missed.count(False)} of {len(missed)} boots; "
    measured += "our line ran: " + ", ".join(f"{arm} {'yes' if did else 'no'}" for arm, did in ran.items())
    expected = "runlevel 2, entered in all; our line ran under SysV init and not under systemd"
    if default == ["2"] and written and not any(missed) and all(did is reading.is_sysv(arm) for arm, did in ran.items()):
        return passed("The line was run by the init that reads the file, and only by that.", expected=expected, measured=measured)
    hint = "compare sysv.inittab in the evidence with the consoles of the SysV boots and with the marks named inittab of the first boots"
    return failed("What ran is not what /etc/inittab says.", expected=expected, measured=measured, hint=hint)


@check(points=1, claim="S2")
def runlevels_2_to_5_are_alike(evidence: Evidence) -> Verdict:
    """There are runlevels 0 to 6. On Debian 2, 3, 4 and 5 start the same services; 0 halts, 1 is for a single user, and 6 reboots.

    Read from the links in /etc/rc0.d to /etc/rc6.d. Halting and rebooting are scripts themselves, halt and reboot, which only 0 and 6 have;
    only 1 has single. These three stop more than 2 does. The lab's own services are left out of the comparison of what is started: the lab
    put each graph into a runlevel of its own, so that the kernel's command line can choose it.
    """
    links = evidence["sysv"].record("links")
    ours = {f"lab-{name}" for name in lab_services(evidence)}
    starts = {level: {name for name in started(links, level) if name not in ours} for level in "0123456"}
    scripts = {level: {each.text("name")[3:] for each in links.records(level, at_least=0)} for level in "0123456"}
    stops = {level: len([each for each in links.records(level, at_least=0) if each.text("name").startswith("K")]) for level in "0126"}
    if not starts["2"]:
        raise EvidenceProblem("sysv.links.2: expected links that start something")
    strays = [each.text("name") for level in "0123456" for each in links.records(level, at_least=0) if leads_astray(each)]
    special = {script: "".join(level for level in "0123456" if script in scripts[level]) for script in ("halt", "single", "reboot")}
    measured = f"started in 2: {len(starts['2'])}, " + ", ".join(f"{level}: {len(starts[level])}" for level in "345016")
    measured += "; stopped in " + ", ".join(f"{level}: {count}" for level, count in stops.items())
    measured += "; " + ", ".join(f"{script} is in {levels or 'none'}" for script, levels in special.items())
    measured += f"; {', '.join(strays)} leads to no script of its name" if strays else ""
    expected = "the same set in 2, 3, 4 and 5; more to stop in 0, 1 and 6 than in 2; halt in 0, single in 1, reboot in 6"
    alike = all(starts[level] == starts["2"] for level in "345")
    apart = all(starts[level] != starts["2"] and stops[level] > stops["2"] for level in "016")
    if alike and apart and not strays and special == {"halt": "0", "single": "1", "reboot": "6"}:
        return passed("Four of the seven are one and the same.", expected=expected, measured=measured)
    hint = "compare the lists under sysv.links in the evidence, leaving out the names that begin with lab-"
    return failed("The runlevels do not differ as they should.", expected=expected, measured=measured, hint=hint)


def leads_astray(link: Record) -> bool:
    """Whether a link leads to another file than the script in /etc/init.d whose name it has."""
    return link.text("target") != f"../init.d/{link.text('name')[3:]}"


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

    Services with the same number begin in the order of the alphabet, because rc goes through the directory as the shell lists it. The
    numbers are not written by hand: insserv works them out from the headers of the scripts.
    """
    try:
        measured_boots = reading.boots_of(evidence, reading.SEQUENTIAL)
    except reading.LeftOut as why:
        return not_observable(f"{why}.")
    links = evidence["sysv"].record("links")
    ours = {f"lab-{each.name}": each.name for each in reading.graph_of(evidence)}
    wanted = [ours[name] for name in started(links, "2") if name in ours]
    astray = [each.text("name") for each in links.records("2") if each.text("name")[3:] in ours and leads_astray(each)]
    orders = {tuple(sorted(each.begins, key=lambda name: (each.begins[name].guest_s, each.begins[name].host_s))) for each in measured_boots}
    numbers = sorted({each.text("name")[:3] for each in links.records("2") if each.text("name")[3:] in ours})
    expected = f"{' '.join(wanted)} ({' '.join(numbers)})"
    measured = f"in {len(measured_boots)} boots: " + " or ".join(" ".join(order) for order in sorted(orders))
    if set(wanted) != set(ours.values()) or astray:
        hint = "look at sysv.links.2 in the evidence: a link is missing, or leads elsewhere"
        return failed("The runlevel has no link to each of the services.", expected=expected, measured=measured, hint=hint)
    if orders == {tuple(wanted)} and len(numbers) > 1:
        return passed("The order of the names is the order of the boot.", expected=expected, measured=measured)
    hint = "compare the two rows name by name; the boots' marks say when each began"
    return failed("The services did not begin in the order of their links.", expected=expected, measured=measured, hint=hint)


@check(points=1, claim="S4", after="each_arm_is_what_it_says")
def k_links_stop_by_number(evidence: Evidence) -> Verdict:
    """A script whose link begins with K is run with the word stop, in the order of the numbers, when the guest shuts down.

    Seen in the first sequential boot, which went on until it had switched itself off: each of the lab's scripts writes a mark when it is
    run with that word. What was started last is stopped first.
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
    hint = "compare the K links of sysv.links.0 in the evidence with the marks named stop of the first sequential boot"
    return failed("The services were not stopped in the order of their K links.", expected=expected, measured=measured, hint=hint)
