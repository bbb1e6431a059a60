"""Bringing files over a network that cannot be relied on: several addresses, gone on from after every interruption, right or absent.

    <target>        there by one rename, when every byte has come and the digest is the right one
    <target>.part   what has come so far; kept after a failure, because the next attempt goes on from it

The transfer itself is curl's (`vmlab.image.curl`); what is decided here is whom to ask next, and whether the file is the right one.
Nothing but the digest protects a file that was gone on from: a server's own marks (ETag, Last-Modified) say that a file is the same, a
digest shows it. One that turns out mixed is fetched from its beginning, once. The caller sees to it that only one process brings a target
at a time.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.errors import ImageError, UsageError
from vmlab.image import curl
from vmlab.image.cache import sync
from vmlab.image.signature import Untrusted
from vmlab.progress import Progress

ATTEMPTS = 4
"""Rounds over the addresses that bring nothing new. One that brings a MiB does not count: a line that breaks every minute will do."""
_PROGRESS_BYTES = 1 << 20
_HINT = "check the network (and http_proxy, https_proxy), then run it again; or `vmlab image import` a file downloaded elsewhere"


class Missing(ImageError):
    """Every address answers that it has no such file (404 or 410): trying again will not help."""


@dataclass(frozen=True)
class Wanted:
    """A file that is to be had at several addresses."""

    addresses: Sequence[str]
    limit_bytes: int
    """A longer file is not taken: a server that sends without end shall not fill the disk."""
    check: Callable[[Path], None] | None = None
    """Raises `signature.Untrusted` for any other file. One that nothing can check is never gone on from."""


def back_off(attempt: int) -> float:
    """Seconds to wait after the fruitless round number ``attempt`` (from 1): doubling up to a minute, and not the same for two hosts."""
    return min(60.0, 2.0**attempt) * random.SystemRandom().uniform(0.5, 1.0)


def fetch(wanted: Wanted, target: Path, progress: Progress, deadline: Deadline) -> None:
    """Bring a file from the first address that gives it whole to ``target``, going on from what an interrupted attempt left.

    Raises UsageError for an address that is not http(s), `Missing` when no address has the file, `signature.Untrusted` when one has another
    file and none the right one, ImageError when none gives it before the deadline, and HostError when curl is missing or the file cannot be
    written (what has come is kept).
    """
    for url in wanted.addresses or [""]:
        if not curl.host_of(url):
            raise UsageError(f"not an http or https address: {url!r}", hint="give an address such as https://example.org/disk.qcow2")
    attempt = _Attempts(wanted, part_of(target), progress, deadline)
    if not attempt.is_whole():
        attempt.run()
    with curl.disk(target):
        sync(attempt.part)
        attempt.part.replace(target)


def fetch_small(address: str, progress: Progress, deadline: Deadline) -> bytes:
    """The content of a small file (digests, a signature), by the rules and with the errors of `fetch`; nothing of it is kept."""
    with tempfile.TemporaryDirectory(prefix="vmlab-") as directory:
        target = Path(directory) / "small"
        fetch(Wanted([address], limit_bytes=1 << 20), target, progress, deadline)
        return target.read_bytes()


def part_of(target: Path) -> Path:
    """Where a file's beginning is until all of it has come."""
    return target.with_name(f"{target.name}.part")


class _Attempts:
    """The rounds over the addresses."""

    def __init__(self, wanted: Wanted, part: Path, progress: Progress, deadline: Deadline) -> None:
        self.part = part
        self._wanted, self._progress, self._deadline = wanted, progress, deadline
        self._began_anew = False
        self._alive = list(dict.fromkeys(wanted.addresses))
        self._cause = "nobody was asked"
        self._all_absent = True
        self._wrong: Untrusted | None = None

    def is_whole(self) -> bool:
        """Whether nothing is missing: whoever fetched it was killed between the last byte and the rename."""
        if self._wanted.check is None or not self.part.is_file():
            return False
        try:
            self._wanted.check(self.part)
        except Untrusted:
            return False
        return True

    def run(self) -> None:
        """Ask the addresses in turn until the file is there and right."""
        fruitless, best = 0, curl.length_of(self.part)
        while self._alive and fruitless < ATTEMPTS:
            if self._round():
                return
            fruitless += 1
            if (have := curl.length_of(self.part)) >= best + _PROGRESS_BYTES:
                best, fruitless = have, 0
            if self._alive and fruitless < ATTEMPTS:
                seconds = min(back_off(max(1, fruitless)), self._deadline.left_s())
                self._progress.notice(f"{self._cause}; trying again in {seconds:.0f} s")
                time.sleep(seconds)
        if self._wrong is not None:
            raise self._wrong
        if not self._alive and self._all_absent:
            raise Missing(f"not downloaded: {self._cause}", hint=f"the file was moved or removed there; {_HINT}")
        raise ImageError(f"not downloaded: {self._cause}", hint=_HINT)

    def _round(self) -> bool:
        """Ask each address that is left once; whether one gave the file."""
        for url in tuple(self._alive):
            if self._deadline.expired():
                raise ImageError(f"not downloaded in {self._deadline.budget_s:.0f} s: {self._cause}", hint=_HINT)
            try:
                self._ask(url)
            except (curl.Refused, Untrusted) as exc:
                self._alive.remove(url)
                self._all_absent = self._all_absent and isinstance(exc, curl.Absent)
                self._wrong = exc if isinstance(exc, Untrusted) else self._wrong
                self._cause = f"{curl.host_of(url)}: {exc}"
            except curl.Failed as exc:
                self._cause = f"{curl.host_of(url)}: {exc}"
            else:
                return True
            if self._alive and url != self._alive[-1]:
                self._progress.notice(f"{self._cause}; trying the next address")
        return False

    def _ask(self, url: str) -> None:
        """Bring the rest of the file from one address, or all of it if the rest alone cannot be had, or does not fit what was there."""
        if self._wanted.check is None:
            self._drop()
        goes_on = curl.length_of(self.part) > 0
        try:
            curl.bring(curl.Request(url, self.part, self._wanted.limit_bytes), self._progress, self._deadline)
            if self._wanted.check is not None:
                self._wanted.check(self.part)
        except curl.CannotGoOn:
            self._drop()
        except Untrusted:
            self._drop()
            if not goes_on or self._began_anew:
                raise
            self._began_anew = True
        else:
            return
        if not goes_on:
            raise curl.Failed("it sends a part of the file that was not asked for")
        self._progress.notice(f"{curl.host_of(url)}: what it sends does not fit what has come; beginning anew")
        self._ask(url)

    def _drop(self) -> None:
        with curl.disk(self.part):
            self.part.unlink(missing_ok=True)
