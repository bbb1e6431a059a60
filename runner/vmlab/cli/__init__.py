"""The commands. ``vmlab --help`` answers at once, because what a command needs is imported when it runs.

app       the group of commands, and those of a lab: list, predict, shell, report, check, doctor, new
run       run, merge
controls  controls
work      start, try
author    record, lint
many      ps, worker
storage   image, template, clean
options   what several commands take
"""

from vmlab.cli.app import main

__all__ = ["main"]
