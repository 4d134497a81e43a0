"""The helper process that forks the children: single-threaded, it reads messages and reaps. See `processes`."""

import contextlib
import gc
import json
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn, cast

from pra_agent.kernel import die_with_parent

_PACKET = 65536
_MAX_DESCRIPTORS = 8


def serve(channel: socket.socket, daemon: int) -> NoReturn:
    """Fork children as asked until the daemon closes its end or ends; then end them all."""
    try:
        die_with_parent(daemon, signal.SIGKILL)
    except ProcessLookupError:
        os._exit(1)
    # What is here stays: the collector must not touch, and so copy, pages that are shared with the daemon.
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _noted)
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    children: dict[int, int] = {}  # pid -> token
    try:
        while True:
            ready, _, _ = select.select([channel.fileno(), readable], [], [])
            if readable in ready:
                os.read(readable, 4096)
            _reap(channel, children)
            if channel.fileno() in ready and not _obey(channel, children, (readable, writable)):
                break
    finally:
        for pid in children:
            _kill(pid, signal.SIGKILL, group=True)
        os._exit(0)


def _noted(_number: int, _frame: object) -> None:
    """Wake `select` through the wakeup descriptor; that is all."""


def _obey(channel: socket.socket, children: dict[int, int], own: Sequence[int]) -> bool:
    packet, descriptors, _, _ = socket.recv_fds(channel, _PACKET, _MAX_DESCRIPTORS)
    if not packet:
        return False
    try:
        message = cast("Mapping[str, int]", json.loads(packet))
        if "derived" in message:
            _remember(cast("Mapping[str, Mapping[str, str]]", message)["derived"])
        elif "spawn" in message:
            _spawn(channel, children, message["spawn"], (*own, channel.fileno()), descriptors)
        else:
            pid = next((pid for pid, token in children.items() if token == message["signal"]), 0)
            if pid:
                _kill(pid, message["number"], group=bool(message["group"]))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return True


def _remember(entries: Mapping[str, str]) -> None:
    """Keep key derivations for the children to come."""
    from pra_agent.repository import derivations  # noqa: PLC0415  tests have spawners without a repository

    derivations.adopt({bytes.fromhex(key): bytes.fromhex(value) for key, value in entries.items()})


def _spawn(
    channel: socket.socket, children: dict[int, int], token: int, own: Sequence[int], descriptors: Sequence[int]
) -> None:
    spawner = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        channel.send(json.dumps({"token": token, "error": str(error)}).encode())
        return
    if pid == 0:
        _become(spawner, own, descriptors)
    # The child does the same; whoever comes first, a signal to the group never misses it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)
    children[pid] = token
    channel.send(json.dumps({"token": token, "pid": pid}).encode())


def _become(spawner: int, own: Sequence[int], descriptors: Sequence[int]) -> NoReturn:
    """Turn the fork into the child: its own group and signals, its descriptors, then its work."""
    status = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(spawner, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in own:
            os.close(descriptor)
        payload, stderr, *rest = descriptors
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        os.close(null)
        os.close(stderr)
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115  open for good
        with os.fdopen(payload, "rb") as task_file:
            task_file.seek(0)
            from pra_agent.daemon import child  # noqa: PLC0415  the spawner itself stays small

            task = pickle.load(task_file)  # noqa: S301  our own daemon wrote it into a memfd
        status = child.main(task, rest)
    except BaseException:  # noqa: BLE001  whatever it was: it is told on stderr, and the process ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap(channel: socket.socket, children: dict[int, int]) -> None:
    while children:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        # What it left in its group (workers) goes with it; while it is not reaped, its number is not another's.
        _kill(ended.si_pid, signal.SIGKILL, group=True)
        _, status = os.waitpid(ended.si_pid, 0)
        token = children.pop(ended.si_pid, None)
        if token is not None:
            channel.send(json.dumps({"token": token, "status": os.waitstatus_to_exitcode(status)}).encode())


def _kill(pid: int, number: int, *, group: bool) -> None:
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return
