"""Downloads from servers that break off, stall, lie, move or are not there. The servers are real and run on the loopback address."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.server
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import ROOT
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError
from vmlab.image import curl, download
from vmlab.image.download import Missing, Wanted
from vmlab.image.signature import Untrusted, check_file

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
    tell = (told if told is not None else []).append
    download.fetch(wanted(*urls, body=body, limit_bytes=limit_bytes), target, tell, Deadline(seconds))
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name], "the part is gone"
    return target.read_bytes()


def fetch_small(url: str, seconds: float = 60) -> bytes:
    return download.fetch_small(url, print, Deadline(seconds))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def part(target: Path) -> Path:
    return target.with_name("disk.img.part")


def test_a_whole_file_comes_at_once(server: Server, target: Path) -> None:
    server.script = [server.gives()]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert len(server.asked) == 1
    assert "range" not in server.asked[0]
    assert told == []


def test_after_a_break_only_the_rest_is_sent(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives()]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert server.asked[1]["range"] == "bytes=1000000-"
    assert server.sent == [1_000_000, 2_000_000]
    assert len(told) == 1
    assert "ended before everything had come; trying again" in told[0]


@pytest.mark.parametrize("marks", [{"etag": "", "date": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"etag": 'W/"x"'}, {"etag": ""}])
def test_whatever_mark_a_server_gives_the_rest_is_enough_as_the_digest_judges(server: Server, target: Path, marks: dict[str, Any]) -> None:
    server.script = [server.gives(stop=1_000_000, **marks), server.gives(**marks)]
    assert fetch(target, server.url) == OLD
    assert server.sent == [1_000_000, 2_000_000]


def test_a_server_that_ignores_ranges_starts_over(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives(ranges=False)]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert ["range" in asked for asked in server.asked] == [False, True, False]
    assert "beginning anew" in told[-1]


def test_a_file_that_changed_is_never_mixed(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives(NEW, etag='"new"')]
    told: list[str] = []
    assert fetch(target, server.url, body=NEW, told=told) == NEW
    assert "range" in server.asked[1]
    assert "beginning anew" in told[-1]


@pytest.mark.parametrize("span", ["", "bytes 5-2999999/3000000", "bytes 1000000-3999999/4000000", "nonsense"])
def test_a_part_of_another_file_is_refused_although_the_server_sends_it(server: Server, target: Path, span: str) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives(NEW, span=span), server.gives(NEW, etag='"new"')]
    assert fetch(target, server.url, body=NEW) == NEW
    assert "range" in server.asked[1]
    assert "range" not in server.asked[2]


def test_what_turns_out_mixed_is_begun_anew_once_and_no_more(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), server.gives(NEW), server.gives(stop=2_000_000), server.gives(NEW)]
    with pytest.raises(Untrusted):
        fetch(target, server.url)
    assert len(server.asked) == 4
    assert list(target.parent.iterdir()) == []


def test_a_range_that_cannot_be_starts_over(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), status(416), server.gives(NEW)]
    assert fetch(target, server.url, body=NEW) == NEW
    assert "range" not in server.asked[2]


def test_a_part_that_was_not_asked_for_is_not_taken(server: Server, target: Path) -> None:
    def half(handler: Handler) -> None:
        handler.headers["Range"] = "bytes=1000000-"
        server.gives()(handler)

    server.script = [half]
    with pytest.raises(ImageError):
        fetch(target, server.url)
    assert not target.exists()


def test_what_came_from_one_address_does_no_harm_at_another_that_has_another_file(start: Callable[[], Server], target: Path) -> None:
    one, other = start(), start()
    one.script, other.script = [one.gives(stop=500_000), status(404)], [other.gives(NEW, etag='"old"')]
    assert fetch(target, one.url, other.url, body=NEW) == NEW
    assert ["range" in asked for asked in other.asked] == [True, False]


def test_what_came_from_one_address_is_gone_on_from_at_another_that_has_the_same(start: Callable[[], Server], target: Path) -> None:
    one, other = start(), start()
    one.script, other.script = [one.gives(stop=500_000), status(404)], [other.gives(etag='"another"')]
    assert fetch(target, one.url, other.url) == OLD
    assert other.sent == [2_500_000]


def test_a_stall_ends_the_attempt_but_not_the_download(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl, "STALL_LIMIT_S", 1)
    server.script = [server.gives(stop=1_000_000, stall_s=30), server.gives()]
    began = time.monotonic()
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    # curl's notion of the speed is that of the last five seconds.
    assert time.monotonic() - began < 12
    assert server.sent == [1_000_000, 2_000_000], "curl's own retry would have thrown the first million away"
    assert "it does not answer any more" in told[-1]


def test_a_server_that_says_nothing_at_all_is_given_up(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl, "STALL_LIMIT_S", 1)
    server.script = [lambda _: time.sleep(20), server.gives()]
    assert fetch(target, server.url) == OLD


def test_slow_but_moving_is_no_stall(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl, "STALL_LIMIT_S", 1)
    monkeypatch.setattr(curl, "TELL_EVERY_S", 0.5)
    server.script = [server.gives(pace_s=0.25)]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert len(server.asked) == 1
    assert 1 <= len(told) <= 5
    assert "of 2 MiB" in told[0]


def test_how_far_it_is_counts_what_had_come_before(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl, "TELL_EVERY_S", 0.3)
    part(target).write_bytes(OLD[:2_500_000])
    server.script = [server.gives(pace_s=0.1), server.gives(announce=-1, pace_s=0.1)]
    told: list[str] = []
    assert fetch(target, server.url, told=told) == OLD
    assert "127.0.0.1: 2 of 2 MiB" in told[0]
    target.unlink()
    told.clear()
    assert fetch(target, server.url, told=told) == OLD
    assert "of ? MiB" in told[0]


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


@pytest.mark.parametrize("retries", [0, 3])
def test_the_deadline_holds_while_backing_off(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, retries: int) -> None:
    monkeypatch.setattr(curl, "RETRIES", retries)
    monkeypatch.setattr(download, "back_off", lambda _: 60)
    server.script = [status(503)]
    began = time.monotonic()
    with pytest.raises(ImageError, match="the time was up" if retries else "503"):
        fetch(target, server.url, seconds=0.5)
    assert 0.4 < time.monotonic() - began < 2


def test_a_redirect_is_followed_with_its_range(server: Server, target: Path) -> None:
    server.script = [status(302, Location="/a b"), server.gives(stop=1_000_000), status(307, Location="/2"), server.gives()]
    assert fetch(target, server.url) == OLD
    assert [asked["path"] for asked in server.asked] == ["/disk.img", "/a%20b", "/disk.img", "/2"]
    assert server.asked[3]["range"] == "bytes=1000000-"


@pytest.mark.parametrize("where", ["/again", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad", "gopher://127.0.0.1/x"])
def test_a_redirect_that_leads_nowhere_good(server: Server, target: Path, where: str) -> None:
    server.script = [status(302, Location=where)]
    with pytest.raises(ImageError, match=r"it redirects") as caught:
        fetch(target, server.url)
    assert not isinstance(caught.value, Missing)
    assert len(server.asked) == (6 if where == "/again" else 1)


def test_an_answer_that_is_neither_a_file_nor_an_error(server: Server, target: Path) -> None:
    server.script = [status(302)]
    with pytest.raises(ImageError, match=r"it refuses .status 302"):
        fetch(target, server.url)
    server.script = [lambda handler: print(handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n" * 9))]
    with pytest.raises(ImageError, match="it does not speak HTTP"):
        fetch(target, server.url)
    server.script = [lambda handler: None]
    with pytest.raises(ImageError, match="without an answer"):
        fetch(target, server.url)


@pytest.fixture
def secure(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server speaks TLS, with the certificate in this file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.url = server.url.replace("http://127.0.0.1", "https://localhost")
    return file


def test_a_certificate_that_nobody_vouches_for(server: Server, secure: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [server.gives()]
    with pytest.raises(ImageError, match="localhost: its certificate is not valid"):
        fetch(target, server.url)
    assert server.asked == []
    monkeypatch.setenv("CURL_CA_BUNDLE", str(secure))
    assert fetch(target, server.url) == OLD  # the control: it is the certificate alone
    with pytest.raises(ImageError, match="its certificate is not valid"):
        fetch(target.with_name("x"), server.url.replace("localhost", "127.0.0.1"))
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nonexistent")
    with pytest.raises(HostError) as caught:
        fetch(target, server.url)
    assert "ca-certificates" in caught.value.hint


def test_no_redirect_from_https_to_http(
    start: Callable[[], Server], server: Server, secure: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", str(secure))
    plain = start()
    server.script, plain.script = [status(302, Location=plain.url)], [plain.gives()]
    with pytest.raises(ImageError, match="not safe to follow"):
        fetch(target, server.url)
    assert plain.asked == []
    plain.script = [status(302, Location=server.url)]
    server.script = [server.gives()]
    assert fetch(target, plain.url) == OLD


@pytest.mark.parametrize("code", [404, 410, 403])
def test_the_next_address_is_asked_at_once(start: Callable[[], Server], target: Path, code: int) -> None:
    one, other = start(), start()
    one.script, other.script = [status(code)], [other.gives()]
    began = time.monotonic()
    assert fetch(target, one.url, other.url) == OLD
    assert time.monotonic() - began < 1
    assert len(one.asked) == 1


def test_missing_everywhere(start: Callable[[], Server], target: Path) -> None:
    one, other = start(), start()
    one.script, other.script = [status(404)], [status(410)]
    with pytest.raises(Missing, match=r"127\.0\.0\.1") as caught:
        fetch(target, one.url, other.url)
    assert "vmlab image import" in caught.value.hint
    assert (len(one.asked), len(other.asked)) == (1, 1)
    other.script = [status(403)]
    with pytest.raises(ImageError) as forbidden:
        fetch(target, one.url, other.url)
    assert not isinstance(forbidden.value, Missing), "403 does not say that there is no file"


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_a_server_that_is_busy_is_asked_again(server: Server, target: Path, code: int) -> None:
    server.script = [status(code), server.gives()]
    assert fetch(target, server.url) == OLD
    assert len(server.asked) == 2


def test_a_server_that_is_busy_in_the_middle_costs_nothing_that_has_come(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000), status(503), server.gives()]
    assert fetch(target, server.url) == OLD
    assert server.sent == [1_000_000, 0, 2_000_000]


def test_a_server_that_is_always_broken(server: Server, target: Path) -> None:
    server.script = [status(500)]
    told: list[str] = []
    with pytest.raises(ImageError, match=r"127\.0\.0\.1.*500") as caught:
        fetch(target, server.url, told=told)
    assert len(server.asked) == download.ATTEMPTS * (1 + curl.RETRIES)
    assert len(told) == download.ATTEMPTS - 1
    assert "again" in told[0]
    assert "vmlab image import" in caught.value.hint


def test_a_line_that_keeps_breaking_will_do_as_long_as_it_brings_something(server: Server, target: Path) -> None:
    body = os.urandom(9 << 20)
    server.script = [server.gives(body, stop=(n << 20) + n) for n in range(1, 9)] + [server.gives(body)]
    assert len(server.script) > download.ATTEMPTS + 1
    assert fetch(target, server.url, body=body) == body
    assert sum(server.sent) == len(body)


def test_nobody_listens(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ImageError, match="no connection could be made"):
        fetch(target, f"http://127.0.0.1:{port}/x")


def test_a_name_that_does_not_exist(target: Path) -> None:
    with pytest.raises(ImageError, match=r"images\.invalid: its name cannot be looked up"):
        fetch(target, "http://images.invalid/x")


@pytest.mark.parametrize("announce", [None, -1])
@pytest.mark.parametrize("had", [0, 900_000])
def test_longer_than_allowed(server: Server, target: Path, announce: int | None, had: int) -> None:
    part(target).write_bytes(OLD[:had])
    server.script = [server.gives(announce=announce)]
    with pytest.raises(ImageError, match="more than 1000000 bytes"):
        fetch(target, server.url, limit_bytes=1_000_000)
    assert len(server.asked) == 1
    assert not target.exists()
    assert not part(target).exists()


def test_a_server_that_sends_without_end_fills_no_disk(server: Server, target: Path) -> None:
    longest = [0]

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 20))
            longest[0] = max(longest[0], curl.length_of(part(target)))

    server.script = [endless]
    with pytest.raises(ImageError, match="more than 8388608 bytes"):
        fetch(target, server.url, limit_bytes=8 << 20)
    assert 1 << 20 < longest[0] <= 8 << 20
    assert list(target.parent.iterdir()) == []


def test_exactly_as_long_as_allowed(server: Server, target: Path) -> None:
    server.script = [server.gives(announce=-1)]
    assert fetch(target, server.url, limit_bytes=len(OLD)) == OLD


@pytest.mark.parametrize("announce", [2_000_000, -1])
def test_another_length_than_the_files(server: Server, target: Path, announce: int) -> None:
    server.script = [server.gives(announce=announce, stop=2_000_000)]
    with pytest.raises(Untrusted, match="is not what its publisher has"):
        fetch(target, server.url)
    assert list(target.parent.iterdir()) == []


def test_a_body_shorter_than_announced_and_never_more(server: Server, target: Path) -> None:
    server.script = [server.gives(OLD + NEW, stop=len(OLD))]
    with pytest.raises(ImageError, match="ended before everything had come"):
        fetch(target, server.url, body=OLD + NEW)
    assert part(target).read_bytes() == OLD, "which is kept"


def test_what_follows_the_announced_body_is_not_taken(server: Server, target: Path) -> None:
    server.script = [server.gives(OLD + b"more", announce=len(OLD))]
    assert fetch(target, server.url) == OLD


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><title>Log in</title>", b"\xef\xbb\xbf\n <html>", b'<?xml version="1.0"?>'], ids=["html5", "marked", "xhtml"]
)
def test_a_web_page_instead_of_an_image(server: Server, target: Path, page: bytes) -> None:
    server.script = [server.gives(page)]
    with pytest.raises(Untrusted, match="is not what its publisher has") as caught:
        fetch(target, server.url)
    assert "log in" in caught.value.hint
    assert list(target.parent.iterdir()) == []


def test_of_two_addresses_one_has_another_file(start: Callable[[], Server], target: Path) -> None:
    one, other = start(), start()
    one.script, other.script = [one.gives(NEW)], [other.gives()]
    told: list[str] = []
    assert fetch(target, one.url, other.url, told=told) == OLD
    assert "is not what its publisher has" in told[0]
    other.script = [status(404)]
    target.unlink()
    with pytest.raises(Untrusted):
        fetch(target, one.url, other.url)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "/etc/passwd", "http://", "http://[x", "", "-o/etc/x"])
def test_only_http(target: Path, url: str) -> None:
    with pytest.raises(UsageError):
        fetch(target, "http://127.0.0.1:9/x", url)
    with pytest.raises(UsageError):
        fetch_small(url)


def test_a_device_that_is_full(server: Server, target: Path) -> None:
    """/dev/full gives the error of a full disk at each write, to anybody; see full(4)."""
    part(target).symlink_to("/dev/full")
    server.script = [server.gives()]
    with pytest.raises(HostError, match="No space left") as caught:
        fetch(target, server.url)
    assert "free some space" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    server.script = [server.gives()]
    try:
        with pytest.raises(HostError, match="No space left"):
            fetch(small / "disk.img", server.url)
        have = part(small / "disk.img").read_bytes()
        assert 0 < len(have) <= 1 << 20
        assert OLD.startswith(have)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert fetch(small / "disk.img", server.url) == OLD
        assert server.asked[1]["range"] == f"bytes={len(have)}-"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_directory_that_is_not_there(server: Server, target: Path) -> None:
    server.script = [server.gives()]
    with pytest.raises(HostError, match=r"cannot write .*No such file or directory") as caught:
        fetch(target.parent / "none" / "disk.img", server.url)
    assert "may write to" in caught.value.hint


def test_killed_half_way(server: Server, target: Path) -> None:
    server.script = [server.gives(stop=1_000_000, stall_s=5), server.gives()]
    program = (
        "import sys; from pathlib import Path; from vmlab.deadline import Deadline; from vmlab.image.download import fetch, Wanted\n"
        "fetch(Wanted([sys.argv[1]], 1 << 24), Path(sys.argv[2]), print, Deadline(60))"
    )
    child = subprocess.Popen([sys.executable, "-c", program, server.url, str(target)], cwd=ROOT)
    limit = Deadline(20)
    while curl.length_of(part(target)) != 1_000_000:
        assert child.poll() is None
        assert not limit.expired()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target.exists()
    assert fetch(target, server.url) == OLD
    assert server.sent == [1_000_000, 2_000_000]


def test_curl_ends_with_the_runner(server: Server, target: Path) -> None:
    """Or the next download and a forgotten curl would write the same file."""
    server.script = [server.gives(pace_s=0.2)]
    program = (
        "import sys; from pathlib import Path; from vmlab.deadline import Deadline; from vmlab.image.download import fetch, Wanted\n"
        "fetch(Wanted([sys.argv[1]], 1 << 24), Path(sys.argv[2]), print, Deadline(60))"
    )
    child = subprocess.Popen([sys.executable, "-c", program, server.url, str(target)], cwd=ROOT)
    limit = Deadline(20)
    while not curl.length_of(part(target)):
        assert not limit.expired()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.1)
    have = curl.length_of(part(target))
    time.sleep(0.8)
    assert curl.length_of(part(target)) == have < len(OLD)


@pytest.mark.parametrize("had", [b"", NEW[:1000], NEW, NEW + OLD, OLD + b"x"], ids=["empty", "short", "another", "long", "one-more"])
def test_a_part_that_makes_no_sense_starts_over(server: Server, target: Path, had: bytes) -> None:
    part(target).write_bytes(had)
    server.script = [server.gives()]
    assert fetch(target, server.url) == OLD
    assert "range" not in server.asked[-1]


def test_killed_before_the_rename(server: Server, target: Path) -> None:
    part(target).write_bytes(OLD)
    assert fetch(target, server.url) == OLD
    assert server.asked == []


def test_a_small_file(server: Server) -> None:
    server.script = [status(503), server.gives(b"0123  disk.img\n", stop=4), server.gives(b"0123  disk.img\n")]
    assert fetch_small(server.url) == b"0123  disk.img\n"
    assert not any("range" in asked for asked in server.asked), "nothing would show that two halves do not belong together"
    server.script = [server.gives()]
    with pytest.raises(ImageError, match="more than 1048576 bytes"):
        fetch_small(server.url)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_is_used_when_the_environment_names_one(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, server.url)
    server.script = [server.gives()]
    assert fetch(target, "http://images.invalid/disk.img") == OLD
    assert server.asked[0]["host"] == "images.invalid"
    target.unlink()
    monkeypatch.setenv("no_proxy", "images.invalid")
    with pytest.raises(ImageError, match="cannot be looked up"):
        fetch(target, "http://images.invalid/disk.img")


def test_what_the_user_tells_curl_in_general_does_not_count_here(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = target.parent / "home"
    home.mkdir()
    (home / ".curlrc").write_text('proxy = "http://127.0.0.1:9"\nrange = "0-4"\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CURL_HOME", str(home))
    (target.parent / "images").mkdir()
    server.script = [server.gives()]
    assert fetch(target.parent / "images" / "disk.img", server.url) == OLD


def test_brackets_in_an_address_are_part_of_it(server: Server, target: Path) -> None:
    server.script = [server.gives()]
    assert fetch(target, f"{server.url}/[1-3]{{a,b}}") == OLD
    assert len(server.asked) == 1


def test_without_curl(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmlab.process.which", lambda name: None if name == "curl" else f"/usr/bin/{name}")
    with pytest.raises(HostError, match="curl is not installed") as caught:
        fetch(target, "http://127.0.0.1:9/x")
    assert caught.value.hint == "sudo apt-get install curl"


def test_a_curl_that_does_not_know_its_options(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl, "_COMMON", (*curl._COMMON, "--no-such-option"))
    with pytest.raises(HostError, match="curl cannot do its work") as caught:
        fetch(target, "http://127.0.0.1:9/x")
    assert "no-such-option" in caught.value.detail


def test_whether_something_is_there(server: Server, tmp_path: Path) -> None:
    def head(self: Handler) -> None:
        server.script[0](self)

    server.http.RequestHandlerClass.do_HEAD = head  # type: ignore[attr-defined]
    server.script = [status(200)]
    assert curl.exists(server.url, Deadline(10))
    server.script = [status(404)]
    assert not curl.exists(server.url, Deadline(10))
    assert curl.exists(f"file://{__file__}", Deadline(10))
    server.script = [lambda _: time.sleep(20)]
    began = time.monotonic()
    assert not curl.exists(server.url, Deadline(0.5))
    assert time.monotonic() - began < 2


def test_back_off_grows_and_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= download.back_off(1) <= 2
    assert 30 <= download.back_off(9) <= 60
    assert len({download.back_off(5) for _ in range(9)}) > 1
