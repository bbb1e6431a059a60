"""The quick way into a clone: a small SSH server that waits in the template beside sshd, on a port of its own.

OpenSSH from version 10 on executes two programs, of some twenty shared libraries each, for every connection. Emulated, that is half of
the time to a clone's first command, and most of the memory that a clone has to itself. Dropbear forks, and has everything in memory.
A guest that has no dropbear is reached through its sshd; so is one with a version before 2024 (Debian 12 has 2022.83), which now and then
refused to start a command. OpenSSH before version 10 executes nothing for a connection anyway.
"""

from __future__ import annotations

import contextlib
import logging

from vmlab.deadline import Deadline
from vmlab.errors import SshError
from vmlab.guest import qemu
from vmlab.guest.machine import Machine
from vmlab.guest.ssh import Connection

log = logging.getLogger(__name__)

# The same host key as sshd's, by which the guest is known; no passwords (-s), no forwarding of ports (-j, -k), no greeting (-m), and a
# receive window with room for a script in one piece (-W). The waiting server keeps nothing open that the session which starts it has.
SCRIPT = f"""
command -v dropbear >/dev/null && command -v dropbearconvert >/dev/null || exit 77
case $(dropbear -V 2>&1) in *v201*|*v202[0-3].*) exit 77 ;; esac
mkdir -p /run/vmlab && cd / || exit 1
(umask 077 && dropbearconvert openssh dropbear /etc/ssh/ssh_host_ed25519_key /run/vmlab/host_key) || exit 1
dropbear -s -j -k -m -W 262144 -r /run/vmlab/host_key -p {qemu.CONTROL_PORT} -P /run/dropbear.pid </dev/null >/dev/null 2>&1 || exit 1
rm /run/vmlab/host_key
"""
_MISSING = 77


def listen(machine: Machine, deadline: Deadline) -> bool:
    """Start the server in the guest and log in to it once. False when the guest has none that works: its sshd does the same, slower."""
    started = machine.ssh.execute(SCRIPT, deadline=deadline)
    if started.status == _MISSING:
        return False
    if started.status != 0:
        log.warning("the guest's dropbear does not start, so that clones will be reached through sshd: %s", started.stderr.strip()[-300:])
        return False
    try:
        # Whatever a login reads from the disk is in memory then, in each clone too.
        with contextlib.closing(Connection.connect(machine.control_port, machine.identity, user="root", deadline=deadline)) as rehearsal:
            rehearsal.execute("true", deadline=deadline)
    except SshError as exc:
        machine.check_alive()
        log.warning("the guest's dropbear lets nobody in, so that clones will be reached through sshd: %s", exc.message)
        return False
    return True
