"""The one door to child processes.

An argv list, never a shell; a limit of time on everything; a process group of its own, which is ended when the context
is left; no descriptors and no environment of the agent's but what is named here; no ambient capabilities unless asked.
Secrets go in by `env`, `input` or `stdin`, never by argv; the values of `env` are blotted out of messages.
"""

import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import BinaryIO, Protocol, Self, cast

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import CommandError, Interrupted
from pra_agent.kernel import drop_ambient_capabilities

#: What a child has of the agent's environment; the rest may hold secrets (credentials of the store, say).
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "JAVA_HOME")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 1 << 16
_TAIL_BYTES = 4096
_TAIL_LINES = 5
_TICK = 0.2
_GRACE = 5.0
_SHORTEST_SECRET = 4
_CONTROL = re.compile(r"[^\x20-\x7e\u00a1-\uffff]+")


class Readable(Protocol):
    """What can be fed to a child: read to its end."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended as it should. `stderr` is its end, for people."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """The output as text."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a child runs.

    `timeout` in seconds is for all of it. `env` is added to a minimal environment. `cancelled` ends it when it is set.
    `capabilities` leaves it the agent's ambient capabilities. `ok` are the exit statuses of success.
    """

    timeout: float
    env: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    cwd: str | None = None
    cancelled: Event | None = None
    capabilities: bool = False
    ok: Collection[int] = (0,)
    max_output: int = 64 << 20
    clock: Clock = field(default_factory=SystemClock)


def run(
    argv: Sequence[str],
    terms: Terms | None = None,
    *,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,  # noqa: A002 - subprocess calls it that as well
    stdin: Readable | None = None,
) -> Completed:
    """Run a command to its end, with `input` or all that `stdin` has as its standard input (else nothing).

    Raises CommandError when it cannot be started, ends with a status that is not `ok`, takes too long or says more
    than `max_output` bytes; Interrupted when `cancelled` was set; and what reading `stdin` raises.
    """
    child = _Child(argv, _terms(terms, timeout, env), feed=stdin if input is None else _Bytes(input))
    with child:
        output = child.collect()
        return Completed(child.finish(), output, child.tail())


@contextlib.contextmanager
def stream(
    argv: Sequence[str],
    terms: Terms | None = None,
    *,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Readable | None = None,
) -> Generator[BinaryIO]:
    """Start a command and give its standard output. Leaving the context asserts that it was the whole.

    The output must have been read to its end, and the exit status be `ok`; else CommandError, or Interrupted when
    `cancelled` was set. When an exception leaves the context the command is ended, and that exception goes on.
    """
    child = _Child(argv, _terms(terms, timeout, env), feed=stdin)
    with child:
        child.watch()
        yield child.stdout
        child.require_end()
        child.finish()


def _terms(terms: Terms | None, timeout: float | None, env: Mapping[str, str] | None) -> Terms:
    if terms is None:
        if timeout is None:
            raise ValueError("a command needs a timeout")
        return Terms(timeout, env or {})
    return terms


class _Bytes:
    """Bytes that can be fed."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, size: int = -1, /) -> bytes:
        piece = bytes(self._data[:size] if size >= 0 else self._data)
        self._data = self._data[len(piece) :]
        return piece


