"""Downloads from servers that break off, stall, lie, move or are not there. The servers are real and run on the loopback address."""

from __future__ import annotations

import contextlib
import errno
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError
from vmlab.image import download
from vmlab.image.download import Missing

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
            if asked and ranges and handler.headers.get("If-Range") in (etag or date, None):
                first = int(asked.removeprefix("bytes=").removesuffix("-"))
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


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Server]]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
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


def fetch(target: Path, *urls: str, told: list[str] | None = None, seconds: float = 30, **options: Any) -> bytes:
    options = {"limit_bytes": 1 << 24, "pause_s": lambda _: 0.01, **options}
    download.fetch(urls, target, deadline=Deadline(seconds), tell=(told if told is not None else []).append, **options)
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name], "the part and its note are gone"
    return target.read_bytes()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def part(target: Path) -> Path:
    return target.with_name("disk.img.part")


def test_a_whole_file_comes_at_once(server: Server, target: Path) -> None:
    server.script = [server.gives()]
    told: list[str] = []
    assert fetch(target, server.url, told=told, expect_bytes=len(OLD)) == OLD
    assert len(server.asked) == 1
    assert told == []


def test_after_a_break_only_the_rest_is_sent(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives()]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert server.asked[1]["range"] == "bytes=1000000-"
    assert server.sent == [1_000_000, 2_000_000]
    assert len(told) == 1
    assert "1000000 of 3000000" in told[0]


def test_a_date_does_where_the_etag_is_weak(server: Server, target: Path) -> None:
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.script = [server.gives(stop=1_000_000, etag="", date=date), server.gives(etag="", date=date)]
    assert fetch(target, server.url) == OLD
    assert server.asked[1]["if-range"] == date
    weak = server.gives(stop=1_000_000, etag='W/"x"')
    server.script = [weak, weak, weak, server.gives(etag='W/"x"')]
    assert fetch(target, server.url) == OLD
    assert "range" not in server.asked[-1], "a weak ETag is no reason to mix"


def test_a_server_that_ignores_ranges_starts_over(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives(ranges=False)]
    assert fetch(target, server.url) == OLD
    assert "range" in server.asked[1]
    assert server.sent == [1_000_000, 3_000_000]


def test_a_file_that_changed_is_never_mixed(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives(NEW, etag='"new"')]
    assert fetch(target, server.url) == NEW


@pytest.mark.parametrize("span", ["", "bytes 5-2999999/3000000", "bytes 1000000-3999999/4000000", "nonsense"])
def test_a_part_of_another_file_is_refused_although_the_server_sends_it(server: Server, target: Path, span: str) -> None:
    def disobedient(handler: Handler) -> None:
        del handler.headers["If-Range"]
        server.gives(NEW, etag='"old"' if span else '"new"', span=span)(handler)

    server.script = [server.gives(stop=1_000_000), disobedient, server.gives(NEW, etag='"new"')]
    assert fetch(target, server.url) == NEW
    assert "range" in server.asked[1]
    assert "range" not in server.asked[2]


def test_a_range_that_cannot_be_starts_over(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), status(416), server.gives(NEW)]
    assert fetch(target, server.url) == NEW
    assert "range" not in server.asked[2]


def test_what_came_from_one_address_is_not_gone_on_from_at_another(start: Callable[[], Server], target: Path) -> None:
    one, other = start(), start()
    one.script, other.script = [one.gives(stop=500_000), status(404)], [other.gives(NEW, etag='"old"')]
    assert fetch(target, one.url, other.url) == NEW
    assert "range" not in other.asked[0]


