"""Fetching files over HTTP: gone on from where an earlier attempt broke off, retried when that can help, from several addresses.

What a file is worth is not decided here: whoever fetches one compares its digest, and calls `forget` when it is wrong.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from pathlib import Path
from typing import IO, Any

from runner.deadline import Deadline
from runner.errors import HostError, ImageError, UsageError

Tell = Callable[[str], None]

# A server that says nothing for so long is taken for dead; the next attempt goes on from what there is.
STALL_LIMIT_S = 20.0
# How often the whole list of addresses is gone through.
ATTEMPTS = 5
_TELL_EVERY_S = 5.0
_BLOCK_BYTES = 1 << 20
_IMPORT_HINT = "check the network; a file that was fetched elsewhere is taken with `vmlab image import FILE NAME`"
# Worth another try (RFC 9110, section 15): the server is slow, busy or broken for the moment.
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class Missing(ImageError):
    """No address has the file."""


class _Failed(Exception):
    """One attempt came to nothing. ``again`` is whether the same address may do better later."""

    def __init__(self, why: str, *, again: bool = True, missing: bool = False) -> None:
        super().__init__(why)
        self.again, self.missing = again, missing


def back_off(attempt: int) -> float:
    """Seconds to wait after the attempt of this number (from 0): 1, 2, 4 ... and some chance, lest all of a class come back at once."""
    return float(2**attempt * random.uniform(0.75, 1.25))  # noqa: S311  (no secret)


def fetch(
    addresses: Sequence[str],
    target: Path,
    *,
    deadline: Deadline,
    tell: Tell,
    limit_bytes: int,
    pause_s: Callable[[int], float] = back_off,
) -> None:
    """Bring a file to ``target`` from the first address that gives it whole.

    What an interrupted attempt left (``target.part``) is gone on from, if the server still has the same file. Raises Missing when no
    address has it, ImageError when it cannot be had, HostError when the disk is full, UsageError for an address that is not HTTP.
    """
    part = _Part(target)

    def attempt(address: str) -> None:
        part.fetch(address, deadline, tell, limit_bytes)

    try:
        _try_all(addresses, attempt, deadline, tell, pause_s)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError(
                f"the disk became full while {target.name} was fetched",
                hint=f"free some space in {target.parent}, or choose another place: VMLAB_CACHE=/some/where; the download goes on then",
            ) from exc
        raise HostError(f"cannot write {part.path}: {exc.strerror}", hint="choose another place: VMLAB_CACHE=/some/where") from exc
    part.finish()


def fetch_small(
    addresses: Sequence[str], *, deadline: Deadline, tell: Tell, limit_bytes: int = 1 << 20, pause_s: Callable[[int], float] = back_off
) -> bytes:
    """A small file's content, by the same rules as `fetch`."""
    content = bytearray()

    def attempt(address: str) -> None:
        content.clear()
        with _opened(address, {}, deadline) as answer:
            for block in _blocks(answer, deadline, limit_bytes):
                content.extend(block)

    _try_all(addresses, attempt, deadline, tell, pause_s)
    return bytes(content)


def forget(target: Path) -> None:
    """Remove a fetched file and whatever was left of fetching it."""
    part = _Part(target)
    for path in (target, part.path, part.note):
        path.unlink(missing_ok=True)


def _try_all(
    addresses: Sequence[str], attempt: Callable[[str], None], deadline: Deadline, tell: Tell, pause_s: Callable[[int], float]
) -> None:
    """Try each address in turn, several times over, until one attempt returns."""
    for address in addresses:
        _check(address)
    hopeful, last = list(addresses), _Failed("there is no address")
    for number in range(ATTEMPTS):
        for address in list(hopeful):
            if deadline.expired():
                break
            try:
                attempt(address)
            except _Failed as exc:
                last = exc
                if not exc.again:
                    hopeful.remove(address)
            else:
                return
        if not hopeful or deadline.expired():
            break
        if number < ATTEMPTS - 1:
            wait_s = min(pause_s(number), deadline.left_s())
            tell(f"{last}; trying again in {wait_s:.0f} s")
            time.sleep(wait_s)
    if last.missing:
        raise Missing(str(last), hint="the publisher may have moved it: correct the catalogue, or use a newer vmlab")
    raise ImageError(f"{last}{', and the time for it is over' if deadline.expired() else ''}", hint=_IMPORT_HINT)


