"""What a publisher says about a file, and whether it is the publisher who says so: digest files and their OpenPGP signatures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import ImageError

Algorithm = Literal["sha256", "sha512"]

# A status of gpgv (GnuPG's doc/DETAILS, "Format of the status fd output") that makes a signature worthless, whatever its exit status is.
_WORTHLESS = {
    "BADSIG": "the signature does not fit: what was signed has been changed",
    "EXPKEYSIG": "the key that signed has expired",
    "REVKEYSIG": "the key that signed was revoked",
    "EXPSIG": "the signature has expired",
    "NO_PUBKEY": "none of the known keys has signed",
    "ERRSIG": "the signature is of a kind that gpgv cannot check or does not accept",
}

_KEY_BELONGS = "the key belongs beside the catalogue"


class Untrusted(ImageError):
    """A file is not what its publisher signed, or nobody can tell."""


def digest_in(text: str, name: str, algorithm: Algorithm) -> str:
    """The digest of a file in a publisher's list, in lower-case hexadecimal.

    Both of the usual forms are read: ``HEX  NAME`` (coreutils) and ``SHA256 (NAME) = HEX`` (BSD; Fedora, AlmaLinux and Rocky use it).
    Raises Untrusted when the list does not name the file, or gives it two digests.
    """
    found = set()
    # Not splitlines(): that takes U+2028 and others for a line's end, too, which no publisher's tool does.
    for line in text.split("\n"):
        bsd = re.fullmatch(r"(SHA\d+) \((.+)\) = ([0-9a-fA-F]+)\s*", line)
        plain = re.fullmatch(r"([0-9a-fA-F]+) [ *](.+?)\s*", line)
        if bsd and bsd[1].lower() == algorithm and bsd[2].removeprefix("./") == name:
            found.add(bsd[3].lower())
        elif plain and plain[2].removeprefix("./") == name:
            found.add(plain[1].lower())
    digests = {digest for digest in found if len(digest) == 2 * hashlib.new(algorithm).digest_size}
    if len(digests) != 1 or digests != found:
        what = "does not name" if not found else "has no proper digest of" if len(found) == 1 else "has several digests of"
        raise Untrusted(f"the publisher's list of digests {what} {name}", hint="the catalogue's `file` must be as the publisher writes it")
    return digests.pop()


def file_digest(path: Path, algorithm: Algorithm) -> str:
    """The digest of a file's content in lower-case hexadecimal; ImageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as exc:
        raise ImageError(f"{path} cannot be read: {exc.strerror}", hint="it may have been removed meanwhile; fetch it again") from exc


def check_file(path: Path, expected: str, algorithm: Algorithm, *, called: str = "") -> None:
    """Raise Untrusted unless the file has this digest, in hexadecimal of either case; ImageError when it cannot be read.

    ``called`` is what the user knows the file by, if not its name.
    """
    found, expected = file_digest(path, algorithm), expected.lower()
    if found != expected:
        page = "it is a web page: does this network want you to log in first?" if _is_web_page(path) else ""
        raise Untrusted(
            f"{called or path.name} is not what its publisher has: its {algorithm} begins with {found[:16]}, not {expected[:16]}",
            hint=page or "it will not be used; fetch it again, and if it stays so, tell the publisher",
        )


def _is_web_page(path: Path) -> bool:
    """Whether a file looks like HTML, which is what a network that wants a log-in, or a server that says sorry, gives for any file."""
    with path.open("rb") as file:
        return re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)", file.read(512), re.IGNORECASE) is not None


def verified(data: bytes, signature: bytes | None, keyring: Path, *, fingerprints: Sequence[str], deadline: Deadline) -> bytes:
    """What one of these keys signed: ``data`` itself with a detached signature, else the signed part of clear-signed data.

    ``keyring`` is a file of public keys, armoured or not. Raises Untrusted when the signature is not good, for whatever reason,
    HostError when gpgv is missing, and `process.CommandError` when it does not come to an end.
    """
    process.require("gpgv")
    with tempfile.TemporaryDirectory(prefix="vmlab-gpgv-") as scratch:
        home = Path(scratch)
        (home / "keys.gpg").write_bytes(_binary(keyring))
        (home / "data").write_bytes(_clear_signed(data) if signature is None else data)
        argv = ["gpgv", "--status-fd", "1", "--keyring", str(home / "keys.gpg")]
        if signature is None:
            # Only what gpgv writes here was signed; anybody can add text before and after it.
            argv += ["--output", str(home / "signed"), str(home / "data")]
        else:
            (home / "signature").write_bytes(signature)
            argv += [str(home / "signature"), str(home / "data")]
        # An empty home: whatever this user's GnuPG trusts or is told to do has no say here.
        done = process.run(argv, env={"GNUPGHOME": scratch, "LC_ALL": "C"}, deadline=deadline.within(60), check=False)
        _judge(done, fingerprints)
        if signature is not None:
            return data
        try:
            return (home / "signed").read_bytes()
        except FileNotFoundError:
            raise Untrusted("the publisher's list of digests is not signed") from None


