"""What curl is told and what its answers are taken for: redirections, certificates, proxies, limits, disks. The servers are real."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.file_server import OLD, Handler, Server, fetch, fetch_small, impatient, part, server, start, status, target
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError
from vmlab.image import curl, download
from vmlab.image.download import Missing

__all__ = ["impatient", "server", "start", "target"]  # fixtures


def test_slow_but_moving_is_no_stall(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl, "STALL_LIMIT_S", 3)
    monkeypatch.setattr(curl, "TELL_EVERY_S", 0.9)
    server.script = [server.gives(pace_s=0.5)]
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


def test_nobody_listens(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ImageError, match="no connection could be made"):
        fetch(target, f"http://127.0.0.1:{port}/x")


def test_a_name_that_does_not_exist(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
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


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_is_used_when_the_environment_names_one(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, server.url)
    server.script = [server.gives()]
    assert fetch(target, "http://images.invalid/disk.img") == OLD
    assert server.asked[0]["host"] == "images.invalid"
    target.unlink()
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(target, server.url) == OLD


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
