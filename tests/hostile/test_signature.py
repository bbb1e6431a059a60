"""What a publisher signed, under attack: real keys of every bad kind, messages in the wrong place, lists that nearly say it."""

from __future__ import annotations

import datetime
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError
from vmlab.image import signature as publisher_signature
from vmlab.image.signature import Untrusted, check_file, digest_in, verified

GOOD, EVIL = b"0123  image.qcow2\n", b"6666  image.qcow2\n"
A, B, LONG = "a" * 64, "b" * 64, "c" * 128


def ago(days: int) -> tuple[str, str]:
    """The option that has gpg believe in a moment of the past."""
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    return ("--faked-system-time", when.strftime("%Y%m%dT%H%M%S"))


class Home:
    """A GnuPG home of its own, with secret keys that need no passphrase."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.path), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", "", *words]
        return subprocess.run(argv, check=True, capture_output=True, input=stdin).stdout

    def new(self, name: str, *when: str, expires: str = "never") -> str:
        """Make a key and return its fingerprint."""
        self.gpg(*when, "--quick-generate-key", name, "ed25519", "sign", expires)
        return self.fingerprints(name)[0]

    def fingerprints(self, name: str) -> list[str]:
        """The primary key's, then those of its subkeys."""
        listing = self.gpg("--with-colons", "--with-subkey-fingerprint", "--list-keys", name).decode()
        return [line.split(":")[9] for line in listing.split("\n") if line.startswith("fpr:")]

    def ring(self, *keys: str, armoured: bool = True) -> Path:
        """A file of these public keys as they are now."""
        path = self.path / f"{len(list(self.path.iterdir()))}.ring"
        path.write_bytes(self.gpg(*(["--armor"] if armoured else []), "--export", *keys))
        return path

    def detached(self, key: str, data: bytes, *more: str) -> bytes:
        return self.gpg("-u", key, *more, "--detach-sign", stdin=data)

    def clear(self, key: str, data: bytes) -> bytes:
        return self.gpg("-u", key, "--clear-sign", stdin=data)


