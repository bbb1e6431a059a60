"""Published images through the store: what is trusted, what is refused, and what stays in the cache meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Vmlab
from tests.publisher import Publisher
from vmlab.deadline import Deadline
from vmlab.errors import ImageError, UsageError
from vmlab.image import curl
from vmlab.image.signature import Untrusted
from vmlab.image.store import ImageStore
from vmlab.progress import Progress, notices


def disk(directory: Path, marker: str, *options: str) -> bytes:
    """A small qcow2 file that differs from others by its marker."""
    directory.mkdir(exist_ok=True)
    raw, path = directory / f"{marker}.raw", directory / f"{marker}.qcow2"
    raw.write_bytes(marker.encode().ljust(2 << 20, b"\0"))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)], check=True)
    return path.read_bytes()


@pytest.fixture
def publisher(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    # The paths of gpg-agent's sockets may not be long.
    with Publisher(tmp_path_factory.mktemp("p")) as made:
        made.publish("disk.qcow2", disk(tmp_path / "disks", "first"))
        yield made


def store_of(publisher: Publisher, root: Path, *, more: str = "", told: list[str] | None = None) -> ImageStore:
    catalog = publisher.catalog(root / "config", publisher.entry("theirs", more=more))
    lines = [] if told is None else told
    return ImageStore(root / "cache", progress=Progress(notices(lines.append)), more=[catalog])


def marker_of(path: Path) -> bytes:
    out = Path(tempfile.mkdtemp()) / "marker"
    said = subprocess.run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=16", "count=1", f"if={path}", f"of={out}"],
                          check=True, capture_output=True)  # fmt: skip
    assert said.returncode == 0
    content = out.read_bytes().rstrip(b"\0")
    out.unlink()
    return content


def test_an_image_is_fetched_once_and_found_again_without_its_publisher(publisher: Publisher, tmp_path: Path) -> None:
    told: list[str] = []
    store = store_of(publisher, tmp_path, told=told)
    assert store.find("theirs") is None
    image = store.get("theirs", Deadline(60))
    assert marker_of(image.disk) == b"first"
    assert (image.kernel, image.default_user, image.firmware) == (None, "debian", "bios")
    assert publisher.fingerprint in image.manifest["origin"]["trusted_by"]
    (publisher.root / "SHA512SUMS").unlink()
    (publisher.root / "disk.qcow2").unlink()
    assert store.get("theirs", Deadline(60)).digest == image.digest
    assert store.verify("theirs") == []
    (row,) = [row for row in store.status() if row.name == "theirs"]
    assert row.cached
    assert row.path == image.directory


def test_a_pull_brings_the_publishers_newer_version_and_prune_removes_the_older(publisher: Publisher, tmp_path: Path) -> None:
    told: list[str] = []
    store = store_of(publisher, tmp_path, told=told)
    first = store.pull("theirs", Deadline(60))
    assert store.pull("theirs", Deadline(60)).directory == first.directory
    assert "is what its publisher has" in told[-1]
    publisher.publish("disk.qcow2", disk(tmp_path / "disks", "second"))
    # Without a pull, what was fetched stays what it is.
    assert store.get("theirs", Deadline(60)).digest == first.digest
    second = store.pull("theirs", Deadline(60))
    assert marker_of(second.disk) == b"second"
    assert store.get("theirs", Deadline(60)).digest == second.digest
    store.prune()
    assert not first.directory.exists()
    assert second.directory.exists()


@pytest.mark.parametrize("tampered", ["disk.qcow2", "SHA512SUMS", "SHA512SUMS.gpg"])
def test_what_was_tampered_with_is_refused_and_what_was_cached_stays(publisher: Publisher, tmp_path: Path, tampered: str) -> None:
    store = store_of(publisher, tmp_path)
    first = store.pull("theirs", Deadline(60))
    publisher.publish("disk.qcow2", disk(tmp_path / "disks", "second"))
    path = publisher.root / tampered
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Untrusted):
        store.pull("theirs", Deadline(60))
    assert store.get("theirs", Deadline(60)).digest == first.digest
    assert marker_of(first.disk) == b"first"
    # Nothing of the wrong file is taken for the right one's beginning.
    publisher.publish("disk.qcow2", disk(tmp_path / "disks", "second"))
    assert marker_of(store.pull("theirs", Deadline(60)).disk) == b"second"


def test_a_pin_outlives_the_publishers_newer_versions(publisher: Publisher, tmp_path: Path) -> None:
    import hashlib

    pinned = hashlib.sha256(disk(tmp_path / "disks", "first")).hexdigest()
    digest = hashlib.sha256((publisher.root / "disk.qcow2").read_bytes()).hexdigest()
    assert pinned == digest
    store = store_of(publisher, tmp_path, more=f"pin: sha256:{digest}")
    first = store.get("theirs", Deadline(60))
    publisher.publish("disk.qcow2", disk(tmp_path / "disks", "second"))
    assert store.pull("theirs", Deadline(60)).digest == first.digest
    with pytest.raises(Untrusted):
        store_of(publisher, tmp_path / "other", more=f"pin: sha256:{digest}").pull("theirs", Deadline(60))


def test_a_file_that_was_fetched_by_other_means_must_be_the_publishers(publisher: Publisher, tmp_path: Path) -> None:
    store = store_of(publisher, tmp_path)
    good, bad = tmp_path / "good.qcow2", tmp_path / "bad.qcow2"
    good.write_bytes((publisher.root / "disk.qcow2").read_bytes())
    bad.write_bytes(disk(tmp_path / "disks", "other"))
    (publisher.root / "disk.qcow2").unlink()
    with pytest.raises(Untrusted):
        store.pull("theirs", Deadline(60), source=bad)
    assert store.find("theirs") is None
    assert marker_of(store.pull("theirs", Deadline(60), source=good).disk) == b"first"
    assert good.exists()


def test_a_file_of_the_users_own_is_copied(tmp_path: Path) -> None:
    own = tmp_path / "My Image.qcow2"
    own.write_bytes(disk(tmp_path / "disks", "own"))
    store = ImageStore(tmp_path / "cache", more=[])
    image = store.get(str(own), Deadline(60))
    assert store.get(str(own), Deadline(60)).directory == image.directory
    own.write_bytes(disk(tmp_path / "disks", "changed"))
    assert marker_of(store.get(str(own), Deadline(60)).disk) == b"changed"
    raw = tmp_path / "own.raw"
    raw.write_bytes(b"raw".ljust(2 << 20, b"\0"))
    assert marker_of(store.get(str(raw), Deadline(60)).disk) == b"raw"


def test_a_file_is_looked_up_by_what_is_in_it(tmp_path: Path) -> None:
    own = tmp_path / "own.qcow2"
    own.write_bytes(disk(tmp_path / "disks", "own"))
    store = ImageStore(tmp_path / "cache", more=[])
    assert store.find(str(own)) is None
    assert store.verify(str(own)) != []
    image = store.get(str(own), Deadline(60))
    assert store.find(str(own)) == image
    assert store.verify(str(own)) == []
    assert store.key(str(own)) == image.directory.name
    assert image.manifest["kind"] == "file"
    assert str(own) in image.manifest["origin"]["trusted_by"]
    own.write_bytes(disk(tmp_path / "disks", "another"))
    assert store.find(str(own)) is None


def test_a_file_of_the_users_own_is_never_taken_for_a_published_image(publisher: Publisher, tmp_path: Path) -> None:
    """Although the cache's name for it may be that of an image in a catalogue."""
    own = tmp_path / "own.qcow2"
    own.write_bytes(disk(tmp_path / "disks", "mine"))
    catalog = publisher.catalog(tmp_path / "config", publisher.entry("file-own"))
    store = ImageStore(tmp_path / "cache", progress=Progress(notices(lambda _: None)), more=[catalog])
    assert store.get(str(own), Deadline(60)).name == "file-own"
    assert store.find("file-own") is None
    assert marker_of(store.get("file-own", Deadline(60)).disk) == b"first"


