"""Downloads from servers that break off, stall, lie, move or are not there. The servers are real and run on the loopback address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.file_server import NEW, OLD, Handler, Server, fetch, fetch_small, impatient, part, server, start, status, target
from vmlab.deadline import Deadline
from vmlab.errors import ImageError
from vmlab.image import curl, download
from vmlab.image.download import Missing
from vmlab.image.signature import Untrusted

__all__ = ["impatient", "server", "start", "target"]  # fixtures


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


def test_back_off_grows_and_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= download.back_off(1) <= 2
    assert 30 <= download.back_off(9) <= 60
    assert len({download.back_off(5) for _ in range(9)}) > 1
