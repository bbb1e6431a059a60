"""The cloud-init seed: a NoCloud data volume, rendered from ``cloud-init/`` and written as an ISO 9660 image labelled ``cidata``."""

from __future__ import annotations

import io
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pycdlib
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vmlab.paths import data_dir


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key in OpenSSH's two text forms. RSA would cost the guest seconds under emulation and is no stronger."""

    private: str
    public: str

    @classmethod
    def new(cls, comment: str) -> KeyPair:
        """A fresh pair."""
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()).decode()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        return cls(private, f"{public} {comment}")


@dataclass(frozen=True)
class Identity:
    """Who a guest is, made anew for each: the client key that opens it and the host key that it proves itself with."""

    hostname: str
    instance_id: str
    client: KeyPair
    host: KeyPair

    @classmethod
    def new(cls, name: str) -> Identity:
        """A fresh identity for the guest of this name."""
        hostname = new_hostname(name)
        return cls(hostname, f"vmlab-{uuid.uuid4()}", KeyPair.new("vmlab-client"), KeyPair.new(hostname))


def new_hostname(name: str) -> str:
    """A host name that says which guest it is and that no other run's guest has, so that two outputs side by side can be told apart."""
    return f"{name}-{secrets.token_hex(3)}"


def render(identity: Identity, *, user: str, extra: Mapping[str, Any], idle: Sequence[str] = ()) -> dict[str, str]:
    """The files of the seed by name; ``extra`` is the lab's own cloud-config, merged into ours (lists are joined, ours first).

    ``idle`` are the MAC addresses of interfaces that the guest's boot is to leave alone.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("cloud-init")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  (they make YAML; each value passes through tojson, and JSON is YAML)
        keep_trailing_newline=True,
    )
    values = {"identity": identity, "user": user, "idle": idle}
    files = {name: environment.get_template(f"{name}.j2").render(values) for name in ("user-data", "meta-data", "network-config")}
    if extra:
        merged = merge(yaml.safe_load(files["user-data"]), extra)
        files["user-data"] = "#cloud-config\n" + yaml.safe_dump(merged, sort_keys=False)
    return files


def merge(ours: Any, extra: Any) -> Any:
    """Two YAML values as one: objects member by member, lists joined, anything else taken from ``extra``."""
    if isinstance(ours, dict) and isinstance(extra, Mapping):
        return {**ours, **{key: merge(ours[key], value) if key in ours else value for key, value in extra.items()}}
    if isinstance(ours, list) and isinstance(extra, list):
        return [*ours, *extra]
    return extra


def write_iso(files: Mapping[str, str], path: Path) -> None:
    """Write the volume. Joliet and Rock Ridge both carry the lower-case names that cloud-init looks for."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/SEED{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
