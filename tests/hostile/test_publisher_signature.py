"""Signatures by real keys, made for each test, and lists of digests in all their forms."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.guest.signature import Untrusted, digest_in, verified

SUMS = b"0123  image.qcow2\n"
A, B = "a" * 64, "b" * 64


class Keys:
    """A GnuPG home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", "", *words]
        return subprocess.run(argv, check=True, capture_output=True, input=stdin).stdout

    def new(self, name: str, *when: str) -> str:
        self.gpg(*when, "--quick-generate-key", name, "ed25519", "sign", "1d" if when else "never")
        listing = self.gpg("--with-colons", "--list-keys", name).decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def ring(self, *fingerprints: str, armoured: bool = True) -> Path:
        path = self.home / f"ring-{len(list(self.home.iterdir()))}"
        path.write_bytes(self.gpg(*(["--armor"] if armoured else []), "--export", *fingerprints))
        return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    home = tmp_path_factory.mktemp("k")
    home.chmod(0o700)
    yield Keys(home)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def publisher(keys: Keys) -> str:
    return keys.new("publisher@example.org")


def check(data: bytes, signature: bytes | None, ring: Path, *fingerprints: str) -> bytes:
    return verified(data, signature, ring, fingerprints=fingerprints, deadline=Deadline(60))


@pytest.mark.parametrize("armoured_key", [True, False])
@pytest.mark.parametrize("armoured_signature", [True, False])
def test_a_good_signature_is_good_in_every_form(keys: Keys, publisher: str, armoured_key: bool, armoured_signature: bool) -> None:
    form = ["--armor"] if armoured_signature else []
    signature = keys.gpg("-u", publisher, *form, "--detach-sign", stdin=SUMS)
    assert check(SUMS, signature, keys.ring(publisher, armoured=armoured_key), publisher) == SUMS


def test_of_clear_signed_text_only_what_was_signed_counts(keys: Keys, publisher: str) -> None:
    signed = keys.gpg("-u", publisher, "--clear-sign", stdin=SUMS)
    around = b"6666  image.qcow2\n" + signed + b"7777  image.qcow2\n"
    assert check(around, None, keys.ring(publisher), publisher).strip() == SUMS.strip()
    with pytest.raises(Untrusted, match="changed"):
        check(signed.replace(b"0123", b"3210"), None, keys.ring(publisher), publisher)
    with pytest.raises(Untrusted):
        check(SUMS, None, keys.ring(publisher), publisher)


def test_what_was_changed_after_signing_is_refused(keys: Keys, publisher: str) -> None:
    signature = keys.gpg("-u", publisher, "--detach-sign", stdin=SUMS)
    with pytest.raises(Untrusted, match="changed"):
        check(SUMS + b"x", signature, keys.ring(publisher), publisher)


def test_another_keys_signature_is_refused(keys: Keys, publisher: str) -> None:
    other = keys.new("other@example.org")
    signature = keys.gpg("-u", other, "--detach-sign", stdin=SUMS)
    with pytest.raises(Untrusted, match="none of the known keys"):
        check(SUMS, signature, keys.ring(publisher), publisher)
    # In the key file, but not one that the catalogue names.
    with pytest.raises(Untrusted, match="does not name"):
        check(SUMS, signature, keys.ring(publisher, other), publisher)
    assert check(SUMS, signature, keys.ring(publisher, other), publisher, other) == SUMS


def test_an_expired_keys_signature_is_refused(keys: Keys) -> None:
    long_ago = ("--faked-system-time", "20200101T000000")
    expired = keys.new("expired@example.org", *long_ago)
    signature = keys.gpg(*long_ago, "-u", expired, "--detach-sign", stdin=SUMS)
    with pytest.raises(Untrusted, match="expired"):
        check(SUMS, signature, keys.ring(expired), expired)


def test_a_subkeys_signature_counts_as_the_primary_keys(keys: Keys) -> None:
    primary = keys.new("primary@example.org")
    keys.gpg("--quick-add-key", primary, "ed25519", "sign", "never")
    signature = keys.gpg("-u", "primary@example.org", "--detach-sign", stdin=SUMS)
    assert check(SUMS, signature, keys.ring(primary), primary) == SUMS


@pytest.mark.parametrize("signature", [b"", b"garbage", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(keys: Keys, publisher: str, signature: bytes) -> None:
    with pytest.raises(Untrusted):
        check(SUMS, signature, keys.ring(publisher), publisher)


def test_a_key_that_is_missing_or_damaged_is_named(keys: Keys, publisher: str, tmp_path: Path) -> None:
    signature = keys.gpg("-u", publisher, "--detach-sign", stdin=SUMS)
    with pytest.raises(Untrusted, match=r"none\.asc"):
        check(SUMS, signature, tmp_path / "none.asc", publisher)
    damaged = tmp_path / "damaged.asc"
    damaged.write_bytes(keys.ring(publisher).read_bytes().replace(b"m", b"!", 1))
    with pytest.raises(Untrusted):
        check(SUMS, signature, damaged, publisher)


@pytest.mark.parametrize(
    "text",
    [
        f"{A}  disk.qcow2\n",
        f"{A} *disk.qcow2\r\n{B}  other.qcow2\r\n",
        f"{A.upper()}  ./disk.qcow2",
        f"# a comment\nSHA256 (disk.qcow2) = {A}\nSHA512 (disk.qcow2) = {'c' * 128}\n",
        f"{A}  disk.qcow2\n{A}  disk.qcow2\n",
        f"{B}  evil-disk.qcow2\n{B}  disk.qcow2.xz\n{A}  disk.qcow2\n",
    ],
)
def test_a_list_of_digests_is_read_in_every_form(text: str) -> None:
    assert digest_in(text, "disk.qcow2", "sha256") == A


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not name"),
        (f"{A}  other.qcow2\n{A}  not-disk.qcow2\n", "does not name"),
        (f"{A}  disk.qcow2\n{B}  disk.qcow2\n", "several"),
        (f"{A[:-1]}  disk.qcow2\n", "no proper digest"),
        (f"{'c' * 128}  disk.qcow2\n", "no proper digest"),
        (f"SHA512 (disk.qcow2) = {A}\n", "does not name"),
    ],
)
def test_a_list_that_does_not_say_it_clearly_is_refused(text: str, words: str) -> None:
    with pytest.raises(Untrusted, match=words):
        digest_in(text, "disk.qcow2", "sha256")