class _Part:
    """A file that is being fetched, and a note of which version of it that is."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def fetch(self, address: str, deadline: Deadline, tell: Tell, limit_bytes: int) -> None:
        """One attempt; what arrives is kept, whatever becomes of it."""
        have, version = self._kept()
        asked = {"Range": f"bytes={have}-", "If-Range": version} if have and version else {}
        with _opened(address, asked, deadline) as answer:
            # A server that does not know Range, or has another version by now (RFC 9110, section 13.1.5), sends the whole file.
            resumed = answer.status == http.client.PARTIAL_CONTENT and _first_byte(answer.headers) == have
            if answer.status == http.client.PARTIAL_CONTENT and not resumed:
                self.path.unlink(missing_ok=True)
                raise _Failed(f"{_host(address)} sent another part than was asked for")
            begin = have if resumed else 0
            if not resumed:
                self.path.unlink(missing_ok=True)
                self._remember(answer.headers)
            rest = answer.headers.get("Content-Length")
            total = begin + int(rest) if rest and rest.isdigit() else None
            if total is not None and total > limit_bytes:
                raise _Failed(f"{_host(address)} sends {total} bytes where {limit_bytes} are the most", again=False)
            progress = _Progress(self.target.name, begin, total, tell)
            with self.path.open("ab") as file:
                for block in _blocks(answer, deadline, limit_bytes - begin):
                    file.write(block)
                    progress.more(len(block))

    def finish(self) -> None:
        """Give the whole file its name."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self.note.unlink(missing_ok=True)

    def _kept(self) -> tuple[int, str]:
        """How many bytes an earlier attempt left, and of which version of the file; (0, "") when they are of no use."""
        try:
            return self.path.stat().st_size, str(json.loads(self.note.read_text())["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, ""

    def _remember(self, headers: Message) -> None:
        # Only a strong validator makes sure that the rest is the rest of the same file.
        tag = headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
        self.note.write_text(json.dumps({"version": version}))


class _Progress:
    """Says now and then how far a download is."""

    def __init__(self, name: str, begin: int, total: int | None, tell: Tell) -> None:
        self._name, self._begin, self._done, self._total, self._tell = name, begin, begin, total, tell
        self._started = self._said = time.monotonic()
        if begin:
            tell(f"going on with {name} after {begin >> 20} MiB")

    def more(self, size: int) -> None:
        """So many bytes have arrived."""
        self._done += size
        now = time.monotonic()
        if now - self._said >= _TELL_EVERY_S:
            self._said = now
            rate = (self._done - self._begin) / (now - self._started) / (1 << 20)
            of = f" of {self._total >> 20}" if self._total else ""
            self._tell(f"fetching {self._name}: {self._done >> 20}{of} MiB, {rate:.1f} MiB/s")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, to HTTP addresses only and never from a protected connection to an open one."""

    max_redirections = 5

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
            raise _Failed(f"{old.hostname} redirects to {new.scheme}://{new.hostname}, which is not as safe", again=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _opened(address: str, headers: dict[str, str], deadline: Deadline) -> Any:
    """The server's answer; what goes wrong inside the block too becomes a _Failed."""
    request = urllib.request.Request(address, headers={"User-Agent": "vmlab", "Accept-Encoding": "identity", **headers})  # noqa: S310  (checked)
    opener = urllib.request.build_opener(_SafeRedirects)
    host = _host(address)
    try:
        with opener.open(request, timeout=max(0.1, min(STALL_LIMIT_S, deadline.left_s()))) as answer:
            yield answer
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and headers:
                # What we have is longer than the file, so it is another one: the next attempt starts over.
                raise _Failed(f"{host} has no such part of the file") from exc
            missing = exc.code in (http.client.NOT_FOUND, http.client.GONE)
            words = f"{host} answers {exc.code} ({exc.reason}) for {urllib.parse.urlsplit(address).path}"
            raise _Failed(words, again=exc.code in _TRANSIENT, missing=missing) from exc
    except TimeoutError as exc:
        raise _Failed(f"{host} sent nothing for {STALL_LIMIT_S:.0f} s") from exc
    except urllib.error.URLError as exc:
        raise _Failed(f"{host} cannot be reached: {exc.reason}") from exc
    except (http.client.HTTPException, ConnectionError) as exc:
        raise _Failed(f"{host} broke off: {type(exc).__name__}") from exc


def _blocks(answer: Any, deadline: Deadline, limit_bytes: int) -> Any:
    """The body piece by piece; a body that is shorter than announced, or longer than allowed, is a _Failed."""
    length, size = answer.headers.get("Content-Length"), 0
    # read1 returns what has arrived: read would wait for a whole block, and a slow server would seem a dead one.
    while block := answer.read1(_BLOCK_BYTES):
        size += len(block)
        if size > limit_bytes:
            raise _Failed(f"the server sends more than {limit_bytes} bytes", again=False)
        yield block
        if deadline.expired():
            raise _Failed("the download takes too long")
    if length and length.isdigit() and size < int(length):
        raise _Failed(f"the server broke off after {size} of {length} bytes")


def _first_byte(headers: Message) -> int:
    """Where a part begins by its Content-Range (``bytes 100-199/200``); -1 when it does not say."""
    unit, _, span = headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _check(address: str) -> None:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"cannot fetch {address}", hint="expected an address that begins with https:// or http://")


def _host(address: str) -> str:
    return urllib.parse.urlsplit(address).hostname or address
