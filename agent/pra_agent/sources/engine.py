"""The one door to the Docker engine: containers, volumes, and commands inside containers.

The SDK's own stream ends without an exception when the engine, the container or the process dies in
mid-stream, so that half a dump would look whole. Here a command has ended well only when the engine,
asked afterwards, tells exit code 0.
"""

import contextlib
import io
import os
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, BinaryIO, Self, cast

import docker
import docker.errors

from pra_agent.errors import SourceError
from pra_agent.sources.engine_stream import CHUNK, PID_LINE, TROUBLE, ExecStream, Stdin, first_line

#: Tells its own process id first, so that the command can be ended; nothing is interpolated into it.
_WRAPPER = ("sh", "-c", f'printf "{PID_LINE.decode()}%s\\n" "$$" >&2; exec "$@"', "sh")


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
        except TROUBLE as error:
            raise SourceError(
                f"the Docker engine does not answer: {first_line(error)}",
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

    def told(self, what: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 (the SDK is not typed)
        """Ask the SDK, and turn its errors into `SourceError` with `what` in front."""
        with _told(what):
            return call()

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
        started = self._start(container, argv, env=env, user=user, stdin=False, cancelled=cancelled)
        with _to_its_end(started, idle_limit) as stream:
            yield io.BufferedReader(stream, CHUNK)

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
        started = self._start(container, argv, env=env, user=user, stdin=True, cancelled=cancelled)
        with _to_its_end(started, idle_limit) as stream:
            yield cast("BinaryIO", Stdin(stream))
            stream.close_stdin()
            stream.readall()

    def _start(
        self,
        container: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        user: str,
        stdin: bool,
        cancelled: Event | None,
    ) -> "ExecStream":
        with _told(f"{argv[0]} in container {container}"):
            created = self.api.exec_create(
                container,
                [*_WRAPPER, *argv],
                stdin=stdin,
                user=user,
                environment=dict(env or {}),
            )
            raw = self.api.exec_start(created["Id"], socket=True)
        return ExecStream(self.api, created["Id"], raw, f"{argv[0]} in container {container}", container, cancelled)


@contextlib.contextmanager
def _to_its_end(stream: ExecStream, idle_limit: float) -> Generator[ExecStream, None, None]:
    """Assert on leaving that the command ended well; left by an error, it is killed."""
    stream.idle_limit = idle_limit
    try:
        yield stream
        stream.finish()
    except BaseException:
        stream.kill()
        raise
    finally:
        stream.close()


@contextlib.contextmanager
def _told(what: str) -> Generator[None, None, None]:
    try:
        yield
    except docker.errors.NotFound as error:
        raise SourceError(f"{what}: not found", advice="Check the name with docker ps -a.") from error
    except TROUBLE as error:
        raise SourceError(f"{what}: {first_line(error)}") from error


def _knock(address: str) -> None:
    """Raise OSError when nobody listens: the SDK would leave its own socket open then."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address.removeprefix("unix://"))
