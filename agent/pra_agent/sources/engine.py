"""The one door to the Docker engine: containers, volumes, and commands inside containers.

The SDK's own stream ends without an exception when the engine, the container or the process dies in
mid-stream, so that half a dump would look whole. Here a command has ended well only when the engine,
asked afterwards, tells exit code 0.
"""

import contextlib
import io
import os
import re
import select
import socket
import struct
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, BinaryIO, Self, cast

import docker
import docker.errors
import requests.exceptions

from pra_agent.errors import CommandError, SourceError

_CHUNK = 1 << 18
_STDERR_KEPT = 4096
_POLL_SECONDS = 0.5
_PID_LINE = b"pra-agent-pid:"
#: Tells its own process id first, so that the command can be ended; nothing is interpolated into it.
_WRAPPER = ("sh", "-c", f'printf "{_PID_LINE.decode()}%s\\n" "$$" >&2; exec "$@"', "sh")
_HEADER = struct.Struct(">BxxxL")
_TROUBLE = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command inside a container gave: its exit code, output and the end of its stderr."""

    code: int
    stdout: bytes
    stderr: str


class Engine:
    """A connection to one Docker engine. Errors are `SourceError` and `CommandError`, in one line."""

    def __init__(self, url: str | None = None, *, timeout: float = 60) -> None:
        address = url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        try:
            _knock(address)
            self._client = docker.DockerClient(base_url=address, timeout=int(timeout))
        except _TROUBLE as error:
            raise SourceError(
                f"the Docker engine does not answer: {_first_line(error)}",
                advice="Start it, or give the agent access to its socket (see the drop-in for docker).",
            ) from error

    @property
    def api(self) -> Any:  # noqa: ANN401 (the SDK is not typed)
        """The SDK's low-level client."""
        return self._client.api

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def inspect(self, container: str) -> dict[str, Any]:
        """Tell all about a container by name or id; `SourceError` when there is none."""
        with _told(f"container {container}"):
            return cast("dict[str, Any]", self.api.inspect_container(container))

    def containers(self, filters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """List all containers, stopped ones included."""
        with _told("the list of containers"):
            return cast("list[dict[str, Any]]", self.api.containers(all=True, filters=dict(filters or {})))

    def run(
        self,
        container: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        timeout: float = 300,
        cancelled: Event | None = None,
    ) -> Finished:
        """Run a command to its end and keep its output (for small outputs); never raises for its exit code."""
        stream = self._start(container, argv, env=env, user=user, stdin=False, cancelled=cancelled)
        stream.idle_limit = timeout
        with contextlib.closing(stream):
            output = stream.readall()
            code = stream.exit_code()
        return Finished(code, output, stream.stderr())

    @contextlib.contextmanager
    def stream(
        self,
        container: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        idle_limit: float = 3600,
        cancelled: Event | None = None,
    ) -> Generator[BinaryIO, None, None]:
        """Read a command's stdout; leaving without an error asserts that it ran to its end with exit code 0.

        `idle_limit`: seconds without a byte after which it counts as hung. When left early it is killed.
        """
        stream = self._start(container, argv, env=env, user=user, stdin=False, cancelled=cancelled)
        stream.idle_limit = idle_limit
        try:
            yield io.BufferedReader(stream, _CHUNK)
            stream.finish()
        except BaseException:
            stream.kill()
            raise
        finally:
            stream.close()

    @contextlib.contextmanager
    def feed(
        self,
        container: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        idle_limit: float = 3600,
        cancelled: Event | None = None,
    ) -> Generator[BinaryIO, None, None]:
        """Write to a command's stdin; leaving without an error asserts exit code 0."""
        stream = self._start(container, argv, env=env, user=user, stdin=True, cancelled=cancelled)
        stream.idle_limit = idle_limit
        try:
            yield cast("BinaryIO", _Stdin(stream))
            stream.close_stdin()
            stream.readall()
            stream.finish()
        except BaseException:
            stream.kill()
            raise
        finally:
            stream.close()

    def _start(
        self,
        container: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        user: str,
        stdin: bool,
        cancelled: Event | None,
    ) -> "_ExecStream":
        with _told(f"{argv[0]} in container {container}"):
            created = self.api.exec_create(
                container,
                [*_WRAPPER, *argv],
                stdin=stdin,
                user=user,
                environment=dict(env or {}),
            )
            raw = self.api.exec_start(created["Id"], socket=True)
        return _ExecStream(self, created["Id"], raw, f"{argv[0]} in container {container}", container, cancelled)


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


class _ExecStream(io.RawIOBase):
    """The stdout of a command inside a container; stderr is kept aside."""

    def __init__(
        self,
        engine: Engine,
        exec_id: str,
        raw: Any,  # noqa: ANN401 (the socket as the SDK gives it)
        what: str,
        container: str,
        cancelled: Event | None,
    ) -> None:
        super().__init__()
        self.idle_limit = 3600.0
        self._engine, self._id, self._what, self._container = engine, exec_id, what, container
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
        early = buffered.fp.read1(_CHUNK) if buffered is not None and buffered.fp is not None else b""
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
        data = self._recv(_CHUNK)
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
                    raise CommandError(f"{self._what}: the engine went away ({_first_line(error)})") from error
            waited += _POLL_SECONDS
            if self._cancelled is not None and self._cancelled.is_set():
                raise CommandError(f"{self._what}: stopped, because the run ends")
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
        if self._pid is None and (found := re.match(_PID_LINE + rb"(\d+)\n", self._stderr)):
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
                raise CommandError(f"{self._what}: stopped, because the run ends")
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
            state = self._engine.api.exec_inspect(self._id)
        except _TROUBLE as error:
            raise CommandError(f"{self._what}: the engine cannot tell how it ended ({_first_line(error)})") from error
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
        with contextlib.suppress(*_TROUBLE, CommandError):
            if self._pid is None or not self._engine.api.exec_inspect(self._id).get("Running"):
                return
            killer = self._engine.api.exec_create(self._container, ["sh", "-c", 'kill -9 "$0"', str(self._pid)])
            self._engine.api.exec_start(killer["Id"], detach=True)

    def close(self) -> None:
        if not self.closed:
            response = getattr(self._raw, "_response", None)
            parts: list[Any] = [response, self._raw, self._socket]
            for part in parts:
                # Whoever closes first closes the others below it, which they take amiss.
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    part.close()
        super().close()


class _Stdin(io.RawIOBase):
    """The writing end of a command inside a container."""

    def __init__(self, stream: _ExecStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 (a readable buffer)
        self._stream.send(data)
        return len(data)


@contextlib.contextmanager
def _told(what: str) -> Generator[None, None, None]:
    try:
        yield
    except docker.errors.NotFound as error:
        raise SourceError(f"{what}: not found", advice="Check the name with docker ps -a.") from error
    except _TROUBLE as error:
        raise SourceError(f"{what}: {_first_line(error)}") from error


def _knock(address: str) -> None:
    """Raise OSError when nobody listens: the SDK would leave its own socket open then."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address.removeprefix("unix://"))


def _first_line(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None)
    text = str(explanation or error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