def test_a_damaged_copy_is_fetched_again(publisher: Publisher, tmp_path: Path) -> None:
    told: list[str] = []
    store = store_of(publisher, tmp_path, told=told)
    first = store.get("theirs", Deadline(60))
    first.directory.chmod(0o700)
    first.disk.chmod(0o600)
    first.disk.write_bytes(b"damaged")
    assert store.find("theirs") is None
    assert marker_of(store.get("theirs", Deadline(60)).disk) == b"first"
    assert [line for line in told if "damaged" in line and "fetched again" in line]


def test_what_is_made_otherwise_is_said_to_be(publisher: Publisher, tmp_path: Path) -> None:
    store = store_of(publisher, tmp_path)
    with pytest.raises(UsageError, match="fetched from its publisher, not built") as caught:
        store.build("theirs", Deadline(60))
    assert caught.value.hint == "vmlab image pull theirs"
    with pytest.raises(UsageError, match="built on this machine, not fetched") as caught:
        store.pull("debian-13", Deadline(60))
    assert caught.value.hint == "vmlab image build debian-13"
    with pytest.raises(UsageError, match="a file of your own") as caught:
        store.pull("./disk.qcow2", Deadline(60), source=tmp_path / "disk.qcow2")
    assert caught.value.hint == "vmlab run LAB --image ./disk.qcow2"
    assert store.verify("theirs") == ["theirs was not fetched yet"]
    assert store.key("theirs") == "theirs-published"


