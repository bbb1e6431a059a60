"""Files that people write, and files that people write to do harm: one clear error each, soon, and never a traceback."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest

from vmlab.errors import UsageError
from vmlab.lab.answers import read_answers
from vmlab.lab.collection import Collection, read_lab
from vmlab.lab.definition import LabDefinition, Question
from vmlab.lab.skeleton import create
from vmlab.yamlfile import load, validate


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return create("sample", tmp_path)


def refusal(path: Path) -> UsageError:
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        validate(path, LabDefinition)
    assert time.monotonic() - began < 5
    assert "\n" not in caught.value.message
    assert path.name in caught.value.message
    assert len(caught.value.message) < 1000
    return caught.value


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "title: is missing|expected a mapping"),
        (b"- a\n- b\n", "expected a mapping, found a list"),
        (b"just text", "expected a mapping, found the text"),
        (b"a: 1\nb: [1, 2\nc: 3\n", r":3:\d+: this is not YAML"),
        (b"a: 1\n\tb: 2\n", r":2:\d+: this is not YAML"),
        (b"a: b: c\n", r":1:\d+: this is not YAML"),
        (b"title: x\nsummary: y\ntitle: z\n", r":3: title: this key stands here twice \(first in line 1\)"),
        (b"guests:\n  main: {cpus: 1,\n    cpus: 2}\n", r":3: guests\.main\.cpus: this key stands here twice \(first in line 2\)"),
        (b"title: caf\xe9\n", r":1: this is not UTF-8 text \(byte 0xe9\)"),
        (b"title: a\nsummary: \x00\n", "this is not YAML"),
        (b"\xff\xfe\x00\x01" * 100, ":1: this is not UTF-8"),
        (b"title: !!python/object/apply:os.system ['touch pwned']\n", ":1: title: the tag .* is not accepted"),
        (b"title: !!python/name:os.system\n", "is not accepted"),
        (b"!!python/object:os.stat_result {}\n", "is not accepted"),
        (b"title: !!binary aGVsbG8=\n", "is not accepted"),
        (b"title: !!timestamp 2020-01-01\n", "is not accepted"),
        (b"title: !!int abc\n", "not a number"),
        (b"title: &a x\nsummary: *a\n", "aliases"),
        (b"claims: &a {says: *a}\n", "aliases"),
        (b"base: &b {cpus: 1}\nguests: {main: {<<: *b}}\n", "aliases"),
        (b"title: *nobody\n", r":1: aliases \(\*nobody\)"),
        (b"? [a, b]\n: 1\n", "a key must be text"),
        (b"--- \na: 1\n---\nb: 2\n", "this is not YAML"),
        (b"time_limit_s: " + b"9" * 5000, "not a number that can be used"),
        (b"time_limit_s: 1e999", "not a number that can be used"),
        (b"[" * 100_000, "nested too deeply|not YAML"),
        (b"{a: " * 50_000, "nested too deeply|not YAML"),
        (b"a:\n" + b"".join(b" " * i + b"- \n" for i in range(1, 900)), "nested too deeply|not YAML|is missing"),
        (b"a" * (2 << 20), "larger than"),
        (b"\n".join(b"k%d: 1" % i for i in range(3_000)), "unknown key"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_one_clear_error(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(content)
    error = refusal(path)
    assert re.search(says, error.message + "\n" + error.detail), error.message
    assert not (tmp_path / "pwned").exists()


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    path.write_text("\n".join(rows))
    assert "aliases" in refusal(path).message


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.yaml").message
    (tmp_path / "folder.yaml").mkdir()
    assert "is not a file" in refusal(tmp_path / "folder.yaml").message
    os.mkfifo(tmp_path / "fifo.yaml")
    assert "is not a file" in refusal(tmp_path / "fifo.yaml").message
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert refusal(tmp_path / "loop.yaml").message
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert "is not a file" in refusal(tmp_path / "zero.yaml").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(lab: Path) -> None:
    (lab / "lab.yaml").chmod(0)
    assert "Permission denied" in refusal(lab / "lab.yaml").message


MISTAKES = [
    ("    memory_mib: 1024\n", "    memory_mib: lots\n", r":\d+: guests\.main\.memory_mib: expected a whole number, found the text 'lots'"),
    ("    memory_mib: 1024\n", '    memory_mib: "512"\n', r"expected a whole number, found the text '512'"),
    ("    memory_mib: 1024\n", "    memory_mib: 512.5\n", r"expected a whole number, found the number 512\.5"),
    ("    memory_mib: 1024\n", "    memory_mib: true\n", r"expected a whole number, found true"),
    ("    memory_mib: 1024\n", "    memory_mib: 5\n", r"expected at least 128, found the number 5"),
    ("    memory_mib: 1024\n", "    memroy_mib: 512\n", r"guests\.main\.memroy_mib: unknown key; did you mean 'memory_mib'\?"),
    ("    memory_mib: 1024\n", "    init: upstart\n", r"guests\.main\.init: expected 'systemd' or 'sysv', found the text 'upstart'"),
    ("    memory_mib: 1024\n", "    internet: yes\n", r"expected true or false, found the text 'yes'"),
    ("    cpus: 1\n", "    cpus: 2\n    virtualisation: svm\n", r"guests\.main: a guest that runs guests must have cpus: 1"),
    ("    memory_mib: 1024\n", "    images: gcc\n", r"guests\.main\.images: expected a list, found the text 'gcc'"),
    ("    memory_mib: 1024\n", "    images: [gcc, 3]\n", r"guests\.main\.images\[1\]: expected text, found the number 3"),
    ("  main:\n", "  Main Guest:\n", r"guests\.Main Guest: expected text of the form"),
    ("    default: 64\n", "    default: much\n", r"parameters\.size_mib: the default must be of the type integer"),
    ("    default: 64\n", "    default: 7\n", r"parameters\.size_mib: the default must be at least 8"),
    (
        "    default: 64\n",
        "    default: null\n",
        r"parameters\.size_mib\.default: expected a whole number, a number, text or true or false, found nothing",
    ),
    ("    default: 64\n", "", r"parameters\.size_mib\.default: is missing"),
    ("    prediction: 50\n", "    prediction: half\n", r"questions\[0\]: the prediction of a number question must be a number"),
    ("    kind: number\n", "    kind: choice\n", r"must be one of its choices"),
    ("    kind: number\n", "    kind: numbre\n", r"questions\[0\]\.kind: expected 'number', 'choice' or 'text', found the text 'numbre'"),
    ("    kind: line\n", "    kind: pie\n", r"plots\[0\]\.kind: expected 'line', 'points', 'bars' or 'gantt'"),
    ("    kind: line\n", "    kind: gantt\n", r"plots\[0\]: each series of a gantt names the member that is a bar's end"),
    ("title:", "tilte:", r"title: is missing"),
    ("title:", "tilte:", r":2: tilte: unknown key; did you mean 'title'\?"),
]


@pytest.mark.parametrize(("right", "wrong", "says"), MISTAKES)
def test_a_mistake_is_answered_with_its_line_and_what_was_expected(lab: Path, right: str, wrong: str, says: str) -> None:
    path = lab / "lab.yaml"
    text = path.read_text()
    assert text.count(right) >= 1
    path.write_text(text.replace(right, wrong, 1))
    error = refusal(path)
    found = re.search(says, error.message + "\n" + error.detail)
    assert found, error.message
    named = re.search(r"lab\.yaml:(\d+):", found.string[: found.end()].splitlines()[-1])
    key = wrong.strip().split(":")[0]
    if key and named and not re.search("missing|its choices|number question|the default must|of a gantt|runs guests", says):
        assert key in path.read_text().splitlines()[int(named[1]) - 1]


def test_all_mistakes_are_listed_in_the_order_of_the_file(lab: Path) -> None:
    path = lab / "lab.yaml"
    path.write_text(
        path.read_text().replace("cpus: 1", "cpus: one").replace("memory_mib: 1024", "memory_mib: lots").replace("kind: line", "kind: pie")
    )
    error = refusal(path)
    assert error.message.endswith("(and 2 more)")
    lines = [int(line.split("lab.yaml:")[1].split(":")[0]) for line in error.detail.splitlines()]
    assert len(lines) == 3
    assert lines == sorted(lines)


def test_words_mean_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("a: no\nb: 22:30\nc: 010\nd: 1e3\ne: 0x1F\nf: 1_000\ng: 2020-01-01\nh: true\ni: ~\nj: '5'\nk: .nan\nl: -1.5\nm: on\n")
    assert load(path).value == {
        "a": "no",
        "b": "22:30",
        "c": 10,
        "d": 1000.0,
        "e": 31,
        "f": "1_000",
        "g": "2020-01-01",
        "h": True,
        "i": None,
        "j": "5",
        "k": ".nan",
        "l": -1.5,
        "m": "on",
    }


def test_lines_are_known_for_every_key(tmp_path: Path) -> None:
    path = tmp_path / "lines.yaml"
    path.write_text("\n# comment\na:\n  b:\n    - c: 1\n      d: 2\n    - e\n")
    document = load(path)
    places = [("a",), ("a", "b"), ("a", "b", 0, "c"), ("a", "b", 0, "d"), ("a", "b", 1)]
    assert [document.line(place) for place in places] == [3, 4, 5, 6, 7]
    assert document.line(("a", "b", 0, "missing")) == 5


@pytest.mark.parametrize("seed", range(30))
def test_a_spoilt_file_is_read_or_refused_and_nothing_else(lab: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = lab / "lab.yaml"
    sound = path.read_bytes()
    for _ in range(40):
        data = bytearray(sound)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[place] = chance.randrange(256)
                case 1:
                    del data[place : place + chance.randrange(1, 30)]
                case 2:
                    data[place:place] = chance.choice(
                        [b"\n", b": ", b"- ", b"[", b"{", b"&a ", b"*a ", b"!!int ", b'"', b"\t", b"| ", b"? "]
                    )
                case _:
                    data[place:place] = data[chance.randrange(len(data)) :][:40]
        path.write_bytes(bytes(data))
        try:
            read_lab(lab)
        except UsageError as error:
            assert "lab.yaml" in error.message


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../sample", "/etc", "sample/", "Sample", "a b", "a\x00b", "x" * 5000, "-h", "*", "пример"]
)
def test_a_name_that_is_no_name_leads_nowhere(lab: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no lab named"):
        Collection([lab.parent]).get(name)


QUESTIONS = [
    Question(id="count", ask="How many?", kind="number", prediction=1),  # type: ignore[arg-type]
    Question(id="which", ask="Which?", kind="choice", prediction="a", choices=["a", "4096", "yes", "true"]),  # type: ignore[arg-type]
    Question(id="why", ask="Why?", kind="text", prediction="x"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("count: many\n", r"answers\.yaml:1: count: expected a number, found the text 'many'"),
        ("count: '5'\n", "expected a number"),
        ("count: true\n", "expected a number, found true"),
        ("count: [1]\n", "expected a number, found a list"),
        ("count: .nan\n", "expected a number"),
        ("count: 1e999\n", "not a number that can be used"),
        ("count: 1\n\nwhich: b\n", r"answers\.yaml:3: which: expected one of a, 4096, yes, true; found the text 'b'"),
        ("which: {a: 1}\n", "expected text, found a mapping"),
        ("why: " + "x" * 20_000, "expected at most 10000 characters, found 20000"),
        ("cuont: 1\n", r"answers\.yaml:1: cuont: there is no such question; did you mean 'count'\?"),
        ("count: 1\ncount: 2\n", "stands here twice"),
        ("- count: 1\n", "expected lines such as"),
        ("count 1\n", "expected lines such as"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_answers(path, QUESTIONS)


def test_answers_are_read_as_they_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text("count: 1.5\nwhich: 4096\nwhy: because\n")
    assert read_answers(path, QUESTIONS) == {"count": 1.5, "which": "4096", "why": "because"}
    path.write_text("which: true\nwhy:\n")
    assert read_answers(path, QUESTIONS) == {"which": "true"}
    path.write_text("which: ' YES'\n")
    assert read_answers(path, QUESTIONS) == {"which": "yes"}
    path.write_text("# nothing yet\n")
    assert read_answers(path, QUESTIONS) == {}
