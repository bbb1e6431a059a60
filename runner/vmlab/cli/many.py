"""The commands for many runs on one machine."""

from __future__ import annotations

import dataclasses
import json

import click

from vmlab.cli.options import cluster_extra, json_option


@click.command()
@json_option
def ps(as_json: bool) -> None:
    """Show which runs have a slot on this machine, which wait for one, and what for.

    Runs of all your processes share the machine's memory and CPUs, first come first served (those of all users, where an administrator
    set VMLAB_SLOTS to a directory of theirs).
    """
    from vmlab.host.facts import counted, in_words
    from vmlab.host.slots import Slots

    seen = Slots().overview()
    memory, cpus = seen.taken()
    if as_json:
        rows = [{**dataclasses.asdict(row.place), "since_s": row.since_s, "waits_for": row.waits_for} for row in seen.rows]
        taken = {"memory_bytes": memory, "cpus": cpus}
        click.echo(json.dumps({"runs": rows, "taken": taken, "whole": dataclasses.asdict(seen.whole)}, indent=2))
        return
    for row in seen.rows:
        run = row.place
        state = "runs" if run.running else "waits"
        alone = ", alone" if run.exclusive else ""
        click.echo(
            f"{state:<6}{row.since_s:>6.0f} s  {run.what:<20} pid {run.pid:<8}{run.user:<12}"
            f"{in_words(run.memory_bytes)}, {counted(run.cpus, 'CPU')}{alone}{f'; waits for {row.waits_for}' if row.waits_for else ''}"
        )
    if not seen.rows:
        click.echo("nothing runs and nothing waits")
    click.echo(f"taken: {in_words(memory)} of {in_words(seen.whole.memory_bytes)}, {cpus} of {counted(seen.whole.cpus, 'CPU')}")


@click.command()
@click.argument("scheduler", metavar="tcp://HOST:PORT")
def worker(scheduler: str) -> None:
    """Offer this machine to a Dask scheduler (`dask scheduler`), for `vmlab run --scheduler`.

    It offers what `vmlab doctor` finds: memory, CPUs, and KVM where it is real. Labs take slots of this machine like any other run here.
    """
    with cluster_extra():
        from vmlab.many.cluster import serve
    serve(scheduler)
