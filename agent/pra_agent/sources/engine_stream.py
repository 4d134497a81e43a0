"""The stdout and stdin of a command inside a container, over the engine's multiplexed stream."""

import contextlib
import io
import re
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import docker.errors
import requests.exceptions

from pra_agent.errors import CommandError, Interrupted

CHUNK = 1 << 18
PID_LINE = b"pra-agent-pid:"
#: What the SDK raises when the engine refuses, or is not there.
TROUBLE = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)
_STDERR_KEPT = 4096
_POLL_SECONDS = 0.5
_HEADER = struct.Struct(">BxxxL")


@dataclass(slots=True)
class _Frames:
    """Takes the engine's multiplexed stream apart: 8 bytes of header, then a piece of stdout or stderr."""

    pending: bytearray = field(default_factory=bytearray)
    left: int = 0
    channel: int = 1

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self.pending += data
        while True:
            if self.left == 0:
                if len(self.pending) < _HEADER.size:
                    return
                self.channel, self.left = _HEADER.unpack_from(self.pending)
                del self.pending[: _HEADER.size]
                continue
            if not self.pending:
                return
            piece = bytes(self.pending[: self.left])
            del self.pending[: len(piece)]
            self.left -= len(piece)
            yield self.channel, piece

    @property
    def whole(self) -> bool:
        return self.left == 0 and not self.pending


class ExecStream(io.RawIOBase):
    """The stdout of a command inside a container; stderr is kept aside."""

    def __init__(
        self,
        api: Any,  # noqa: ANN401 (the SDK is not typed)
        exec_id: str,
        raw: Any,  # noqa: ANN401 (the socket as the SDK gives it)
        what: str,
        container: str,
        cancelled: Event | None,
    ) -> None:
        super().__init__()
        self.idle_limit = 3600.0
        self._api, self._id, self._what, self._container = api, exec_id, what, container
        self._raw = raw
        self._socket: socket.socket = getattr(raw, "_sock", raw)
        self._cancelled = cancelled
        self._frames = _Frames()
        self._ready: deque[bytes] = deque()
        self._stderr = bytearray()
        self._pid: int | None = None
        self._ended = False
        self._socket.setblocking(False)
        # What came in the same segment as the response's head waits in the response's own buffer.
        buffered = getattr(getattr(getattr(raw, "_response", None), "raw", None), "_fp", None)
        early = buffered.fp.read1(CHUNK) if buffered is not None and buffered.fp is not None else b""
        self._take(early or b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (a writable buffer)
        while not self._ready and not self._ended:
            self._receive()
        if not self._ready:
            return 0
        piece = self._ready.popleft()
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if count < len(piece):
            self._ready.appendleft(piece[count:])
        return count

    def _receive(self) -> None:
        data = self._recv(CHUNK)
        if data:
            self._take(data)
        else:
            self._ended = True

    def _recv(self, size: int) -> bytes:
        waited = 0.0
        while True:
            readable, _, _ = select.select([self._socket], [], [], _POLL_SECONDS)
            if readable:
                try:
                    return self._socket.recv(size)
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise CommandError(f"{self._what}: the engine went away ({first_line(error)})") from error
            waited += _POLL_SECONDS
            if self._cancelled is not None and self._cancelled.is_set():
                raise Interrupted(f"{self._what}: stopped, because the run ends")
            if waited >= self.idle_limit:
                raise CommandError(f"{self._what}: no byte for {self.idle_limit:.0f} s, so it was ended")

    def _take(self, data: bytes) -> None:
        for channel, piece in self._frames.feed(data):
            if channel == 2:
                self._take_stderr(piece)
            else:
                self._ready.append(piece)

    def _take_stderr(self, piece: bytes) -> None:
        self._stderr += piece
        if self._pid is None and (found := re.match(PID_LINE + rb"(\d+)\n", self._stderr)):
            self._pid = int(found[1])
            del self._stderr[: found.end()]
        del self._stderr[:-_STDERR_KEPT]

    def send(self, data: bytes | memoryview) -> None:
        """Write to the command's stdin, reading what it says meanwhile, so that neither side waits for ever."""
        view = memoryview(data)
        waited = 0.0
        while view:
            readable, writable, _ = select.select([self._socket], [self._socket], [], _POLL_SECONDS)
            try:
                if readable:
                    self._receive()
                    if self._ended:
                        self.finish()
                        raise CommandError(f"{self._what}: it ended before it had read everything")
                if writable:
                    view = view[self._socket.send(view) :]
                    waited = 0.0
                    continue
            except (BrokenPipeError, ConnectionResetError) as error:
                self._ended = True
                self.finish()
                raise CommandError(f"{self._what}: it ended before it had read everything") from error
            waited += _POLL_SECONDS
            if self._cancelled is not None and self._cancelled.is_set():
                raise Interrupted(f"{self._what}: stopped, because the run ends")
            if waited >= self.idle_limit:
                raise CommandError(f"{self._what}: it read nothing for {self.idle_limit:.0f} s")

    def close_stdin(self) -> None:
        """Tell the command that its input has ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def stderr(self) -> str:
        """The end of what the command said, in one line."""
        return " ".join(bytes(self._stderr).decode(errors="replace").split())[-600:]

    def exit_code(self) -> int:
        """Ask the engine how it ended; `CommandError` when it cannot tell."""
        try:
            state = self._api.exec_inspect(self._id)
        except TROUBLE as error:
            raise CommandError(f"{self._what}: the engine cannot tell how it ended ({first_line(error)})") from error
        code = state.get("ExitCode")
        if state.get("Running") or code is None:
            raise CommandError(f"{self._what}: its output ended while it was still running")
        return int(code)

    def finish(self) -> None:
        """Assert that the output is whole and that the command ended with 0."""
        while not self._ended:
            self._receive()
            self._ready.clear()
        if not self._frames.whole:
            raise CommandError(f"{self._what}: its output was cut off by the engine")
        code = self.exit_code()
        if code != 0:
            said = f": {self.stderr()}" if self._stderr else ""
            raise CommandError(f"{self._what} ended with {code}{said}")

    def kill(self) -> None:
        """End the command inside its container, as far as it can be reached."""
        with contextlib.suppress(*TROUBLE, CommandError):
            if self._pid is None or not self._api.exec_inspect(self._id).get("Running"):
                return
            killer = self._api.exec_create(self._container, ["sh", "-c", 'kill -9 "$0"', str(self._pid)])
            self._api.exec_start(killer["Id"], detach=True)

    def close(self) -> None:
        if not self.closed:
            response = getattr(self._raw, "_response", None)
            parts: list[Any] = [response, self._raw, self._socket]
            for part in parts:
                # Whoever closes first closes the others below it, which they take amiss.
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    part.close()
        super().close()


class Stdin(io.RawIOBase):
    """The writing end of a command inside a container."""

    def __init__(self, stream: ExecStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 (a readable buffer)
        self._stream.send(data)
        return len(data)


def first_line(error: BaseException) -> str:
    """What went wrong, in the engine's own words, as one line."""
    explanation = getattr(error, "explanation", None)
    text = str(explanation or error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