def test_a_download_that_is_interrupted_is_gone_on_from(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half, bring = disk(tmp_path / "disks", "first")[:100_000], curl.bring

    def interrupted(request: curl.Request, progress: Progress, deadline: Deadline) -> None:
        if request.url.endswith(("SHA512SUMS", ".gpg")):
            return bring(request, progress, deadline)
        request.part.write_bytes(half)
        raise KeyboardInterrupt

    store = store_of(publisher, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(curl, "bring", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.pull("theirs", Deadline(60))
    (left,) = (tmp_path / "cache" / "partial").rglob("*.part")
    assert left.read_bytes() == half
    # And a server that knows no ranges, like this one, sends it all again.
    assert marker_of(store.pull("theirs", Deadline(60)).disk) == b"first"
    assert publisher.asked.count("/disk.qcow2") == 2
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_an_image_that_would_show_the_guest_a_file_of_the_host_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(b"secret".ljust(2 << 20, b"\0"))
    backed, data = tmp_path / "backed.qcow2", tmp_path / "data.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(backed)], check=True)
    options = f"data_file={secret},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(data), "2M"], check=True)
    store = ImageStore(tmp_path / "cache", more=[])
    for path in (backed, data):
        with pytest.raises(ImageError, match="refers to another file"):
            store.get(str(path), Deadline(60))
    torn = tmp_path / "torn.qcow2"
    torn.write_bytes(disk(tmp_path / "disks", "torn")[:100])
    with pytest.raises(ImageError, match="torn"):
        store.get(str(torn), Deadline(60))
    with pytest.raises(UsageError, match="there is no image file"):
        store.get(str(tmp_path / "none.qcow2"), Deadline(60))


def test_the_command_line_pulls_lists_verifies_and_imports(publisher: Publisher, tmp_path: Path, vmlab: Vmlab) -> None:
    catalog = str(publisher.catalog(tmp_path / "config", publisher.entry("theirs")))
    env = {"VMLAB_CACHE": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "none")}
    rows = json.loads(vmlab("--catalog", catalog, "image", "list", "--json", env=env).stdout)
    assert [row["cached"] for row in rows if row["name"] == "theirs"] == [False]
    pulled = vmlab("--catalog", catalog, "image", "pull", "theirs", env=env)
    assert pulled.returncode == 0, pulled.stderr
    assert publisher.fingerprint in pulled.stdout
    assert vmlab("image", "verify", "theirs", env={**env, "VMLAB_CATALOG": catalog}).stdout == "theirs: sound\n"
    assert "there is no image theirs" in vmlab("image", "verify", "theirs", env=env).stderr
    refused = vmlab("image", "pull", "debian-13", env=env)
    assert refused.returncode == 2
    assert "image build debian-13" in refused.stderr
    (publisher.root / "disk.qcow2").write_bytes(b"not it")
    other = {**env, "VMLAB_CACHE": str(tmp_path / "other")}
    wrong = vmlab("--catalog", catalog, "image", "pull", "theirs", env=other)
    assert wrong.returncode not in (0, 1)
    assert "Traceback" not in wrong.stderr


def test_two_pulls_at_once_fetch_one_file(publisher: Publisher, tmp_path: Path) -> None:
    catalog = publisher.catalog(tmp_path / "config", publisher.entry("theirs"))
    argv = [sys.executable, "-m", "vmlab", "--catalog", str(catalog), "image", "pull", "theirs"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "runner"), "VMLAB_CACHE": str(tmp_path / "cache")}
    pulls = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    said = [pull.communicate(timeout=100)[0] for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0, 0], said
    assert publisher.asked.count("/disk.qcow2") == 1
    assert sum("is what its publisher has" in text for text in said) == 2


def test_a_pull_that_is_killed_hinders_nobody(publisher: Publisher, tmp_path: Path) -> None:
    catalog = publisher.catalog(tmp_path / "config", publisher.entry("theirs"))
    store = ImageStore(tmp_path / "cache" / "images", progress=Progress(notices(lambda _: None)), more=[catalog])
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from vmlab.deadline import Deadline; from vmlab.image import store; from vmlab.image.sources import published\n"
        "published.make_disk = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.ImageStore(Path(sys.argv[1]), more=[Path(sys.argv[2])]).pull('theirs', Deadline(60))"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "cache" / "images"), str(catalog)]
    killed = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT / "runner")}, check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    assert store.find("theirs") is None
    assert marker_of(store.pull("theirs", Deadline(60)).disk) == b"first"
    # What the first had fetched was whole, and is not fetched again.
    assert publisher.asked.count("/disk.qcow2") == 1
