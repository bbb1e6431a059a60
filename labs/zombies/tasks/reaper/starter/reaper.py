"""A supervisor: starts the commands that it reads, and says how each of them ended."""

import os
import sys


def start(command: str) -> int:
    """Start a command; its process id."""
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", command])
    return pid


def main() -> int:
    """Read commands, a line each, and start them."""
    number_of = {}  # The number of each command that runs, by its process id.
    for number, line in enumerate(sys.stdin, 1):
        number_of[start(line.strip())] = number
    # What is missing: wait for the children, while new commands may still come, and print number and status of each that ended.
    return 0


if __name__ == "__main__":
    sys.exit(main())