def test_a_stall_ends_the_attempt_but_not_the_download(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_LIMIT_S", 0.3)
    server.script = [server.gives(stop=1_000_000, stall_s=5), server.gives()]
    began = time.monotonic()
    assert fetch(target, server.url) == OLD
    assert time.monotonic() - began < 2
    assert server.sent == [1_000_000, 2_000_000]


def test_slow_but_moving_is_no_stall(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_LIMIT_S", 0.4)
    monkeypatch.setattr(download, "TELL_EVERY_S", 0.25)
    server.script = [server.gives(pace_s=0.1)]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert len(server.asked) == 1
    assert 1 <= len(told) <= 4
    assert "of 2 MiB" in told[0]


def test_headers_letter_by_letter_keep_the_deadline(server: Server, target: Path) -> None:
    def dribble(handler: Handler) -> None:
        for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            handler.wfile.write(bytes([letter]))
            time.sleep(0.02)

    server.script = [dribble]
    began = time.monotonic()
    with pytest.raises(ImageError, match="not downloaded"):
        fetch(target, server.url, seconds=0.5)
    assert time.monotonic() - began < 2


def test_the_deadline_holds_while_backing_off(server: Server, target: Path) -> None:
    server.script = [status(503)]
    began = time.monotonic()
    with pytest.raises(ImageError, match="503"):
        fetch(target, server.url, seconds=0.3, pause_s=lambda _: 60)
    assert 0.25 < time.monotonic() - began < 2


def test_a_redirect_is_followed_with_its_range(server: Server, target: Path) -> None:
    server.script = [status(302, Location="/a b"), server.gives(stop=1_000_000), status(307, Location="/2"), server.gives()]
    assert fetch(target, server.url) == OLD
    assert [asked["path"] for asked in server.asked] == ["/disk.img", "/a%20b", "/disk.img", "/2"]
    assert server.asked[3]["range"] == "bytes=1000000-"


@pytest.mark.parametrize("where", ["/again", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad"])
def test_a_redirect_that_leads_nowhere_good(server: Server, target: Path, where: str) -> None:
    server.script = [status(302, Location=where)]
    with pytest.raises(ImageError, match=r"redirect|malformed") as caught:
        fetch(target, server.url)
    assert not isinstance(caught.value, Missing)
    if where == "/again":
        assert len(server.asked) == 6


def test_no_redirect_from_https_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    class Response:
        status = 302

        def getheader(self, _name: str) -> str:
            return "http://example.org/x"

        def close(self) -> None:
            pass

    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_, **__: Response())
    with pytest.raises(download._Refused, match="safe"):
        download._open("https://example.org/x", {})


@pytest.mark.parametrize("code", [404, 410, 403])
def test_the_next_address_is_asked_at_once(start: Callable[[], Server], target: Path, code: int) -> None:
    one, other = start(), start()
    one.script, other.script = [status(code)], [other.gives()]
    assert fetch(target, one.url, other.url, pause_s=lambda _: 1000) == OLD
    assert len(one.asked) == 1


def test_missing_everywhere(start: Callable[[], Server], target: Path) -> None:
    one, other = start(), start()
    one.script, other.script = [status(404)], [status(410)]
    with pytest.raises(Missing, match=r"127\.0\.0\.1") as caught:
        fetch(target, one.url, other.url, pause_s=lambda _: 1000)
    assert "vmlab image import" in caught.value.hint
    assert (len(one.asked), len(other.asked)) == (1, 1)
    other.script = [status(403)]
    with pytest.raises(ImageError) as forbidden:
        fetch(target, one.url, other.url)
    assert not isinstance(forbidden.value, Missing), "403 does not say that there is no file"


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_a_server_that_is_busy_is_asked_again(server: Server, target: Path, code: int) -> None:
    server.script = [status(code), server.gives()]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert len(told) == 1
    assert "again" in told[0]


def test_a_server_that_is_always_broken(server: Server, target: Path) -> None:
    server.script = [status(500)]
    told: list[str] = []
    with pytest.raises(ImageError, match=r"127\.0\.0\.1.*500") as caught:
        fetch(target, server.url, told=told)
    assert len(server.asked) == download.ATTEMPTS
    assert len(told) == download.ATTEMPTS - 1
    assert "vmlab image import" in caught.value.hint


def test_a_line_that_keeps_breaking_will_do_as_long_as_it_brings_something(server: Server, target: Path) -> None:
    body = os.urandom(9 << 20)
    server.script = [server.gives(body, stop=(n << 20) + n) for n in range(1, 9)] + [server.gives(body)]
    assert len(server.script) > download.ATTEMPTS + 1
    assert fetch(target, server.url) == body
    assert sum(server.sent) == len(body)


def test_nobody_listens(target: Path, start: Callable[[], Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ImageError, match="the connection was refused"):
        fetch(target, f"http://127.0.0.1:{port}/x")


@pytest.mark.parametrize("announce", [None, -1])
def test_longer_than_allowed(server: Server, target: Path, announce: int | None) -> None:
    server.script = [server.gives(announce=announce)]
    with pytest.raises(ImageError, match=r"at most 1000000|sends more"):
        fetch(target, server.url, limit_bytes=1_000_000)
    assert len(server.asked) == 1
    assert not target.exists()
    assert not part(target).exists()


def test_another_length_than_expected(start: Callable[[], Server], target: Path) -> None:
    server = start()
    server.script = [server.gives()]
    with pytest.raises(ImageError, match="has 3000000 bytes, expected 7"):
        fetch(target, server.url, expect_bytes=7)
    # Another server: the first may still be sending what nobody reads any more.
    server = start()
    server.script = [server.gives(announce=-1, stop=1_000_000), server.gives(announce=-1)]
    assert fetch(target, server.url, expect_bytes=len(OLD)) == OLD
    assert server.sent == [1_000_000, 2_000_000], "without Content-Length, the expected length shows that the body was cut"
    with pytest.raises(ImageError, match="sends more"):
        fetch(target, server.url, expect_bytes=len(OLD) - 1)


def test_what_follows_the_announced_body_is_not_taken(server: Server, target: Path) -> None:
    server.script = [server.gives(OLD + b"more", announce=len(OLD))]
    assert fetch(target, server.url) == OLD


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "/etc/passwd", "http://", "http://[x", ""])
def test_only_http(target: Path, url: str) -> None:
    with pytest.raises(UsageError):
        fetch(target, "http://127.0.0.1:9/x", url)
    with pytest.raises(UsageError):
        download.fetch_small([url], deadline=Deadline(5), tell=print)


def test_a_full_disk_keeps_what_has_come(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, data: bytes) -> int:
        if file.tell() >= 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(file.write(data[: 1_000_000 - file.tell()]))

    server.script = [server.gives()]
    with monkeypatch.context() as patch:
        patch.setattr(download, "_write", full)
        with pytest.raises(HostError, match="No space left") as caught:
            fetch(target, server.url)
    assert "free some space" in caught.value.hint
    assert part(target).read_bytes() == OLD[:1_000_000]
    assert fetch(target, server.url) == OLD
    assert server.asked[1]["range"] == "bytes=1000000-"


def test_killed_half_way(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000, stall_s=5), server.gives()]
    program = (
        "import sys; from pathlib import Path; from vmlab.deadline import Deadline; from vmlab.image.download import fetch\n"
        "fetch([sys.argv[1]], Path(sys.argv[2]), deadline=Deadline(60), tell=print, limit_bytes=1 << 24)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, server.url, str(target)], cwd=ROOT)
    limit = Deadline(20)
    while not (part(target).exists() and part(target).stat().st_size == 1_000_000):
        assert child.poll() is None
        assert not limit.expired()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target.exists()
    assert fetch(target, server.url) == OLD
    assert server.sent == [1_000_000, 2_000_000]


@pytest.mark.parametrize("note", ["", "[]", '{"url": 1}', '{"url": "URL", "mark": "\\"old\\"", "total": 5}', '{"total": "x"}'])
def test_a_note_that_makes_no_sense_starts_over(server: Server, target: Path, note: str) -> None:
    part(target).write_bytes(NEW[:1000])
    part(target).with_name("disk.img.part.json").write_text(note.replace("URL", server.url))
    server.script = [server.gives()]
    assert fetch(target, server.url) == OLD
    assert "range" not in server.asked[0]


def test_killed_before_the_rename(server: Server, target: Path) -> None:
    part(target).write_bytes(OLD)
    note = '{"url": "URL", "mark": "\\"old\\"", "total": 3000000}'
    part(target).with_name("disk.img.part.json").write_text(note.replace("URL", server.url))
    assert fetch(target, server.url) == OLD
    assert server.asked == []


def test_forget_leaves_nothing(target: Path) -> None:
    for name in ("disk.img", "disk.img.part", "disk.img.part.json"):
        target.with_name(name).write_text("x")
    download.forget(target)
    assert list(target.parent.iterdir()) == []
    download.forget(target)


def test_a_small_file(server: Server) -> None:
    server.script = [status(503), server.gives(b"0123  disk.img\n", stop=4), server.gives(b"0123  disk.img\n")]
    assert download.fetch_small([server.url], deadline=Deadline(9), tell=print, pause_s=lambda _: 0.01) == b"0123  disk.img\n"
    server.script = [server.gives()]
    with pytest.raises(ImageError, match="at most 1048576"):
        download.fetch_small([server.url], deadline=Deadline(9), tell=print)


def test_a_proxy_is_used_when_the_environment_names_one(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.script = [server.gives()]
    assert fetch(target, "http://images.invalid/disk.img") == OLD
    assert server.asked[0]["host"] == "images.invalid"


def test_back_off_grows_and_differs() -> None:
    assert 1 <= download.back_off(1) <= 2
    assert 30 <= download.back_off(9) <= 60
    assert len({download.back_off(5) for _ in range(9)}) > 1
