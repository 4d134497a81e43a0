"""HTTP connections over the Unix socket, lent and taken back."""

import contextlib
import os
import socket
import threading
from collections.abc import Generator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Final

from pra_agent.errors import AccessDenied, DaemonUnreachable, PraError

#: Seconds without a byte after which the daemon counts as gone. Opening a large repository takes its time.
PATIENCE: Final = 330.0


class Connection(HTTPConnection):
    """One connection; `ask` sends a request and reads the head of its answer."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect; raises `DaemonUnreachable` or `AccessDenied`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(os.fsencode(self._path))
        except PermissionError as error:
            sock.close()
            raise AccessDenied(
                f"{self._path}: this user may not talk to the daemon",
                advice="Ask root, or have your group added to control.run or control.read.",
            ) from error
        except OSError as error:
            sock.close()
            raise DaemonUnreachable(f"{self._path}: {error.strerror}") from error
        self.sock = sock

    def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> HTTPResponse:
        """Send a request; raises `DaemonUnreachable` when the daemon goes away before it answers."""
        try:
            # A server that refuses early need not read the whole body; its answer is there all the same.
            with contextlib.suppress(BrokenPipeError):
                self.request(method, path, body=body or None, headers=headers)
            return self.getresponse()
        except (OSError, HTTPException) as error:
            raise DaemonUnreachable(f"{self._path}: the daemon does not answer: {error!s:.200}") from error


class Connections:
    """A pool: a connection is lent to one user at a time, and kept when its answer was read to the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[Connection] = []
        self._mutex = threading.Lock()

    @contextlib.contextmanager
    def lend(self) -> Generator[Connection, None, None]:
        """Lend a connection; an error inside, or an answer that was not read to its end, closes it."""
        connection = self._take()
        try:
            yield connection
        except (OSError, HTTPException) as error:
            connection.close()
            raise DaemonUnreachable(f"{self._path}: the connection to the daemon broke: {error}") from error
        except PraError:
            connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def close(self) -> None:
        """Close those that are idle."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection:
        while True:
            with self._mutex:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return Connection(self._path)
            if _alive(connection):
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        # http.client knows no public way to ask whether the answer was read; sending the next request would tell.
        response = getattr(connection, "_HTTPConnection__response", None)
        if connection.sock is None or (response is not None and not response.isclosed()):
            connection.close()
            return
        with self._mutex:
            self._idle.append(connection)


def _alive(connection: Connection) -> bool:
    """Tell whether an idle connection is still open: one that the daemon closed is readable."""
    if connection.sock is None:
        return False
    try:
        connection.sock.setblocking(False)
        try:
            return bool(connection.sock.recv(1, socket.MSG_PEEK)) and False
        finally:
            connection.sock.settimeout(PATIENCE)
    except BlockingIOError:
        return True
    except OSError:
        return False