def _clear_signed(data: bytes) -> bytes:
    """The one clear-signed part of ``data`` (RFC 4880, section 7), which is all that gpgv is given.

    It would read whatever message it meets: a small compressed one that nobody signed fills the disk before it is judged.
    """
    begin, end = rb"^-----BEGIN PGP SIGNED MESSAGE-----[ \t]*\r?\n", rb"^-----END PGP SIGNATURE-----[ \t]*\r?$"
    parts = re.findall(begin + rb".*?" + end, data, re.DOTALL | re.MULTILINE)
    if len(parts) != 1 or len(re.findall(begin, data, re.MULTILINE)) != 1:
        what = "has several signed parts" if parts else "is not signed"
        raise Untrusted(f"the publisher's list of digests {what}", hint="the catalogue's `digests` must be as the publisher signs them")
    return bytes(parts[0]) + b"\n"


def _judge(done: process.Completed, fingerprints: Sequence[str]) -> None:
    """Raise Untrusted unless gpgv found a good signature, nothing but good ones, and one by a key that counts."""
    # Bytes, and split at b"\n" alone: a status line holds the signer's name, in which U+2028 would begin a line for str.splitlines().
    lines = [line.decode(errors="replace") for line in done.stdout.split(b"\n")]
    status = [line.removeprefix("[GNUPG:] ").split() for line in lines if line.startswith("[GNUPG:] ")]
    words = {word for word, *_ in status}
    for word, why in _WORTHLESS.items():
        if word in words:
            raise _untrusted(why, done)
    # VALIDSIG's first argument is the fingerprint of the key that signed, its last that of the primary key.
    signers = {fingerprint for word, *rest in status if word == "VALIDSIG" and rest for fingerprint in (rest[0], rest[-1])}
    if done.status != 0 or not signers:
        raise _untrusted("there is no signature that can be read", done)
    if not signers & {fingerprint.replace(" ", "").upper() for fingerprint in fingerprints}:
        raise _untrusted(f"it was signed by {' or '.join(sorted(signers))}, which the catalogue does not name", done)


def _untrusted(why: str, done: process.Completed) -> Untrusted:
    return Untrusted(
        f"the publisher's list of digests cannot be trusted: {why}",
        hint="nothing was changed; if it stays so, see whether the publisher has a new key, and put that into the catalogue",
        detail=done.stderr.decode(errors="replace")[-2000:],
    )


def _binary(keyring: Path) -> bytes:
    """A key file as gpgv reads it: without its armour (RFC 4880, section 6.2) if it has one, and without the words around that."""
    try:
        content = keyring.read_bytes()
    except OSError as exc:
        raise Untrusted(f"the publisher's key cannot be read: {exc.strerror}: {keyring}", hint=_KEY_BELONGS) from exc
    armour = rb"-----(BEGIN|END) PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n?"
    keys, marks = b"" if b"-----BEGIN PGP" in content else content, list(re.finditer(armour, content))
    for begin, end in zip(marks[::2], marks[1::2], strict=False):
        # Headers end with an empty line; the last line is the checksum, which GnuPG's own reader does not insist on either.
        body = re.split(rb"\r?\n[ \t]*\r?\n", b"\n" + content[begin.end() : end.start()], maxsplit=1)[-1]
        lines = [line for line in body.split() if not line.startswith(b"=")]
        try:
            keys += base64.b64decode(b"".join(lines), validate=True)
        except binascii.Error as exc:
            raise Untrusted(f"the publisher's key is damaged: {keyring}", hint=_KEY_BELONGS) from exc
    # RFC 4880, section 4.2 and 4.3: the first octet of a public key, in the old and in the new format of packets.
    if len(marks) % 2 or keys[:1] not in {b"\x98", b"\x99", b"\x9a", b"\xc6"}:
        raise Untrusted(f"the publisher's key is damaged: {keyring}", hint=_KEY_BELONGS)
    return keys