class _Child:
    """A running command. A context manager: leaving it ends the whole process group and closes everything."""

    def __init__(self, argv: Sequence[str], terms: Terms, *, feed: Readable | None) -> None:
        self._argv = list(argv)
        self._terms = terms
        self._feed = feed
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._threads: list[threading.Thread] = []
        self._feed_error: BaseException | None = None
        self._why = ""
        self._over = Event()
        #: Held while a signal is sent and while the command is reaped, so that no other group is hit.
        self._reaping = threading.Lock()
        self._deadline = terms.clock.monotonic() + terms.timeout
        self._process = self._start()
        self.stdout = cast("BinaryIO", self._process.stdout)

    # ---------------------------------------------------------------- life
    def __enter__(self) -> Self:
        self._thread(self._drain_stderr)
        if self._feed is not None:
            self._thread(self._write_stdin)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._end()
        for thread in self._threads:
            # Who feeds standard input may be waiting for something of its own; it ends with its next read.
            thread.join(_GRACE)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        terms = self._terms
        environment = {"PATH": _PATH, "LANG": "C.UTF-8"}
        environment.update({name: os.environ[name] for name in INHERITED if name in os.environ})
        environment.update(terms.env)

        def start() -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL if self._feed is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=terms.cwd,
                start_new_session=True,
                close_fds=True,
            )

        try:
            return start() if terms.capabilities or not _has_ambient() else _without_ambient(start)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CommandError(
                f"{self.name}: cannot be started: {reason}",
                advice="Check that the program is installed and in the PATH of the agent.",
            ) from error

    @property
    def name(self) -> str:
        """The command for messages: its program and subcommand, no data."""
        return shlex.join(self._argv[:2]) if self._argv else "(nothing)"

    def _thread(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"command {self._process.pid}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # ---------------------------------------------------------------- pipes
    def _drain_stderr(self) -> None:
        pipe = cast("BinaryIO", self._process.stderr)
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(pipe.fileno(), _CHUNK):
                self._tail.append(piece[-_TAIL_BYTES:])
                self._tail_size += len(self._tail[-1])
                while self._tail_size - len(self._tail[0]) > _TAIL_BYTES:
                    self._tail_size -= len(self._tail.popleft())

    def _write_stdin(self) -> None:
        pipe, feed = cast("BinaryIO", self._process.stdin), cast("Readable", self._feed)
        try:
            while not self._over.is_set() and (piece := feed.read(1 << 20)):
                pipe.write(piece)
            pipe.close()
        except BrokenPipeError:
            # A command may stop reading early; its exit status tells whether that was right.
            return
        except BaseException as error:  # noqa: BLE001 - raised again by finish()
            self._feed_error = error
            self._kill("its input could not be read")

    def collect(self) -> bytes:
        """Read standard output to its end, or until the command has ended; watches time and cancellation."""
        pieces: list[bytes] = []
        size = 0
        fd = self.stdout.fileno()
        with _Pidfd(self._process.pid) as pidfd:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.register(pidfd, select.POLLIN)
            while True:
                ready = dict(poll.poll(_TICK * 1000))
                self._check_time()
                if fd in ready:
                    piece = os.read(fd, _CHUNK)
                    if not piece:
                        break
                    pieces.append(piece)
                    size += len(piece)
                    if size > self._terms.max_output:
                        self._kill(f"it says more than {self._terms.max_output} bytes")
                elif pidfd in ready:
                    # It has ended; what it started may hold the pipe open, and is ended with it.
                    self._end()
                    pieces.append(self.stdout.read())
                    break
        return b"".join(pieces)

    def watch(self) -> None:
        """Watch time and cancellation while somebody else reads standard output."""

        def look() -> None:
            ended = 0
            while not self._over.wait(_TICK):
                self._check_time()
                ended += not self._running()
                if ended * _TICK > _GRACE:
                    # What it left behind holds its output open.
                    self._signal(signal.SIGKILL)

        self._thread(look)

    def require_end(self) -> None:
        """Raise CommandError when standard output has not been read to its end."""
        if self.stdout.read(1):
            self._kill("its output was not read to the end")

    # ---------------------------------------------------------------- the end
    def _check_time(self) -> None:
        cancelled = self._terms.cancelled
        if cancelled is not None and cancelled.is_set():
            self._kill("cancelled")
        elif self._terms.clock.monotonic() >= self._deadline:
            self._kill(f"it took longer than {self._terms.timeout:g} s")

    def _kill(self, why: str) -> None:
        if not self._why:
            self._why = why
            self._signal(signal.SIGKILL)

    def finish(self) -> int:
        """Wait for the end, within the limit of time; the exit status, or the error that it stands for."""
        while self._running():
            self._over.wait(0.01)
            self._check_time()
        self._end()
        status = self._process.returncode
        for thread in self._threads[:1]:
            thread.join()
        if self._why == "cancelled":
            raise Interrupted(f"{self.name}: ended, since the run was asked to stop")
        if self._feed_error is not None:
            raise self._feed_error
        if self._why:
            raise CommandError(self._message(self._why))
        if status not in self._terms.ok:
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise CommandError(self._message(how))
        return status

    def _running(self) -> bool:
        """Whether the command itself runs; it is left unreaped, so that its process group cannot be another's."""
        with self._reaping:
            if self._process.returncode is not None:
                return False
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None

    def _end(self) -> None:
        """End what is left of the process group: ask, wait a little, kill."""
        if self._process.returncode is not None:
            return
        if self._running():
            self._signal(signal.SIGTERM)
            for _ in range(round(_GRACE / 0.01)):
                if not self._running():
                    break
                Event().wait(0.01)
        self._signal(signal.SIGKILL)
        while self._running():
            Event().wait(0.001)
        with self._reaping:
            self._process.wait()

    def _signal(self, number: int) -> None:
        with self._reaping:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)

    def _message(self, what: str) -> str:
        tail = self.tail()
        return f"{self.name}: {what}{': ' if tail else ''}{tail}"

    def tail(self) -> str:
        """Give the last lines of standard error, in one line, without secrets."""
        text = b"".join(list(self._tail)).decode("utf-8", "replace")
        for secret in sorted(self._terms.env.values(), key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        lines = [_CONTROL.sub(" ", line).strip() for line in text.splitlines()]
        return " | ".join([line for line in lines if line][-_TAIL_LINES:])


class _Pidfd:
    """A descriptor that becomes readable when a child has ended."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _has_ambient() -> bool:
    """Whether this thread has capabilities that its children would inherit."""
    try:
        with open("/proc/thread-self/status", "rb") as status:  # noqa: PTH123 - quicker
            return any(line.startswith(b"CapAmb:") and int(line.split()[1], 16) for line in status)
    except OSError:
        return True


def _without_ambient(start: "Callable[[], subprocess.Popen[bytes]]") -> "subprocess.Popen[bytes]":
    """Start a child in a thread that has given up its ambient capabilities: they belong to the thread, not to us."""
    result: list[subprocess.Popen[bytes]] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            drop_ambient_capabilities()
            result.append(start())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=work, name="command start")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]
