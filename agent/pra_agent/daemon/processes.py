"""Child processes of the daemon, forked by a helper that the daemon starts before it has threads.

Forking a process with threads is unsafe and executing a new interpreter for each run is slow, so a small helper (the
spawner) is forked first and forks all others: they start with what it has imported, and share its memory. Every child
leads a process group of its own and dies with the spawner, which dies with the daemon (PR_SET_PDEATHSIG, SIGKILL).

The daemon and the spawner talk over a SOCK_SEQPACKET pair: one JSON message a packet, descriptors beside it.
"""

import contextlib
import json
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import cast

from pra_agent.daemon import spawner
from pra_agent.errors import PraError

_PACKET = 65536


@dataclass(slots=True)
class Child:
    """A child process. `exited` gets its wait status (negative: the signal that ended it)."""

    token: int
    _processes: "Processes"
    pid: int = 0
    exited: "Future[int]" = field(default_factory=lambda: Future[int]())

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to it, or to its whole group; harmless when it has ended."""
        if not self.exited.done():
            self._processes.send({"signal": self.token, "number": number, "group": group})

    def alive(self) -> bool:
        """Whether it still runs."""
        return not self.exited.done()

    def wait(self, timeout: float) -> bool:
        """Wait for its end at most so many seconds; tell whether it has ended. It is reaped by the spawner."""
        with contextlib.suppress(TimeoutError):
            self.exited.result(timeout)
        return self.exited.done()

    def kill(self) -> None:
        """End it and its group at once. Harmless when it has ended already."""
        self.signal(signal.SIGKILL, group=True)


class Processes:
    """The daemon's end. `start` comes before any thread; the other methods may be called from any thread."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._sending = threading.Lock()
        self._children: dict[int, Child] = {}
        self._started: dict[int, Future[int]] = {}
        self._tokens = 0
        self._derived: Mapping[str, str] = {}
        self._reader: threading.Thread | None = None
        self._spawner_pid = 0
        self._closing = False
        #: Called (from a thread) when the spawner has died on its own.
        self.on_loss: Callable[[], object] = _nothing

    def start(self) -> None:
        """Fork the spawner."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            spawner.serve(theirs, parent)  # never returns
        theirs.close()
        self._spawner_pid = pid
        self._channel = ours
        self._reader = threading.Thread(target=self._read, name="spawner", daemon=True)
        self._reader.start()

    def spawn(self, task: object, descriptors: Sequence[int], *, stderr: int) -> Child:
        """Start a child that calls `child.main(task, descriptors)`; its output goes to `stderr`.

        The task is pickled, so that the child works with the daemon's own configuration and not with what the file
        says by then. The descriptors stay open in the caller. Raises `PraError` when no process can be had.
        """
        payload = os.memfd_create("task")
        try:
            with os.fdopen(os.dup(payload), "wb") as out:
                pickle.dump(task, out)
            started: Future[int] = Future()
            with self._sending:
                self._tokens += 1
                child = Child(self._tokens, self)
                self._children[child.token] = child
                self._started[child.token] = started
            self.send({"spawn": child.token}, (payload, stderr, *descriptors))
            try:
                child.pid = started.result(30)
            except TimeoutError:
                child.kill()
                raise PraError("the process for a run did not start within 30 s") from None
        finally:
            os.close(payload)
        return child

    def remember(self, derived: Mapping[str, str]) -> None:
        """Give key derivations (`repository.derivations`, in hex) to the children that are started from now on."""
        if self._derived != derived:
            self._derived = dict(derived)
            self.send({"derived": derived})

    def send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Send one message to the spawner; raises `PraError` when it is gone."""
        channel = self._channel
        if channel is None:
            raise PraError("the daemon's spawner does not run")
        try:
            with self._sending:
                socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
        except OSError as error:
            raise PraError(f"the daemon's spawner is gone: {error}") from error

    def close(self) -> None:
        """End the spawner and with it what still runs."""
        self._closing = True
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            if self._reader is not None:
                self._reader.join()
            self._channel.close()
            self._channel = None
            os.waitpid(self._spawner_pid, 0)

    def _read(self) -> None:
        channel = cast("socket.socket", self._channel)
        while packet := _receive(channel):
            message = cast("Mapping[str, int | str]", json.loads(packet))
            token = cast("int", message["token"])
            if "pid" in message:
                self._started.pop(token).set_result(cast("int", message["pid"]))
            elif "error" in message:
                self._children.pop(token, None)
                error = PraError(f"no process for a run: {message['error']}")
                self._started.pop(token).set_exception(error)
            elif (child := self._children.pop(token, None)) is not None:
                child.exited.set_result(cast("int", message["status"]))
        for child in list(self._children.values()):
            _settle(child.exited, -signal.SIGKILL)
        for future in list(self._started.values()):
            with contextlib.suppress(InvalidStateError):
                future.set_exception(PraError("the daemon's spawner is gone"))
        if not self._closing:
            self.on_loss()


def _receive(channel: socket.socket) -> bytes:
    try:
        return channel.recv(_PACKET)
    except OSError:
        return b""


def _settle(future: "Future[int]", status: int) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_result(status)


def _nothing() -> None:
    return
