"""The cloud-init seed: what is in it, and that nothing in it can break out of its place."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import paramiko
import pycdlib
import yaml

from vmlab.guest.seed import Identity, KeyPair, merge, render, write_iso


def test_the_guest_gets_its_host_key_the_client_key_and_its_name() -> None:
    identity = Identity.new("main")
    data = yaml.safe_load(render(identity, user="student", extra={})["user-data"])
    assert data["hostname"] == identity.hostname
    assert re.fullmatch(r"main-[0-9a-f]{6}", identity.hostname)
    assert data["ssh_keys"]["ed25519_private"] == identity.host.private
    assert data["ssh_keys"]["ed25519_public"] == identity.host.public
    assert [user["name"] for user in data["users"]] == ["root", "student"]
    assert all(user["ssh_authorized_keys"] == [identity.client.public] for user in data["users"])


def test_user_data_begins_as_cloud_init_demands() -> None:
    identity = Identity.new("main")
    for extra in ({}, {"bootcmd": ["true"]}):
        assert render(identity, user="student", extra=extra)["user-data"].startswith("#cloud-config\n")


def test_meta_data_names_the_instance() -> None:
    identity = Identity.new("main")
    meta = yaml.safe_load(render(identity, user="student", extra={})["meta-data"])
    assert meta == {"instance-id": identity.instance_id, "local-hostname": identity.hostname}


def test_two_guests_share_no_key_and_no_instance_id() -> None:
    one, other = Identity.new("main"), Identity.new("main")
    assert len({one.client.private, one.host.private, other.client.private, other.host.private}) == 4
    assert one.instance_id != other.instance_id
    assert one.hostname != other.hostname


def test_a_value_with_yaml_in_it_stays_a_value() -> None:
    identity = replace(Identity.new("main"), hostname='evil"\nruncmd: [reboot]\n#')
    data = yaml.safe_load(render(identity, user="student", extra={})["user-data"])
    assert "runcmd" not in data
    assert data["hostname"] == 'evil"\nruncmd: [reboot]\n#'


def test_the_labs_cloud_config_is_merged_into_ours() -> None:
    identity = Identity.new("main")
    extra = {"write_files": [{"path": "/x", "content": "y"}], "users": [{"name": "eve"}]}
    data = yaml.safe_load(render(identity, user="student", extra=extra)["user-data"])
    assert data["write_files"][0]["path"] == "/etc/hosts"
    assert data["write_files"][1:] == [{"path": "/x", "content": "y"}]
    assert [user["name"] for user in data["users"]] == ["root", "student", "eve"]


def test_merge_joins_lists_and_objects_and_lets_the_lab_win() -> None:
    assert merge({"a": [1], "b": {"c": 1, "d": 2}}, {"a": [2], "b": {"c": 3}, "e": 4}) == {"a": [1, 2], "b": {"c": 3, "d": 2}, "e": 4}


def test_the_keys_are_openssh_keys() -> None:
    pair = KeyPair.new("comment")
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(pair.private))
    assert pair.public == f"ssh-ed25519 {key.get_base64()} comment"


def test_the_volume_is_labelled_cidata_and_holds_the_files(tmp_path: Path) -> None:
    files = {"user-data": "#cloud-config\n" + "x" * 5000, "meta-data": "a: 1\n", "network-config": "version: 2\n"}
    write_iso(files, tmp_path / "seed.iso")
    iso = pycdlib.PyCdlib()
    iso.open(str(tmp_path / "seed.iso"))
    assert iso.pvd.volume_identifier.decode().strip() == "cidata"
    for name, text in files.items():
        read = io.BytesIO()
        iso.get_file_from_iso_fp(read, rr_path=f"/{name}")
        assert read.getvalue().decode() == text
    iso.close()
