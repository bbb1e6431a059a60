"""Requests over HTTP by the program curl: which options it is given, and what its exit status means.

What is hard about HTTP is curl's: redirections, the proxies that the environment names, certificates, going on after a break, servers
that stall. Every option is one that version 7.88 has (Debian 12). The numbers are from curl(1), "EXIT CODES".
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError
from vmlab.progress import Progress

log = logging.getLogger(__name__)

STALL_LIMIT_S = 20
"""Whole seconds without a byte, or without a connection, after which an attempt is given up."""
RETRIES = 3
"""How often curl itself asks a busy server again (408, 429, 5xx), after 1, 2, 4 s or what the server's Retry-After says."""
TELL_EVERY_S = 5.0
_REDIRECTS = 5

# In our words. What curl prints may quote the server, which may have written anything.
_FAILURES = {
    5: "the proxy's name cannot be looked up",
    6: "its name cannot be looked up",
    7: "no connection could be made",
    8: "it does not speak HTTP as it should",
    16: "the connection was cut",
    18: "the connection ended before everything had come",
    28: "it does not answer any more",
    35: "no secure connection could be made",
    52: "it ended the connection without an answer",
    55: "the connection was cut",
    56: "the connection was cut",
    92: "the connection was cut",
    97: "the proxy makes no connection to it",
}
_REFUSALS = {
    3: "it redirects to a malformed address",
    47: f"it redirects more than {_REDIRECTS} times",
    60: "its certificate is not valid",
    61: "it encodes the file in a way that was not asked for",
    90: "its certificate is not valid",
    91: "its certificate is not valid",
}
_UNSUPPORTED, _HTTP_ERROR, _WRITE_ERROR, _RANGE_ERROR, _BAD_RESUME, _TOO_LONG, _NO_AUTHORITIES = 1, 22, 23, 33, 36, 63, 77
# Failed to initialise (or an unknown option), a feature left out of this curl, out of memory, a wrong parameter, an unknown option.
_CURL_ITSELF = (2, 4, 27, 43, 48)


class Failed(Exception):
    """This attempt came to nothing; the same address may do better later."""


class Refused(Exception):
    """This address need not be asked again."""


class Absent(Refused):
    """It has no such file (404 or 410)."""


class CannotGoOn(Exception):
    """The server does not send the rest of the file alone."""


def host_of(url: str) -> str:
    """The host of an http or https address, "" when it is none."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    return ""


@dataclass(frozen=True)
class Request:
    """What to ask an address for: all that is missing at the end of ``part`` (an absent file: everything)."""

    url: str
    part: Path
    limit_bytes: int
    """How long the file may be at most, all of it."""


def bring(request: Request, progress: Progress, deadline: Deadline) -> None:
    """Ask one address, and append what comes.

    That stays, however this ends; only a file that grew over its limit is removed. Raises Failed, Refused, Absent or
    CannotGoOn, and HostError when curl is missing or the file cannot be written.
    """
    had = length_of(request.part)
    with tempfile.TemporaryFile() as said:
        child = process.spawn(_argv(request), stdout=said, stderr=subprocess.PIPE, env=_environment())
        try:
            # --max-filesize is only heeded before the first byte, if the server says how long the file is (until curl 8.4). The kernel
            # heeds this one at each write: setrlimit(2), RLIMIT_FSIZE.
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (request.limit_bytes, request.limit_bytes))
            complaint = _wait(child, _Heartbeat(request, had, said, progress), deadline)
        finally:
            process.stop(child)
        answer = _tail(said)
    log.debug("curl ended with %d: %s", child.returncode, complaint)
    # The last that curl prints is `--write-out`; a curl that was killed prints none.
    code = re.search(rb"\d{3}$", answer)
    _judge(child.returncode, int(code[0]) if code else 0, request, complaint)


def exists(url: str, deadline: Deadline) -> bool:
    """Whether there is something at an address (http, https, file); one that has not answered when the deadline passes has nothing."""
    argv = [*_COMMON, "--proto", "=http,https,file", "--head", "--output", os.devnull, "--url", url]
    try:
        return process.run(argv, env=_environment(), deadline=deadline, check=False).status == 0
    except process.CommandError:
        return False


# --disable is first, or the user's ~/.curlrc could change what is meant. --globoff: brackets in an address are part of it.
_COMMON = ("curl", "--disable", "--globoff", "--silent", "--show-error", "--fail", "--user-agent", "vmlab",
           "--location", "--max-redirs", str(_REDIRECTS))  # fmt: skip


def _argv(request: Request) -> list[str]:
    """curl's command line.

    A curl that tries again begins where it began before: what had come meanwhile it throws away. It may therefore only do so as long as
    nothing can have come, which ``--retry-max-time`` sees to: an attempt that stalled has taken at least as long. What broke off is gone
    on from by the next curl.
    """
    stall_s = str(STALL_LIMIT_S)
    return [
        *_COMMON,
        "--proto", "=http,https",
        # Who asked over a connection that nobody can listen to must not be sent to one that anybody can.
        "--proto-redir", "=https" if urlsplit(request.url).scheme == "https" else "=http,https",
        "--connect-timeout", stall_s,
        "--speed-limit", "1", "--speed-time", stall_s,
        "--retry", str(RETRIES), "--retry-max-time", stall_s,
        "--max-filesize", str(request.limit_bytes),
        "--continue-at", "-",
        # What has come is in the file at once, should somebody be killed.
        "--no-buffer",
        "--dump-header", "-",
        "--output", str(request.part),
        "--write-out", "%{http_code}",
        "--url", request.url,
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """HTTP_PROXY counts, too. curl reads this one in small letters alone, because a web server sets the other from a request's header."""
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    return {"http_proxy": proxy} if proxy else {}


