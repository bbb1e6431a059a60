"""Never run by itself: the tests drive the bench."""

from vmlab.bench import Bench


def experiment(bench: Bench) -> None:
    """Say what there is."""
    bench.record("it", {"has": bench.guest("main").name})
