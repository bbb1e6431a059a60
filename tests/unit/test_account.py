"""A command in a guest that another user than root runs."""

from __future__ import annotations

import os
import pwd
import subprocess
from typing import Any, cast

import pytest

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError
from vmlab.guest.account import Account, account
from vmlab.guest.command import CommandResult
from vmlab.guest.ssh import Connection


class Guest:
    """A connection to a guest with these rows in its user database."""

    def __init__(self, *rows: str) -> None:
        self.rows = {row.split(":")[0]: row for row in rows}
        self.asked = ""

    def execute(self, command: str, **_: Any) -> CommandResult:
        self.asked = command
        row = self.rows.get(command.rpartition(" ")[2], "")
        return CommandResult(command, 0 if row else 2, f"{row}\n" if row else "", "", 0.1)


def found(name: str, *rows: str) -> Account:
    return account(cast(Connection, Guest(*rows)), name, Deadline(10))


def test_an_account_is_a_row_of_the_guests_user_database() -> None:
    row = "nobody:x:65534:65533:nobody,,:/nonexistent:/usr/sbin/nologin"
    assert found("nobody", row) == Account("nobody", 65534, 65533, "/nonexistent")


@pytest.mark.parametrize("row", ["", "x", "x:x:abc:1::/:/bin/sh", "x:x:-1:1::/:/bin/sh", "x:x:1:1"])
def test_a_user_that_there_is_not_is_told_in_one_sentence(row: str) -> None:
    with pytest.raises(ScriptError, match="the guest has no user 'x'"):
        found("x", *([row] if row else []))


def test_a_name_is_no_shell_code() -> None:
    guest = Guest()
    with pytest.raises(ScriptError):
        account(cast(Connection, guest), "a; rm -rf /", Deadline(10))
    assert guest.asked == "getent passwd 'a; rm -rf /'"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")
@pytest.mark.parametrize("command", ["id -un; pwd", "printf '%s\\n' \"it's $(id -un)\" | sed \"s/it's //\"; pwd", "id -un\npwd # the end"])
def test_a_command_is_run_as_the_user_with_its_mark(command: str) -> None:
    row = pwd.getpwnam("nobody")
    nobody = Account("nobody", row.pw_uid, row.pw_gid, "/nonexistent")
    line = nobody.running(f"{command}\necho $VMLAB_COMMAND $HOME $USER $LOGNAME; id -G; exit 3")
    done = subprocess.run(
        ["sh", "-c", line],
        cwd="/root",
        env={"PATH": os.environ["PATH"], "VMLAB_COMMAND": "mark"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.splitlines() == ["nobody", "/", "mark /nonexistent nobody nobody", str(row.pw_gid)], done.stderr
    assert done.returncode == 3
