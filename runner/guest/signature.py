"""What a publisher says about a file, and whether it is the publisher who says so: digest files and their OpenPGP signatures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from runner.deadline import Deadline
from runner.errors import HostError, ImageError

Algorithm = Literal["sha256", "sha512"]

# A status of gpgv (GnuPG's doc/DETAILS, "Format of the status fd output") that makes a signature worthless, whatever its exit status is.
_WORTHLESS = {
    "BADSIG": "the signature does not fit: what was signed has been changed",
    "EXPKEYSIG": "the key that signed has expired",
    "REVKEYSIG": "the key that signed was revoked",
    "EXPSIG": "the signature has expired",
    "ERRSIG": "none of the known keys has signed",
    "NO_PUBKEY": "none of the known keys has signed",
}


class Untrusted(ImageError):
    """A file is not what its publisher signed, or nobody can tell."""


def digest_in(text: str, name: str, algorithm: Algorithm) -> str:
    """The digest of a file in a publisher's list, in lower-case hexadecimal.

    Both of the usual forms are read: ``HEX  NAME`` (coreutils) and ``SHA256 (NAME) = HEX`` (BSD; Fedora, AlmaLinux and Rocky use it).
    Raises Untrusted when the list does not name the file, or gives it two digests.
    """
    found = set()
    for line in text.splitlines():
        bsd = re.fullmatch(r"(SHA\d+) \((.+)\) = ([0-9a-fA-F]+)\s*", line)
        plain = re.fullmatch(r"([0-9a-fA-F]+) [ *](.+?)\s*", line)
        if bsd and bsd[1].lower() == algorithm and bsd[2] == name:
            found.add(bsd[3].lower())
        elif plain and plain[2].removeprefix("./") == name:
            found.add(plain[1].lower())
    digests = {digest for digest in found if len(digest) == 2 * hashlib.new(algorithm).digest_size}
    if len(digests) != 1 or digests != found:
        what = "does not name" if not found else "has no proper digest of" if len(found) == 1 else "has several digests of"
        raise Untrusted(f"the publisher's list of digests {what} {name}", hint="the catalogue's `file` must be as the publisher writes it")
    return digests.pop()


def check_file(path: Path, expected: str, algorithm: Algorithm) -> None:
    """Raise Untrusted unless the file has this digest."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise Untrusted(
            f"{path.name} is not what its publisher has: its {algorithm} begins with {found[:16]}, not {expected[:16]}",
            hint="it will not be used; fetch it again, and if it stays so, tell the publisher",
        )


def verified(data: bytes, signature: bytes | None, keyring: Path, *, fingerprints: Sequence[str], deadline: Deadline) -> bytes:
    """What one of these keys signed: ``data`` itself with a detached signature, else the signed part of clear-signed data.

    ``keyring`` is a file of public keys, armoured or not. Raises Untrusted when the signature is not good, for whatever reason, and
    HostError when gpgv is missing.
    """
    if shutil.which("gpgv") is None:
        raise HostError("gpgv is missing, so that the publisher's signature cannot be checked", hint="sudo apt-get install gpgv")
    with tempfile.TemporaryDirectory(prefix="vmlab-gpgv-") as scratch:
        home = Path(scratch)
        (home / "keys.gpg").write_bytes(_binary(keyring))
        (home / "data").write_bytes(data)
        argv = ["gpgv", "--status-fd", "1", "--keyring", str(home / "keys.gpg")]
        if signature is None:
            # Only what gpgv writes here was signed; anybody can add text before and after it.
            argv += ["--output", str(home / "signed"), str(home / "data")]
        else:
            (home / "signature").write_bytes(signature)
            argv += [str(home / "signature"), str(home / "data")]
        try:
            done = subprocess.run(
                argv,
                env={"PATH": os.environ.get("PATH", ""), "GNUPGHOME": scratch, "LC_ALL": "C"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=max(1.0, min(60.0, deadline.left_s())),
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise HostError("gpgv did not come to an end") from exc
        _judge(done, fingerprints)
        if signature is not None:
            return data
        try:
            return (home / "signed").read_bytes()
        except FileNotFoundError:
            raise Untrusted("the publisher's list of digests is not signed") from None


def _judge(done: subprocess.CompletedProcess[str], fingerprints: Sequence[str]) -> None:
    """Raise Untrusted unless gpgv found a good signature, nothing but good ones, and one by a key that counts."""
    status = [line.removeprefix("[GNUPG:] ").split() for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")]
    for word, *_ in status:
        if word in _WORTHLESS:
            raise _untrusted(_WORTHLESS[word], done)
    # VALIDSIG's first argument is the fingerprint of the key that signed, its last that of the primary key.
    signers = {fingerprint for word, *rest in status if word == "VALIDSIG" and rest for fingerprint in (rest[0], rest[-1])}
    if done.returncode != 0 or not signers:
        raise _untrusted("there is no signature that can be read", done)
    if not signers & {fingerprint.upper() for fingerprint in fingerprints}:
        raise _untrusted(f"it was signed by {' or '.join(sorted(signers))}, which the catalogue does not name", done)


def _untrusted(why: str, done: subprocess.CompletedProcess[str]) -> Untrusted:
    return Untrusted(
        f"the publisher's list of digests cannot be trusted: {why}",
        hint="nothing was changed; if it stays so, see whether the publisher has a new key, and put that into the catalogue",
        detail=done.stderr[-2000:],
    )


def _binary(keyring: Path) -> bytes:
    """A key file as gpgv reads it: without its armour (RFC 4880, section 6.2) if it has one."""
    try:
        content = keyring.read_bytes()
    except OSError as exc:
        raise Untrusted(
            f"the publisher's key cannot be read: {exc.strerror}: {keyring}", hint="the key belongs beside the catalogue"
        ) from exc
    if not content.startswith(b"-----BEGIN"):
        return content
    keys = b""
    for block in re.findall(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", content, re.DOTALL):
        # Headers end with an empty line; the last line is the checksum, which GnuPG's own reader does not insist on either.
        body = re.split(rb"\r?\n\r?\n", block, maxsplit=1)[-1]
        lines = [line for line in body.split() if not line.startswith(b"=")]
        try:
            keys += base64.b64decode(b"".join(lines), validate=True)
        except binascii.Error as exc:
            raise Untrusted(f"the publisher's key is damaged: {keyring}", hint="the key belongs beside the catalogue") from exc
    return keys
