"""Never run by itself: the tests drive the bench."""

from vmlab.bench import Bench


def experiment(bench: Bench) -> None:
    """Use every module."""
    bench.record("everything", bench.guest().script("everything.py").record)
