"""The counters that a parent shares with its observer, read while they are written."""

from __future__ import annotations

import os
import time

from ..guest.procfs import Counters


def test_a_number_is_never_seen_half_written() -> None:
    counters = Counters()
    writer = os.fork()
    if writer == 0:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            counters.add("forked")
        os._exit(0)
    seen = [0]
    end = time.monotonic() + 0.9
    while time.monotonic() < end:
        seen.append(counters["forked"])
        if seen[-1] < seen[-2]:
            break
        del seen[:-1]
    os.waitpid(writer, 0)
    assert seen == sorted(seen)
    assert seen[-1] > 0
