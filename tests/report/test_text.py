"""Text for people."""

from __future__ import annotations

import pytest

from vmlab.report import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1b(Bx\x1bM", "x"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x00\x1b", "\ufffd\ufffd"),
        ("a\u202eb\u2066", "a\ufffdb\ufffd"),
        ("\ud800\ufffe", "\ufffd\ufffd"),
        ("é漢🎈", "é漢🎈"),
    ],
)
def test_plain(raw: str, shown: str) -> None:
    assert text.plain(raw) == shown


def test_plain_takes_no_longer_for_hostile_text() -> None:
    for hostile in ("\x1b[" * 300_000, "\x1b]" * 300_000, "\x1b[" + ";" * 600_000, "\x1b]" + "x" * 600_000):
        assert len(text.plain(hostile)) <= 600_002


def test_clip() -> None:
    assert text.clip("abc", 3) == "abc"
    assert text.clip("abcd" * 1000, 3) == "abc… [3,997 more characters are in report.json]"
    assert text.clip_head("abcd", 2) == "[2 characters before this are in report.json] …cd"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (4000, "4,000"),
        (0.5, "0.5"),
        (12.34567, "12.35"),
        (123456.7, "123,457"),
        (1234.56, "1,235"),
        (9999.7, "10,000"),
        (1e-9, "1e-09"),
        (1e22, "1e+22"),
        (10**400, "a huge number"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert text.number(value) == shown


def test_units() -> None:
    assert [text.seconds(s) for s in (0.0, 0.844, 12.34, 125, 3725)] == ["0.00 s", "0.84 s", "12.3 s", "2 min 05 s", "62 min 05 s"]
    assert [text.size(s) for s in (1, 1023, 1024, 20.5 * 2**20, 2**34, 2**50)] == [
        "1 byte",
        "1,023 bytes",
        "1 KiB",
        "20.5 MiB",
        "16 GiB",
        "1,024 TiB",
    ]
    assert [text.points(p) for p in (2.0, 1.5, 0.1 + 0.2)] == ["2", "1.5", "0.3"]
    assert [text.counted(n, "check") for n in (0, 1, 2)] == ["0 checks", "1 check", "2 checks"]


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("console-vm.log", True),
        ("logs/console-vm.log", True),
        ("../x", False),
        ("a/../x", False),
        ("/x", False),
        ("", False),
        (".hidden", False),
        ("-rf", False),
        ("a b", False),
        ("a\n", False),
        ("javascript:x", False),
        ("a//b", False),
        ("a..b", False),
    ],
)
def test_plain_paths(path: str, plain: bool) -> None:
    assert text.is_plain_path(path) is plain
