"""A publisher of images for tests: files, digest files and signatures by a key of its own, served over HTTP on the loopback address."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from pathlib import Path
from typing import Any


class Publisher:
    """A context manager. ``root`` is what is served; ``keyring`` and ``fingerprint`` are the signing key's."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "www"
        self.root.mkdir(parents=True)
        self.home = directory / "gnupg"
        self.home.mkdir(mode=0o700)
        self.keyring = directory / "publisher.asc"
        self.asked: list[str] = []
        handler = functools.partial(_Noting, directory=str(self.root), asked=self.asked)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Publisher:
        self._gpg("--passphrase", "", "--quick-generate-key", "publisher@example.org", "ed25519", "sign", "never")
        listing = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        self.keyring.write_bytes(self._gpg("--armor", "--export"))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)

    def publish(self, name: str, content: bytes) -> None:
        """Serve a file under this name, with a digest file that names it and a signature of that."""
        (self.root / name).write_bytes(content)
        self.sign({name: hashlib.sha512(content).hexdigest()})

    def sign(self, digests: dict[str, str]) -> None:
        """Write the digest file and sign it."""
        sums = self.root / "SHA512SUMS"
        sums.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
        (self.root / "SHA512SUMS.gpg").unlink(missing_ok=True)
        self._gpg("--output", str(self.root / "SHA512SUMS.gpg"), "--detach-sign", str(sums))

    def entry(self, name: str, *, firmware: str = "bios", file: str = "disk.qcow2", more: str = "") -> str:
        """A catalogue's entry for the file; the key is expected beside the catalogue as publisher.asc."""
        return f"""
  {name}:
    kind: published
    title: {name} of a publisher on this machine
    addresses: [{self.address}/{file}]
    default_user: debian
    firmware: {firmware}
    digests:
      address: {self.address}/SHA512SUMS
      algorithm: sha512
      signature: {{address: "{self.address}/SHA512SUMS.gpg", key: publisher.asc, fingerprints: ["{self.fingerprint}"]}}
    {more}
"""

    def catalog(self, directory: Path, *entries: str) -> Path:
        """Write a catalogue with the publisher's key beside it."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "publisher.asc").write_bytes(self.keyring.read_bytes())
        path = directory / "catalog.yaml"
        path.write_text("images:" + "".join(entries))
        return path

    def _gpg(self, *words: str) -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--pinentry-mode", "loopback", *words]
        return subprocess.run(argv, check=True, capture_output=True).stdout


class _Noting(http.server.SimpleHTTPRequestHandler):
    """Keeps the paths that were asked for instead of printing them."""

    def __init__(self, *words: Any, asked: list[str], **named: Any) -> None:
        self._asked = asked
        super().__init__(*words, **named)

    def log_message(self, *_: object) -> None:
        self._asked.append(self.path)