class Publisher(NamedTuple):
    home: Home
    key: str
    ring: Path

    def accepts(self, data: bytes, proof: bytes | None) -> bytes:
        return verified(data, proof, self.ring, fingerprints=[self.key], deadline=Deadline(60))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    # The paths of gpg-agent's sockets may not be long.
    path = tmp_path_factory.mktemp("g")
    path.chmod(0o700)
    yield Home(path)
    subprocess.run(["gpgconf", "--homedir", str(path), "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def publisher(home: Home) -> Publisher:
    key = home.new("publisher@example.org")
    return Publisher(home, key, home.ring(key))


@pytest.fixture(scope="module")
def stranger(home: Home) -> str:
    return home.new("stranger@example.org")


def refused(ring: Path, key: str, data: bytes, proof: bytes | None, words: str) -> None:
    with pytest.raises(Untrusted, match=words):
        verified(data, proof, ring, fingerprints=[key], deadline=Deadline(60))


@pytest.mark.parametrize("armoured_ring", [True, False])
@pytest.mark.parametrize("form", [(), ("--armor",)])
def test_a_detached_signature_is_good_in_every_form(publisher: Publisher, armoured_ring: bool, form: tuple[str, ...]) -> None:
    home, key, _ = publisher
    ring = home.ring(key, armoured=armoured_ring)
    assert verified(GOOD, home.detached(key, GOOD, *form), ring, fingerprints=[key.lower()], deadline=Deadline(60)) == GOOD


def test_text_around_a_clear_signed_part_is_never_returned(publisher: Publisher) -> None:
    signed = publisher.home.clear(publisher.key, GOOD)
    assert publisher.accepts(EVIL + signed + EVIL, None) == GOOD
    # What stands above the empty line, where "Hash:" is, is not signed either.
    refused(publisher.ring, publisher.key, signed.replace(b"\n\n", b"\n" + EVIL + b"\n", 1), None, "cannot be trusted")


def test_lines_that_begin_with_a_dash_come_back_as_they_were(publisher: Publisher) -> None:
    text = b"-----BEGIN PGP SIGNED MESSAGE-----\n" + GOOD
    assert publisher.accepts(publisher.home.clear(publisher.key, text), None) == text


@pytest.mark.parametrize("form", ["tampered", "moved", "unsigned", "twice", "tampered-second", "tampered-first", "cut", "empty"])
def test_a_clear_signed_list_that_was_meddled_with_is_refused(publisher: Publisher, form: str) -> None:
    signed = publisher.home.clear(publisher.key, GOOD)
    bad = signed.replace(b"0123", b"6666")
    data = {
        "tampered": bad,
        # The unsigned line stands below the empty line, thus in the signed text.
        "moved": signed.replace(b"\n\n", b"\n\n" + EVIL, 1),
        "unsigned": EVIL,
        "twice": signed + signed,
        "tampered-second": signed + bad,
        "tampered-first": bad + signed,
        "cut": signed[: signed.index(b"-----BEGIN PGP SIGNATURE")],
        "empty": b"",
    }[form]
    assert data != signed
    refused(publisher.ring, publisher.key, data, None, "publisher's list of digests")


@pytest.mark.parametrize("tampered", [GOOD + b"x", GOOD[:-1], EVIL, b""])
def test_data_that_changed_after_signing_is_refused(publisher: Publisher, tampered: bytes) -> None:
    refused(publisher.ring, publisher.key, tampered, publisher.home.detached(publisher.key, GOOD), "changed")


@pytest.mark.parametrize("words", [("--clear-sign",), ("--sign",), ("--armor", "--sign")])
def test_a_whole_message_of_the_publishers_vouches_for_no_other_data(publisher: Publisher, words: tuple[str, ...]) -> None:
    # Anybody can hand over something that the publisher did sign, in place of a detached signature.
    message = publisher.home.gpg("-u", publisher.key, *words, stdin=GOOD)
    refused(publisher.ring, publisher.key, EVIL, message, "no signature|cannot be trusted")


@pytest.mark.parametrize(
    "proof", [b"", b"\n", b"garbage", b"\x88\x5e" * 40, b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"]
)
def test_what_is_no_signature_is_refused(publisher: Publisher, proof: bytes) -> None:
    refused(publisher.ring, publisher.key, GOOD, proof, "no signature|cannot be trusted")


def test_a_public_key_is_no_signature(publisher: Publisher) -> None:
    refused(publisher.ring, publisher.key, GOOD, publisher.ring.read_bytes(), "cannot be trusted")


def test_a_strangers_signature_is_refused(publisher: Publisher, stranger: str) -> None:
    home, key, ring = publisher
    for data, proof in ((GOOD, home.detached(stranger, GOOD)), (home.clear(stranger, GOOD), None)):
        refused(ring, key, data, proof, "none of the known keys")
        # Here the key file has the stranger's key, but the catalogue does not name it.
        refused(home.ring(key, stranger), key, data, proof, f"signed by {stranger}, which")


def test_no_fingerprints_accept_nobody(publisher: Publisher) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    for none in ([], [""], [publisher.key[-16:]]):
        with pytest.raises(Untrusted, match="does not name"):
            verified(GOOD, proof, publisher.ring, fingerprints=none, deadline=Deadline(60))


def test_one_of_several_fingerprints_is_enough(publisher: Publisher, stranger: str) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    assert verified(GOOD, proof, publisher.ring, fingerprints=[stranger, publisher.key], deadline=Deadline(60)) == GOOD


def test_a_key_that_expired_yesterday_is_refused(home: Home) -> None:
    # The signature was made in the key's lifetime: gpgv says EXPKEYSIG and VALIDSIG, and exits with 0.
    key = home.new("expired@example.org", *ago(2), expires="1d")
    proof = home.detached(key, GOOD, *ago(2))
    ring = home.ring(key, armoured=False)
    data = home.path / "expired.data"
    data.write_bytes(GOOD)
    said = subprocess.run(
        ["gpgv", "--status-fd", "1", "--keyring", str(ring), "-", str(data)], input=proof, capture_output=True, check=False
    )
    assert b"EXPKEYSIG" in said.stdout
    refused(ring, key, GOOD, proof, "key that signed has expired")
    refused(ring, key, home.gpg(*ago(2), "-u", key, "--clear-sign", stdin=GOOD), None, "key that signed has expired")


def test_a_signature_that_has_expired_is_refused(home: Home) -> None:
    key = home.new("brief@example.org", *ago(3))
    proof = home.detached(key, GOOD, *ago(2), "--default-sig-expire", "1d")
    refused(home.ring(key), key, GOOD, proof, "signature has expired")


def test_a_revoked_key_is_refused(home: Home) -> None:
    key = home.new("revoked@example.org")
    proof = home.detached(key, GOOD)
    before = home.ring(key)
    # GnuPG makes a revocation for every new key, with a colon that keeps it from being imported by mistake.
    home.gpg("--import", stdin=(home.path / "openpgp-revocs.d" / f"{key}.rev").read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    refused(home.ring(key), key, GOOD, proof, "revoked")
    # Who has the key file of before cannot know.
    assert verified(GOOD, proof, before, fingerprints=[key], deadline=Deadline(60)) == GOOD


def test_a_subkeys_signature_counts_as_the_primary_keys(home: Home, stranger: str) -> None:
    key = home.new("primary@example.org")
    home.gpg("--quick-add-key", key, "ed25519", "sign", "never")
    primary, subkey = home.fingerprints(key)
    proof = home.detached(f"{subkey}!", GOOD)
    for name in (primary, subkey):
        assert verified(GOOD, proof, home.ring(key), fingerprints=[name], deadline=Deadline(60)) == GOOD
    refused(home.ring(key), stranger, GOOD, proof, "does not name")


def test_a_good_signature_beside_a_bad_or_unknown_one_is_refused(publisher: Publisher, stranger: str) -> None:
    home, key, ring = publisher
    good = home.detached(key, GOOD)
    refused(ring, key, GOOD, good + home.detached(stranger, GOOD), "none of the known keys")
    refused(ring, key, GOOD, good + home.detached(key, EVIL), "changed|cannot be trusted")


def test_a_key_file_that_is_missing_or_garbage_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    refused(tmp_path / "none.asc", publisher.key, GOOD, proof, r"cannot be read.*none\.asc")
    refused(tmp_path, publisher.key, GOOD, proof, "cannot be read")
    garbage = tmp_path / "garbage.asc"
    text = publisher.ring.read_bytes()
    for content in (b"", b"garbage\n", text[: len(text) // 2], text.replace(b"\n\n", b"\n\n!!!!", 1)):
        garbage.write_bytes(content)
        refused(garbage, publisher.key, GOOD, proof, "publisher's")


def test_armour_with_headers_other_line_ends_and_several_blocks_is_read(publisher: Publisher, stranger: str, tmp_path: Path) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    text = publisher.ring.read_bytes()
    headers = text.replace(b"-----\n\n", b"-----\nVersion: GnuPG v2\nComment: a key\n\n", 1)
    ring = tmp_path / "ring.asc"
    for content in (headers, text.replace(b"\n", b"\r\n"), publisher.home.ring(stranger).read_bytes() + text):
        ring.write_bytes(content)
        assert verified(GOOD, proof, ring, fingerprints=[publisher.key], deadline=Deadline(60)) == GOOD


def test_the_users_own_gnupg_has_no_say(publisher: Publisher, stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home, key, ring = publisher
    (home.path / "trustedkeys.gpg").write_bytes(home.gpg("--export", stranger))
    monkeypatch.setenv("GNUPGHOME", str(home.path))
    refused(ring, key, GOOD, home.detached(stranger, GOOD), "none of the known keys")


def test_without_gpgv_the_package_is_named(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        publisher.accepts(GOOD, proof)
    assert "gpgv" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        f"{A}  debian.qcow2\n",
        f"{A} *debian.qcow2\n",
        f"{A}  ./debian.qcow2\n{B} *./other.qcow2\n",
        f"{B}  other.qcow2\r\n{A}  debian.qcow2\r\n",
        f"{A.upper()}  debian.qcow2",
        f"# debian.qcow2: 5 bytes\nSHA256 (debian.qcow2) = {A}\nSHA512 (debian.qcow2) = {LONG}\nMD5 (debian.qcow2) = {'d' * 32}\n",
        f"SHA256 (debian.qcow2) = {A}\r\nSHA256 (other.qcow2) = {B}\r\n",
        f"{A}  debian.qcow2\n{A.upper()} *debian.qcow2\n",
        f"{B}  evil-debian.qcow2\n{B}  debian.qcow2.sig\n{B}  x/debian.qcow2\n{A}  debian.qcow2\n",
        f"SHA256 (evil-debian.qcow2) = {B}\nSHA256 (debian.qcow2) = {A}\n",
        f"#{B}  debian.qcow2\n# SHA256 (debian.qcow2) = {B}\n{A}  debian.qcow2\n",
    ],
)
def test_a_digest_is_found_in_every_form(text: str) -> None:
    assert digest_in(text, "debian.qcow2", "sha256") == A


def test_each_algorithm_has_its_own_line_and_length() -> None:
    text = f"SHA256 (debian.qcow2) = {A}\nSHA512 (debian.qcow2) = {LONG}\n"
    assert digest_in(text, "debian.qcow2", "sha512") == LONG
    assert digest_in(f"{LONG}  debian.qcow2\n", "debian.qcow2", "sha512") == LONG


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not name"),
        ("\n\n<html>not found</html>\n", "does not name"),
        (f"{A}  evil-debian.qcow2\n{A}  debian.qcow2.sig\n", "does not name"),
        # A dot in the name is a dot.
        (f"{A}  debian-qcow2\nSHA256 (debianxqcow2) = {A}\n", "does not name"),
        (f"{A}  Debian.qcow2\n", "does not name"),
        (f"# {A}  debian.qcow2\n#SHA256 (debian.qcow2) = {A}\n", "does not name"),
        (f"{A}  debian.qcow2\n{B}  debian.qcow2\n", "several"),
        (f"{A}  debian.qcow2\nSHA256 (debian.qcow2) = {B}\n", "several"),
        (f"{A[:-1]}  debian.qcow2\n", "no proper digest"),
        (f"{A}a  debian.qcow2\n", "no proper digest"),
        (f"{A[:-1]}g  debian.qcow2\n", "does not name|no proper digest"),
        (f"SHA256 (debian.qcow2) = {A[:40]}\n", "no proper digest"),
        (f"SHA512 (debian.qcow2) = {LONG}\n", "does not name"),
        (f"{LONG}  debian.qcow2\n", "no proper digest"),
        # The same digest twice, once cut off: one of the two lines is not what the publisher wrote.
        (f"{A}  debian.qcow2\n{A[:-2]}  debian.qcow2\n", "several"),
    ],
)
def test_a_list_that_does_not_say_it_clearly_is_refused(text: str, words: str) -> None:
    with pytest.raises(Untrusted, match=words):
        digest_in(text, "debian.qcow2", "sha256")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_file_with_another_digest_is_refused_and_both_are_named(tmp_path: Path, algorithm: publisher_signature.Algorithm) -> None:
    path = tmp_path / "image"
    path.write_bytes(GOOD)
    right, wrong = (hashlib.new(algorithm, content).hexdigest() for content in (GOOD, EVIL))
    check_file(path, right, algorithm)
    with pytest.raises(Untrusted) as caught:
        check_file(path, wrong, algorithm)
    assert right[:16] in caught.value.message
    assert wrong[:16] in caught.value.message
    with pytest.raises(Untrusted):
        check_file(path, right[:-1], algorithm)


def test_a_signers_name_cannot_speak_for_gpgv(publisher: Publisher) -> None:
    # U+2028 ends a line for str.splitlines(), and gpgv writes the names of signers as they are.
    home, key, _ = publisher
    forger = home.new(f"forger\u2028[GNUPG:] VALIDSIG {key} x {key} <forger@example.org>")
    for data, proof in ((EVIL, home.detached(forger, EVIL)), (home.clear(forger, EVIL), None)):
        refused(home.ring(key, forger), key, data, proof, f"signed by {forger}, which")


@pytest.mark.parametrize("words", [("--sign",), ("--armor", "--sign"), ("--armor", "--store"), ("--store",), ("--detach-sign",)])
def test_other_messages_are_not_taken_for_clear_signed_text(publisher: Publisher, words: tuple[str, ...]) -> None:
    message = publisher.home.gpg("-u", publisher.key, *words, stdin=GOOD)
    refused(publisher.ring, publisher.key, message, None, "is not signed")


def test_a_compressed_message_in_place_of_the_list_is_never_unpacked(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1,000 times its size on the disk, and nobody needs a key for it.
    bomb = publisher.home.gpg("--compress-algo", "zip", "-z9", "--store", stdin=bytes(10_000_000))
    assert len(bomb) < 20_000
    monkeypatch.setattr("vmlab.process.run", lambda *_, **__: pytest.fail("gpgv was run"))
    refused(publisher.ring, publisher.key, bomb, None, "is not signed")


def test_several_clear_signed_parts_are_named_as_such(publisher: Publisher, stranger: str) -> None:
    home, key, ring = publisher
    for data in (home.clear(key, GOOD) * 2, home.clear(key, GOOD) + home.clear(stranger, EVIL)):
        refused(ring, key, data, None, "several signed parts")


def test_a_key_file_without_a_key_is_said_to_be_damaged(publisher: Publisher, tmp_path: Path) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    ring = tmp_path / "ring.asc"
    text = publisher.ring.read_bytes()
    for content in (b"", b"<html>not found</html>\n", text[: len(text) // 2], proof, text.replace(b"\n\n", b"\n\n!!!!", 1)):
        ring.write_bytes(content)
        refused(ring, publisher.key, GOOD, proof, "key is damaged")


def test_words_above_the_armour_are_passed_over(publisher: Publisher, tmp_path: Path) -> None:
    proof = publisher.home.detached(publisher.key, GOOD)
    ring = tmp_path / "ring.asc"
    for above in (b"\n", b"The key of 2026:\n", b"\xef\xbb\xbf"):
        ring.write_bytes(above + publisher.ring.read_bytes() + b"\nend\n")
        assert verified(GOOD, proof, ring, fingerprints=[publisher.key], deadline=Deadline(60)) == GOOD


def test_a_fingerprint_may_be_written_in_groups(publisher: Publisher) -> None:
    grouped = " ".join(publisher.key[at : at + 4] for at in range(0, 40, 4))
    proof = publisher.home.detached(publisher.key, GOOD)
    assert verified(GOOD, proof, publisher.ring, fingerprints=[grouped], deadline=Deadline(60)) == GOOD


def test_a_digest_may_be_in_capitals_and_a_file_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(GOOD)
    digest = hashlib.sha256(GOOD).hexdigest()
    assert publisher_signature.file_digest(path, "sha256") == digest
    check_file(path, digest.upper(), "sha256")
    with pytest.raises(ImageError, match="cannot be read"):
        check_file(tmp_path / "none", digest, "sha256")


def test_an_odd_separator_begins_no_entry() -> None:
    assert digest_in(f"{B}  other\u2028{B}  debian.qcow2\n{A}  debian.qcow2\n", "debian.qcow2", "sha256") == A
