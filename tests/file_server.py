"""Servers of one file that break off, stall, lie, move or are not there, on the loopback address; and what asks them.

A test module imports the fixtures that it uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vmlab.deadline import Deadline
from vmlab.image import curl, download
from vmlab.image.download import Wanted
from vmlab.image.signature import check_file
from vmlab.progress import Progress, notices

OLD = os.urandom(3_000_000)
NEW = os.urandom(3_000_000)

Handler = http.server.BaseHTTPRequestHandler
Behaviour = Callable[[Handler], None]


class Server:
    """Answers the requests one by one by its script; the last behaviour repeats. ``sent`` counts the body bytes of each answer."""

    def __init__(self) -> None:
        self.script: list[Behaviour] = []
        self.asked: list[dict[str, str]] = []
        self.sent: list[int] = []
        server = self

        class Answers(Handler):
            def do_GET(self) -> None:  # noqa: N802  (http.server's name)
                number = len(server.asked)
                server.asked.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
                server.sent.append(0)
                with contextlib.suppress(OSError):
                    server.script[min(number, len(server.script) - 1)](self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/disk.img"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def gives(
        self,
        body: bytes = OLD,
        *,
        stop: int | None = None,
        ranges: bool = True,
        etag: str = '"old"',
        date: str = "",
        announce: int | None = None,
        pace_s: float = 0,
        stall_s: float = 0,
        span: str = "",
    ) -> Behaviour:
        """A body, of which only ``stop`` bytes are sent before the connection ends (after ``stall_s`` of silence)."""

        def behave(handler: Handler) -> None:
            first, asked = 0, handler.headers.get("Range", "")
            if asked and ranges:
                first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                status(416)(handler)
                return
            handler.send_response(206 if first else 200)
            if first:
                handler.send_header("Content-Range", span or f"bytes {first}-{len(body) - 1}/{len(body)}")
            for name, value in (("ETag", etag), ("Last-Modified", date)):
                if value:
                    handler.send_header(name, value)
            if announce != -1:
                handler.send_header("Content-Length", str((announce or len(body)) - first))
            handler.end_headers()
            rest, mine = body[first:stop], len(self.sent) - 1
            step = max(1, len(rest) // 8) if pace_s else 1 << 16
            for begin in range(0, len(rest), step):
                handler.wfile.write(rest[begin : begin + step])
                self.sent[mine] += len(rest[begin : begin + step])
                time.sleep(pace_s)
            time.sleep(stall_s)

        return behave


def status(code: int, **headers: str) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no waiting between rounds; curl's own pauses are a second long."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(download, "back_off", lambda _: 0.01)
    monkeypatch.setattr(curl, "RETRIES", 1)


@pytest.fixture
def start() -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def make() -> Server:
        servers.append(Server())
        return servers[-1]

    yield make
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def server(start: Callable[[], Server]) -> Server:
    return start()


def wanted(*urls: str, body: bytes = OLD, limit_bytes: int = 1 << 24) -> Wanted:
    digest = hashlib.sha256(body).hexdigest()
    return Wanted(urls, limit_bytes, lambda path: check_file(path, digest, "sha256"))


def fetch(
    target: Path, *urls: str, body: bytes = OLD, told: list[str] | None = None, seconds: float = 60, limit_bytes: int = 1 << 24
) -> bytes:
    progress = Progress(notices((told if told is not None else []).append))
    download.fetch(wanted(*urls, body=body, limit_bytes=limit_bytes), target, progress, Deadline(seconds))
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name], "the part is gone"
    return target.read_bytes()


def fetch_small(url: str, seconds: float = 60) -> bytes:
    return download.fetch_small(url, Progress(notices(print)), Deadline(seconds))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def part(target: Path) -> Path:
    return target.with_name("disk.img.part")
