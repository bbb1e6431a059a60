"""Run the probe and print its record: exactly one JSON object on standard output, whatever happens."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from typing import Any, NoReturn

from . import claims, interface, measurements, tiny_guest

DEVICE = "/dev/kvm"
LIMIT_S = 15


class _TooLong(Exception):
    """The watchdog barked."""


def _bark(_number: int, _frame: object) -> NoReturn:
    # Should this process not even come to print its record, a second alarm ends it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(2)
    raise _TooLong


def probe(device: str = DEVICE, limit_s: int = LIMIT_S) -> dict[str, Any]:
    """The record: claims, counts and times by measurement, and what went wrong if something did. Never raises for what the kernel does.

    ``error`` is None or says which ``step`` failed (a request of the kernel's, by name), with its errno by name and a text.
    """
    record: dict[str, Any] = {
        "format": 1,
        "device": device,
        "claim": claims.read(),
        "api_version": None,
        "has_counters": None,
        "phases": {},
        "error": None,
    }
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _bark)
    signal.alarm(limit_s)
    step = "set up"
    try:
        with interface.opened(device) as descriptor:
            record["api_version"] = interface.ask(descriptor, interface.KVM_GET_API_VERSION)
            with tiny_guest.create(descriptor) as guest:
                record["has_counters"] = guest.counts
                step = "compute"
                for name, measured in measurements.measure(guest):
                    record["phases"][name] = asdict(measured)
                    step = f"after {name}"
    except interface.KvmError as exc:
        record["error"] = {"step": exc.step, "errno": exc.errno, "text": exc.text}
    except ValueError as exc:
        record["error"] = {"step": "counters", "errno": "", "text": str(exc)}
    except _TooLong:
        record["error"] = {"step": step, "errno": "", "text": f"not done after {limit_s} s"}
    finally:
        signal.alarm(0)
    record["wall_s"] = round(time.monotonic() - began, 3)
    return record


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python3 -m kvm", description="Find out what stands behind /dev/kvm; prints one JSON object.")
    parser.add_argument("--device", default=DEVICE, help="the device to open (default %(default)s)")
    parser.add_argument("--limit", type=int, default=LIMIT_S, metavar="S", help="give up after this many seconds (default %(default)s)")
    options = parser.parse_args()
    json.dump(probe(options.device, options.limit), sys.stdout)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
