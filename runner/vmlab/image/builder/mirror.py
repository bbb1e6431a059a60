"""Where Debian packages come from on this machine.

No mirror is named in this project. In order of preference: what the user says (``MIRROR=``), what the machine itself uses when it runs
Debian, and mmdebstrap's own default. Of the machine's sources only the *addresses* of the Debian archive and of its security updates
are taken: the suite is the image's, and what other repositories the machine knows is of no concern here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.image import curl

_APT = Path("/etc/apt")


@dataclass(frozen=True)
class Mirror:
    """The sources.list lines to give to mmdebstrap (none: its own default), and where they were found, for people."""

    lines: tuple[str, ...]
    origin: str


def choose(suite: str, deadline: Deadline, *, apt: Path = _APT) -> Mirror:
    """The mirror for ``suite`` on this machine, with security updates and stable updates where the mirror has them."""
    named = os.environ.get("MIRROR", "").strip().rstrip("/")
    if named:
        # Every full mirror keeps the security archive beside the main one under this name.
        return Mirror(_lines(suite, named, f"{named}-security", deadline), "the mirror that MIRROR= names")
    archives = _archives_of_host(apt)
    if archives is not None and _has(archives[0], suite, deadline):
        return Mirror(_lines(suite, archives[0], archives[1], deadline), "this machine's own Debian mirror")
    return Mirror((), "mmdebstrap's default mirror")


def _lines(suite: str, main: str, security: str | None, deadline: Deadline) -> tuple[str, ...]:
    lines = [f"deb {main} {suite} main"]
    if _has(main, f"{suite}-updates", deadline):
        lines.append(f"deb {main} {suite}-updates main")
    if security and _has(security, f"{suite}-security", deadline):
        lines.append(f"deb {security} {suite}-security main")
    return tuple(lines)


def _has(uri: str, suite: str, deadline: Deadline) -> bool:
    """Whether the archive at ``uri`` holds ``suite``; an archive that does not answer within ten seconds does not."""
    return curl.exists(f"{uri}/dists/{suite}/InRelease", deadline.within(10))


def _archives_of_host(apt: Path) -> tuple[str, str | None] | None:
    """The machine's addresses of the Debian archive and of its security archive; None where it does not run Debian."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        return None
    main = security = None
    for uri, suite, components in _sources(apt):
        if "main" not in components or not uri.startswith(("http://", "https://")):
            continue
        if suite in (codename, "stable"):
            main = main or uri
        elif suite in (f"{codename}-security", "stable-security"):
            security = security or uri
    return (main, security) if main else None


def _sources(apt: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Each (uri, suite, components) that apt's source files list, in both of the formats that sources.list(5) describes."""
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # An unreadable file belongs to somebody else's repository as far as we are concerned.
        if file.suffix == ".list":
            yield from _one_line_style(text)
        elif file.suffix == ".sources":
            yield from _deb822_style(text)


def _one_line_style(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words or words[0] != "deb":
            continue
        if len(words) > 1 and words[1].startswith("["):
            end = next((index for index, word in enumerate(words) if word.endswith("]")), len(words))
            words = ["deb", *words[end + 1 :]]
        if len(words) >= 4:
            yield words[1].rstrip("/"), words[2], words[3:]


def _deb822_style(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith(("#", " ", "\t")):
                fields[name.strip().lower()] = value
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip().lower() in ("no", "false"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri.rstrip("/"), suite, fields.get("components", "").split()