class _Heartbeat:
    """How far a download is, for the user."""

    def __init__(self, request: Request, had: int, said: IO[bytes], progress: Progress) -> None:
        self._host, self._part = host_of(request.url), request.part
        self._had, self._said, self._progress = had, said, progress
        self._began = time.monotonic()

    def show(self) -> None:
        """Tell how much has come, of how much as far as the server says so, and how fast."""
        have = length_of(self._part)
        # Curl takes nothing but the rest of what was asked for, so the last answer's length comes to what we had.
        lengths = re.findall(rb"(?im)^content-length:[ \t]*(\d{1,18})[ \t]*\r?$", _tail(self._said))
        whole = (self._had + int(lengths[-1])) >> 20 if lengths else "?"
        rate = (have - self._had) / (time.monotonic() - self._began) / (1 << 20)
        self._progress.notice(f"{self._host}: {have >> 20} of {whole} MiB, {rate:.1f} MiB/s")


def _wait(child: subprocess.Popen[bytes], heartbeat: _Heartbeat, deadline: Deadline) -> str:
    """Wait for curl to end, showing how far it is; returns what it complained of. Failed when the deadline passes first."""
    while True:
        try:
            return child.communicate(timeout=min(TELL_EVERY_S, deadline.left_s()))[1].decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            if deadline.expired():
                raise Failed("the time was up before everything had come") from None
            heartbeat.show()


def _judge(status: int, code: int, request: Request, complaint: str) -> None:
    """Return when everything that was asked for has come, else raise what curl's exit ``status`` and the server's ``code`` mean."""
    part, limit_bytes = request.part, request.limit_bytes
    overgrown = status in (_WRITE_ERROR, -signal.SIGXFSZ) and length_of(part) >= limit_bytes
    if status == _TOO_LONG or overgrown or length_of(part) > limit_bytes:
        with disk(part):
            part.unlink(missing_ok=True)
        raise Refused(f"its file has more than {limit_bytes} bytes")
    if status == _WRITE_ERROR:
        raise _cannot_write(part)
    if status in (_RANGE_ERROR, _BAD_RESUME):
        raise CannotGoOn
    if status == _NO_AUTHORITIES:
        raise HostError("the certificates that servers are known by cannot be read", hint="sudo apt-get install ca-certificates")
    if status in _CURL_ITSELF:
        raise HostError(f"curl cannot do its work (exit status {status})", hint="it must be version 7.71 or later", detail=complaint)
    if status == _UNSUPPORTED:
        raise Refused("it redirects to an address that is not safe to follow" if 300 <= code < 400 else "it does not speak HTTP")
    if status == _HTTP_ERROR or (status == 0 and code not in (200, 206, 416)):
        raise _http_error(code)
    if status in _REFUSALS:
        raise Refused(_REFUSALS[status])
    # (416 says that nothing is missing; curl takes that for success, and whether it is true the digest will show.)
    if status != 0:
        raise Failed(_FAILURES.get(status, f"curl ended with exit status {status}"))


def _http_error(code: int) -> Failed | Refused:
    if code in (404, 410):
        return Absent(f"it has no such file (status {code})")
    if code in (408, 429) or code >= 500:
        return Failed(f"it cannot answer now (status {code})")
    return Refused(f"it refuses (status {code})")


def _cannot_write(part: Path) -> HostError:
    """Why a file cannot be written, which curl does not say: found out by trying. What had come is left as it is."""
    try:
        with disk(part):
            have = length_of(part)
            with part.open("ab", buffering=0) as file:
                # More than a block: the last one that the file has may not be full.
                written = file.write(bytes(1 << 20))
            os.truncate(part, have)
            if written < 1 << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except HostError as exc:
        return exc
    return HostError(f"cannot write {part}", hint="run it again: it goes on from what has come")


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """What the disk refuses within is the host's fault: HostError that names ``path``."""
    try:
        yield
    except OSError as exc:
        full = f"free some space on the disk of {path.parent}, then run it again: it goes on from what has come"
        hint = full if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "give a directory you may write to"
        raise HostError(f"cannot write {path}: {exc.strerror}", hint=hint) from exc


def length_of(path: Path) -> int:
    """A file's length in bytes, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(file: IO[bytes]) -> bytes:
    """The end of a file that another process writes to. They share its position, which pread(2) does not move."""
    longest = 1 << 16
    return os.pread(file.fileno(), longest, max(0, os.fstat(file.fileno()).st_size - longest))
