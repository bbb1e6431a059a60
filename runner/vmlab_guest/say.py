"""One JSON object a line: what a script prints for the experiment, and what the experiment tells a script that it talks to.

The package json takes 60 ms to import in an emulated guest, so it is imported by whoever reads, not by whoever prints.
"""

import sys

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


def _refused(value: object) -> "Any":
    raise TypeError(f"{type(value).__name__} is nothing that JSON has: {value!r:.80}")


try:
    # What json.dumps itself is made of: the same text, without its package. (json.encoder.JSONEncoder.iterencode shows the arguments.)
    from _json import encode_basestring_ascii, make_encoder
except ImportError:
    make_encoder = None  # type: ignore[assignment,misc]


def encoded(value: object) -> str:
    """A value as JSON text on one line. ValueError for NaN, infinity and what holds itself, TypeError for what JSON does not have."""
    if make_encoder is None:
        import json  # noqa: PLC0415  (A Python without its compiled part: slow, and the same text.)

        return json.dumps(value, allow_nan=False, default=_refused)
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    encode: Any = make_encoder({}, _refused, encode_basestring_ascii, None, ": ", ", ", False, False, False)
    return "".join(encode(value, 0))


def say(record: "Mapping[str, object] | None" = None, /, **more: object) -> None:
    """Print one object as a line of JSON, at once: ``say({"pid": 7})``, ``say(event="ready", cpu=0)``, or both.

    It is printed whole or not at all: TypeError and ValueError as of `encoded`.
    """
    line = encoded({**(record or {}), **more})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def hear() -> "dict[str, Any] | None":
    """The next object that the experiment sends (``talk.send``); None when there will be no more. TypeError when it is none."""
    import json  # noqa: PLC0415  (62 ms, for those alone who read.)

    line = sys.stdin.readline()
    if not line:
        return None
    heard = json.loads(line)
    if not isinstance(heard, dict):
        raise TypeError(f"expected a JSON object, heard {line[:80]!r}")
    return heard


def orders() -> "Iterator[dict[str, Any]]":
    """Each object that the experiment sends, until it closes the script's input (``talk.finish``) or leaves the conversation."""
    while (order := hear()) is not None:
        yield order
