"""Downloads from servers that truncate, stall, redirect, refuse, change the file, and from processes that are killed in the middle."""

from __future__ import annotations

import errno
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.deadline import Deadline
from runner.errors import HostError, ImageError, UsageError
from runner.guest import transfer
from tests.conftest import ROOT

CONTENT = bytes(range(256)) * 4096  # 1 MiB
LIMIT = 8 << 20


class Server:
    """Answers each request with the next of ``script`` (the last again and again), and keeps what was asked and how much was sent."""

    def __init__(self) -> None:
        self.script: list[Callable[[Any], None]] = [whole()]
        self.asked: list[tuple[str, str | None]] = []
        self.sent_bytes = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("Range")))
                act = outer.script[min(len(outer.asked), len(outer.script)) - 1]
                act(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

            def give(self, body: bytes) -> None:
                outer.sent_bytes += len(body)
                self.wfile.write(body)

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.httpd.server_port}/file"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()


def whole(
    content: bytes = CONTENT, *, tag: str = '"one"', ranges: bool = True, upto: int | None = None, pause_s: float = 0
) -> Callable[[Any], None]:
    """Send the file, or with ``upto`` only so many bytes of it before the connection is cut."""

    def act(handler: Any) -> None:
        asked, begin = handler.headers.get("Range"), 0
        if ranges and asked and handler.headers.get("If-Range") == tag:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.end_headers()
        body = content[begin : len(content) if upto is None else upto]
        for start in range(0, len(body), 1 << 18):
            handler.give(body[start : start + (1 << 18)])
            handler.wfile.flush()
            time.sleep(pause_s)

    return act


def status(code: int, **headers: str) -> Callable[[Any], None]:
    def act(handler: Any) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def stall(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.give(CONTENT[:1000])
    handler.wfile.flush()
    time.sleep(1.5)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.httpd.shutdown()
    made.httpd.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "image.qcow2"


def get(server: Server, target: Path, *others: str, limit_bytes: int = LIMIT) -> list[str]:
    told: list[str] = []
    addresses = [*others, server.address]
    transfer.fetch(addresses, target, deadline=Deadline(30), tell=told.append, limit_bytes=limit_bytes, pause_s=lambda _: 0.01)
    return told


def test_a_file_comes_whole_and_nothing_else_is_left(server: Server, target: Path) -> None:
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_truncated_download_goes_on_where_it_broke_off(server: Server, target: Path) -> None:
    server.script = [whole(upto=700_000), whole()]
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=700000-"]
    assert server.sent_bytes == len(CONTENT)
    assert any("broke off" in line for line in told)


def test_a_server_without_ranges_sends_it_all_again(server: Server, target: Path) -> None:
    server.script = [whole(upto=700_000), whole(ranges=False)]
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_file_that_was_replaced_meanwhile_is_never_mixed_with_the_old_one(server: Server, target: Path) -> None:
    other = bytes(reversed(CONTENT))
    server.script = [whole(upto=700_000), whole(other, tag='"two"')]
    get(server, target)
    assert target.read_bytes() == other


def test_a_rest_that_is_longer_than_the_file_is_thrown_away(server: Server, target: Path) -> None:
    server.script = [whole(upto=700_000), status(416), whole()]
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_stalls_is_left_and_one_that_is_slow_is_not(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STALL_LIMIT_S", 0.4)
    server.script = [stall, whole(pause_s=0.2)]
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert any("sent nothing" in line for line in told)


@pytest.mark.parametrize("code", [301, 302, 307])
def test_redirects_are_followed(server: Server, target: Path, code: int) -> None:
    server.script = [status(code, Location="/elsewhere"), whole()]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked[1][0] == "/elsewhere"


@pytest.mark.parametrize("location", ["/file", "file:///etc/passwd", "ftp://127.0.0.1/file"])
def test_redirects_that_lead_nowhere_or_out_of_http_are_refused(server: Server, target: Path, location: str) -> None:
    server.script = [status(302, Location=location)]
    with pytest.raises(ImageError):
        get(server, target)
    assert not target.exists()


def test_the_next_address_helps_where_the_first_has_nothing(server: Server, target: Path) -> None:
    server.script = [status(404), whole()]
    get(server, target, server.address + "/none")
    assert target.read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/file/none", "/file"]


def test_a_file_that_nobody_has_is_not_asked_for_twice(server: Server, target: Path) -> None:
    server.script = [status(404)]
    with pytest.raises(transfer.Missing, match="404"):
        get(server, target)
    assert len(server.asked) == 1


def test_a_server_that_is_broken_for_the_moment_is_asked_again(server: Server, target: Path) -> None:
    server.script = [status(500), status(503), whole()]
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert len(told) == 2
    server.script = [status(500)]
    server.asked.clear()
    with pytest.raises(ImageError, match="500"):
        get(server, target)
    assert len(server.asked) == transfer.ATTEMPTS


def test_a_server_that_is_not_there_is_named(server: Server, target: Path) -> None:
    server.httpd.server_close()
    with pytest.raises(ImageError, match=r"127\.0\.0\.1 cannot be reached"):
        get(server, target)


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_long_is_refused(server: Server, target: Path, announced: bool) -> None:
    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.give(CONTENT)

    server.script = [whole() if announced else endless]
    with pytest.raises(ImageError, match="bytes"):
        get(server, target, limit_bytes=1000)
    assert not target.exists()


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/file", "file:///etc/passwd", "http:///x", "nonsense"])
def test_only_http_is_spoken(target: Path, address: str) -> None:
    with pytest.raises(UsageError):
        transfer.fetch([address], target, deadline=Deadline(5), tell=print, limit_bytes=LIMIT)


def test_a_full_disk_is_said_and_the_download_goes_on_later(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [whole(upto=500_000)] * transfer.ATTEMPTS
    with pytest.raises(ImageError):
        get(server, target)
    real = Path.open

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda path, mode="r", *a, **k: Full() if mode == "ab" else real(path, mode, *a, **k))
    server.script = [whole()]
    with pytest.raises(HostError, match="full"):
        get(server, target)
    monkeypatch.undo()
    server.asked.clear()
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked[0][1] == "bytes=500000-"


def test_a_process_that_is_killed_leaves_what_the_next_goes_on_from(server: Server, target: Path) -> None:
    server.script = [whole(pause_s=0.3), whole()]
    program = (
        "import sys; from pathlib import Path; from runner.deadline import Deadline; from runner.guest import transfer\n"
        "transfer.fetch([sys.argv[1]], Path(sys.argv[2]), deadline=Deadline(60), tell=print, limit_bytes=1 << 30)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, server.address, str(target)], cwd=ROOT)
    part = target.with_name(target.name + ".part")
    end = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < end:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    assert not target.exists()
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT)
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1][1] == f"bytes={kept}-"


def test_small_files_come_by_the_same_rules(server: Server) -> None:
    server.script = [status(500), whole(upto=5), whole()]
    got = transfer.fetch_small([server.address], deadline=Deadline(30), tell=lambda _: None, pause_s=lambda _: 0.01, limit_bytes=LIMIT)
    assert got == CONTENT


def test_what_is_forgotten_is_fetched_anew(server: Server, target: Path) -> None:
    get(server, target)
    transfer.forget(target)
    assert list(target.parent.iterdir()) == []
