"""``python -m runner`` is ``vmlab``."""

from runner.cli import main

main()
