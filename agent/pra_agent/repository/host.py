"""This host and process, as locks, key slots and snapshots name them."""

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class Host:
    """Who works. `node` is the configured name; `boot_time` is in seconds since the epoch, 0 when unknown.

    `machine_id` and `boot_id` are "" where the system does not tell.
    """

    node: str
    hostname: str
    machine_id: str
    boot_id: str
    boot_time: int
    username: str
    uid: int
    gid: int
    pid: int


def this_host(node: str) -> Host:
    """Describe this host and process; `node` is the configured name ("" takes the host name)."""
    uid = os.getuid()
    try:
        username = pwd.getpwuid(uid).pw_name
    except KeyError:
        username = str(uid)
    hostname = socket.gethostname()
    return Host(
        node=node or hostname,
        hostname=hostname,
        machine_id=next((text for path in _MACHINE_ID if (text := _read(path))), ""),
        boot_id=_read(_BOOT_ID),
        boot_time=_boot_time(),
        username=username,
        uid=uid,
        gid=os.getgid(),
        pid=os.getpid(),
    )


def process_start(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None when it is dead.

    With the boot id it tells a process from a later one of the same pid (proc(5), field 22 of stat).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in {"Z", "X"}:
        return None
    return int(fields[19])


def pid_namespace() -> str:
    """Name the pid namespace of this process ("" when unknown): in another one pids mean other processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _boot_time() -> int:
    for line in _read(_STAT).splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0
