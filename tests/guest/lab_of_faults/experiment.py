"""Never run by itself: the tests drive the bench."""

from vmlab.bench import Bench


def experiment(bench: Bench) -> None:
    """Say hello, and let cloud-init say what it thinks of its user-data."""
    guest = bench.guest()
    bench.record("hello", guest.script("hello.py", "world").record)
    schema = guest.run("cloud-init schema --system", check=False)
    bench.record("schema", {"status": schema.status, "said": schema.stdout + schema.stderr})
