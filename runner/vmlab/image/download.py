"""Bringing files over a network that cannot be relied on: several addresses, resumed after every interruption, whole or absent.

    <target>             there by one rename, when every byte has come
    <target>.part        what has come so far; kept after a failure, because the next attempt goes on from it
    <target>.part.json   from which address, how long, and by what mark (ETag or date) to see that the file is still the same

Whether the bytes are the right ones is for the caller to find out, by a digest; `forget` removes what was wrong. The caller also sees
to it that only one process brings a target at a time.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import queue
import random
import re
import socket
import ssl
import string
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError

Tell = Callable[[str], None]

STALL_LIMIT_S = 20.0
TELL_EVERY_S = 5.0
# Rounds over the addresses that bring nothing new. A round that brings a MiB does not count: a line that breaks every minute will do.
ATTEMPTS = 5
_PROGRESS_BYTES, _CHUNK_BYTES, _REDIRECTS = 1 << 20, 1 << 16, 5
_HINT = "check the network (and http_proxy, https_proxy), then run it again; or `vmlab image import` a file downloaded elsewhere"
# In this order: the first that fits is said. What a server wrote is never shown, because it may hold anything.
_WORDS: dict[type[Exception], str] = {
    socket.gaierror: "its name cannot be looked up",
    ConnectionRefusedError: "the connection was refused",
    ConnectionError: "the connection was cut",
    TimeoutError: "it does not answer any more",
    http.client.IncompleteRead: "the connection ended before everything had come",
    ssl.SSLError: "no secure connection could be made",
    OSError: "the connection failed",
    http.client.HTTPException: "it does not speak HTTP as it should",
    ValueError: "it gave a malformed address or answer",
}


class Missing(ImageError):
    """Every address answers that it has no such file (404 or 410): trying again will not help."""


class _Failed(Exception):  # This attempt came to nothing; the same address may do better later.
    pass


class _Refused(Exception):  # This address need not be asked again.
    absent = False


class _Absent(_Refused):
    absent = True


def back_off(attempt: int) -> float:
    """Seconds to wait after the fruitless round number ``attempt`` (from 1): doubling up to a minute, and not the same for two hosts."""
    return min(60.0, 2.0**attempt) * random.SystemRandom().uniform(0.5, 1.0)


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    deadline: Deadline,
    tell: Tell,
    limit_bytes: int,
    expect_bytes: int | None = None,
    pause_s: Callable[[int], float] = back_off,
) -> None:
    """Bring a file from the first address that gives it whole to ``target``, going on from what an interrupted attempt left.

    A file longer than ``limit_bytes``, or of another length than ``expect_bytes``, is not taken. ``pause_s`` gives the seconds to wait
    after each fruitless round. Raises UsageError for an address that is not http(s), `Missing` when no address has the file, ImageError
    when none gives it before the deadline, HostError when it cannot be written (what has come is kept).
    """
    for url in urls or [""]:
        if not _host(url):
            raise UsageError(f"not an http or https address: {url!r}", hint="give an address such as https://example.org/disk.qcow2")
    part = _Part(target, tell, limit_bytes, expect_bytes)
    alive, absent, fruitless, best, cause = list(dict.fromkeys(urls)), True, 0, part.have, "nobody was asked"
    while alive and fruitless < ATTEMPTS:
        # What has come is only of use at the address that it came from.
        alive.sort(key=lambda url: url != part.source)
        for url in tuple(alive):
            if deadline.expired():
                raise ImageError(f"not downloaded in {deadline.budget_s:.0f} s: {cause}", hint=_HINT)
            try:
                part.take(url, deadline)
                return part.finish()
            except _Refused as exc:
                alive.remove(url)
                absent, cause = absent and exc.absent, f"{_host(url)}: {exc}"
            except _Failed as exc:
                cause = f"{_host(url)}: {exc}"
                if part.have >= best + _PROGRESS_BYTES:
                    best, fruitless = part.have, -1
                    break
            if alive and url != alive[-1]:
                tell(f"{cause}; trying the next address")
        fruitless += 1
        if alive and fruitless < ATTEMPTS:
            seconds = min(pause_s(max(1, fruitless)), deadline.left_s())
            tell(f"{cause}; trying again in {seconds:.0f} s")
            time.sleep(seconds)
    if not alive and absent:
        raise Missing(f"not downloaded: {cause}", hint=f"the file was moved or removed there; {_HINT}")
    raise ImageError(f"not downloaded: {cause}", hint=_HINT)


def fetch_small(
    urls: Sequence[str], *, deadline: Deadline, tell: Tell, limit_bytes: int = 1 << 20, pause_s: Callable[[int], float] = back_off
) -> bytes:
    """The content of a small file (digests, a signature), by the rules and with the errors of `fetch`; nothing of it is kept."""
    with tempfile.TemporaryDirectory(prefix="vmlab-") as directory:
        target = Path(directory) / "small"
        fetch(urls, target, deadline=deadline, tell=tell, limit_bytes=limit_bytes, pause_s=pause_s)
        return target.read_bytes()


def forget(target: Path) -> None:
    """Remove a file that turned out wrong and everything that an attempt to bring it left; HostError when that is not allowed."""
    with _disk(target):
        for path in (target.with_suffix(target.suffix + ".part.json"), target.with_suffix(target.suffix + ".part"), target):
            path.unlink(missing_ok=True)


class _Part:
    """What has come of a file, which outlives the process that began it."""

    def __init__(self, target: Path, tell: Tell, limit_bytes: int, expect_bytes: int | None) -> None:
        self._target, self._tell, self._limit, self._expect = target, tell, limit_bytes, expect_bytes
        self._path, self._note = target.with_suffix(target.suffix + ".part"), target.with_suffix(target.suffix + ".part.json")
        self.source, self._mark, self.have = "", "", 0
        self._total: int | None = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note, have = json.loads(self._note.read_text()), self._path.stat().st_size
            total = None if note["total"] is None else int(note["total"])
            if total is None or have <= total:
                self.source, self._mark, self._total, self.have = str(note["url"]), str(note["mark"]), total, have

    def take(self, url: str, deadline: Deadline) -> None:
        """Ask one address once, and keep what it gives."""
        # The same mark on two servers need not mean the same file.
        resume = bool(self.have and self._mark and url == self.source)
        if resume and self.have == self._total == (self._expect or self._total):
            return None  # Killed between the last byte and the rename.
        headers = {"Range": f"bytes={self.have}-", "If-Range": self._mark} if resume else {}
        items: queue.Queue[Any] = queue.Queue(16)
        left = threading.Event()
        threading.Thread(target=_pump, args=(url, headers, items, left), daemon=True).start()
        try:
            # A host may have several addresses, and each may be one that does not answer.
            status, length, mark, span = _next(items, 3 * STALL_LIMIT_S, deadline)
            if resume and (status == 416 or (status == 206 and not self._goes_on(mark, span))):
                self._drop()
                return self.take(url, deadline)
            if status in (404, 410):
                raise _Absent(f"it has no such file (status {status})")
            if status in (408, 429) or status >= 500:
                raise _Failed(f"it cannot answer now (status {status})")
            if status != 200 and not (resume and status == 206):
                raise _Refused(f"it refuses (status {status})")
            total = length if status == 200 else self._total
            if total is not None and (total > self._limit or total != (self._expect or total)):
                raise _Refused(f"its file has {total} bytes, expected {self._expect or f'at most {self._limit}'}")
            if status == 200:
                self._begin(url, mark, total)
            return self._receive(items, url, deadline)
        finally:
            left.set()

    def _goes_on(self, mark: str, span: str) -> bool:
        """Whether a partial answer begins where we end, and belongs to the same file."""
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", span)
        if not match or int(match[1]) != self.have or (mark and mark != self._mark):
            return False
        return match[2] == "*" or self._total in (None, int(match[2]))

    def _receive(self, items: queue.Queue[Any], url: str, deadline: Deadline) -> None:
        whole = self._total if self._total is not None else self._expect
        began, told, before = time.monotonic(), time.monotonic(), self.have
        while data := _next(items, STALL_LIMIT_S, deadline):
            if self.have + len(data) > min(self._limit, self._limit if whole is None else whole):
                self._drop()
                raise _Refused("it sends more than it announced or may send")
            with _disk(self._path), self._path.open("ab", buffering=0) as file:
                while data:
                    written = _write(file, data)
                    self.have, data = self.have + written, data[written:]
            if (now := time.monotonic()) - told >= TELL_EVERY_S:
                told, rate = now, (self.have - before) / (now - began) / (1 << 20)
                self._tell(f"{_host(url)}: {self.have >> 20} of {'?' if whole is None else whole >> 20} MiB, {rate:.1f} MiB/s")
        if whole is not None and self.have < whole:
            raise _Failed(f"the connection ended after {self.have} of {whole} bytes")

    def _begin(self, url: str, mark: str, total: int | None) -> None:
        """Start over. The old note goes before the old bytes, so that no note ever stands beside another file's bytes."""
        self._drop()
        self.source, self._mark, self._total = url, mark, total
        with _disk(self._path):
            self._path.write_bytes(b"")
            new = self._note.with_suffix(".new")
            new.write_text(json.dumps({"url": url, "mark": mark, "total": total}))
            new.replace(self._note)

    def _drop(self) -> None:
        self.source, self._mark, self._total, self.have = "", "", None, 0
        with _disk(self._path):
            self._note.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the whole file its name, once its bytes are on the disk."""
        with _disk(self._target):
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
            self._path.replace(self._target)
            self._note.unlink(missing_ok=True)


def _write(file: Any, data: bytes) -> int:
    return int(file.write(data))


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        full = f"free some space on the disk of {path.parent}, then run it again: it goes on from what has come"
        hint = full if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "give a directory you may write to"
        raise HostError(f"cannot write {path}: {exc.strerror}", hint=hint) from exc


def _next(items: queue.Queue[Any], limit_s: float, deadline: Deadline) -> Any:
    """The next thing that came, or the reason in plain words why none will."""
    try:
        item = items.get(timeout=min(limit_s, deadline.left_s()))
    except queue.Empty:
        item = TimeoutError()
    if deadline.expired():
        raise _Failed("the time was up before everything had come")
    if not isinstance(item, Exception):
        return item
    if isinstance(item, urllib.error.URLError) and isinstance(item.reason, Exception):
        item = item.reason
    if isinstance(item, ssl.SSLCertVerificationError):
        raise _Refused(f"its certificate is not valid ({item.verify_message})") from item
    for kind, words in _WORDS.items():
        if isinstance(item, kind):
            raise _Failed(words) from item
    raise item


def _pump(url: str, headers: dict[str, str], items: queue.Queue[Any], left: threading.Event) -> None:
    """Fill the queue: status, length, mark and range of the answer, then its body, then b"" or an error.

    It has a thread of its own because a look-up of names, and a server that sends its headers letter by letter, keep no deadline: whoever
    waits for the queue can leave at any time, and this thread ends when it notices.
    """

    def put(item: Any) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=0.2)
                return

    try:
        with _open(url, headers) as response:
            # A weak ETag promises no equal bytes (RFC 9110, section 13.1.5). A body ends where its Content-Length says, so what a server
            # sends after it is never read.
            etag, date, remaining = response.getheader("ETag", ""), response.getheader("Last-Modified", ""), response.length
            mark = date if etag.startswith("W/") else etag or date
            mark = mark if mark.isascii() and mark.isprintable() else ""
            put((response.status, remaining, mark, response.getheader("Content-Range", "")))
            while not left.is_set() and (data := response.read1(_CHUNK_BYTES if remaining is None else min(_CHUNK_BYTES, remaining))):
                remaining = None if remaining is None else remaining - len(data)
                put(data)
            put(b"")
    except Exception as exc:  # noqa: BLE001  (the thread that waits raises it again when it is none that it expects)
        put(exc)


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """The answer at the end of the redirections, whatever its status."""
    # No handlers for files, FTP or errors: other schemes are not wanted, and every status is judged by us.
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.UnknownHandler):
        opener.add_handler(handler())
    for _ in range(_REDIRECTS + 1):
        request = urllib.request.Request(url, headers={"User-Agent": "vmlab", **headers})  # noqa: S310  (_host has looked at it)
        response: http.client.HTTPResponse = opener.open(request, timeout=STALL_LIMIT_S)
        where = response.getheader("Location")
        if response.status not in (301, 302, 303, 307, 308) or not where:
            return response
        response.close()
        old, url = url, quote(urljoin(url, where), safe=string.punctuation)
        if not _host(url) or (old.startswith("https:") and not url.startswith("https:")):
            raise _Refused("it redirects to an address that is not safe to follow")
    raise _Refused(f"it redirects more than {_REDIRECTS} times")


def _host(url: str) -> str:
    """The host of an http or https address, "" when it is none."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    return ""
