"""Locks: shared for most work, exclusive for prune and check; files under `locks/`, one per process and task.

The protocol is restic's (doc/design.rst, "Locks"): list, refuse on conflict, write, wait, list again and withdraw on
conflict. A lock is refreshed by writing a new file and deleting the old; who could not refresh for 22.5 minutes stops.

Host names repeat on cloned machines, and pids repeat after a boot. So beside restic's keys our locks carry machine,
boot, pid namespace and start of the process: a lock of this very boot is dead when that process is. One of an earlier
boot is dead only when this host noted its id as its own (`LockNotes`): a clone may have the same machine id, but not
the note.
"""

import hashlib
import os
import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from pra_agent.clock import Clock
from pra_agent.errors import DamagedError, Locked, LockLost, NotFound, StorageError
from pra_agent.repository.codec import Codec, content_id
from pra_agent.repository.host import Host, pid_namespace, process_start
from pra_agent.storage.backend import Backend, Handle, Kind

REFRESH_SECONDS = 300.0
EXPIRE_SECONDS = 22.5 * 60
STALE = timedelta(minutes=30)
_SETTLE_SECONDS = 0.2
_POLL_SECONDS = 1.0
_OURS = "pra_agent"


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock file. `dead`: its process has ended, surely; `stale`: nobody can be at work under it any more."""

    id: str
    time: datetime
    exclusive: bool
    hostname: str
    username: str
    pid: int
    dead: bool = False
    stale: bool = False
    unreadable: bool = False

    def __str__(self) -> str:
        kind = "exclusive" if self.exclusive else "shared"
        if self.unreadable:
            return f"an unreadable lock {self.id[:8]}"
        return f"{kind} lock {self.id[:8]} of {self.username}@{self.hostname} (pid {self.pid}) since {self.time:%F %TZ}"


class LockNotes:
    """The ids of this host's own locks, one empty file each. Without a directory nothing is noted."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def add(self, name: str) -> None:
        """Note a lock that is about to be written."""
        if self._directory:
            with suppress(OSError):
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._directory / name).touch()

    def discard(self, name: str) -> None:
        """Forget a lock that is gone."""
        if self._directory:
            with suppress(OSError):
                (self._directory / name).unlink()

    def __contains__(self, name: str) -> bool:
        return self._directory is not None and (self._directory / name).exists()


class LockFiles:
    """The lock files of a repository, read and judged. `notes` is the directory of this host's own lock ids."""

    def __init__(self, backend: Backend, codec: Codec, clock: Clock, host: Host, notes: Path | None = None) -> None:
        self.backend = backend
        self.codec = codec
        self.clock = clock
        self.host = host
        self._notes = LockNotes(notes)

    def read_all(self) -> list[LockInfo]:
        """All locks, the oldest first; empty files are no locks, unreadable ones are exclusive."""
        infos = [info for info in self.backend.list(Kind.LOCK) if info.size]
        return sorted(
            (lock for info in infos if (lock := self._read(info.handle, info.modified)) is not None),
            key=lambda lock: lock.time,
        )

    def write(self, *, exclusive: bool) -> str:
        """Store a new lock of this process; returns its id."""
        host = self.host
        pid = os.getpid()
        document = {
            "time": self.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "exclusive": exclusive,
            "hostname": host.hostname,
            "username": host.username,
            "pid": pid,
            "uid": host.uid,
            "gid": host.gid,
            _OURS: {
                "machine": _machine(host),
                "boot": host.boot_id,
                "pid_namespace": pid_namespace(),
                "start": process_start(pid),
            },
        }
        sealed = self.codec.seal_unpacked(orjson.dumps(document))
        name = content_id(sealed).hex()
        self._notes.add(name)
        try:
            self.backend.put(Handle(Kind.LOCK, name), sealed)
        except BaseException:
            # Perhaps it was stored and only the answer was lost.
            with suppress(StorageError):
                self.remove(name)
            raise
        return name

    def remove(self, name: str) -> None:
        """Delete a lock; harmless when it is gone."""
        with suppress(NotFound):
            self.backend.delete(Handle(Kind.LOCK, name))
        self._notes.discard(name)

    def clear_dead(self) -> list[LockInfo]:
        """Remove the locks of this machine's dead processes; returns those that are left."""
        locks = self.read_all()
        self._clear([lock for lock in locks if lock.dead])
        return [lock for lock in locks if not lock.dead]

    def unlock(self, *, everything: bool = False) -> list[LockInfo]:
        """Remove stale locks, or all of them (only when nobody is at work); returns what was removed."""
        return self._clear([lock for lock in self.read_all() if everything or lock.stale])

    def _clear(self, locks: list[LockInfo]) -> list[LockInfo]:
        for lock in locks:
            self.remove(lock.id)
        return locks

    def _read(self, handle: Handle, modified: datetime | None) -> LockInfo | None:
        try:
            doc: dict[str, Any] = orjson.loads(self.codec.unseal_unpacked(self.backend.get(handle)))
            return self._judge(handle.name, doc)
        except NotFound:
            return None
        except (DamagedError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            age = modified or self.clock.now()
            stale = self.clock.now() - age > STALE
            return LockInfo(
                handle.name, age, exclusive=True, hostname="", username="", pid=0, stale=stale, unreadable=True
            )

    def _judge(self, name: str, doc: dict[str, Any]) -> LockInfo:
        written = datetime.fromisoformat(_microseconds(doc["time"])).astimezone(UTC)
        hostname, pid = str(doc.get("hostname", "")), int(doc.get("pid", 0))
        dead = self._dead(name, doc.get(_OURS), pid)
        # Without our own key the machine is not known for sure: such a lock is never cleared unasked.
        foreign_dead = _OURS not in doc and hostname == self.host.hostname and process_start(pid) is None
        return LockInfo(
            id=name,
            time=written,
            exclusive=bool(doc.get("exclusive", False)),
            hostname=hostname,
            username=str(doc.get("username", "")),
            pid=pid,
            dead=dead,
            stale=dead or foreign_dead or self.clock.now() - written > STALE,
        )

    def _dead(self, name: str, ours: dict[str, Any] | None, pid: int) -> bool:
        """Whether the lock was written on this machine by a process that has ended."""
        if not ours or not self.host.machine_id or ours["machine"] != _machine(self.host):
            return False
        if ours["boot"] != self.host.boot_id:
            return name in self._notes
        return bool(ours["pid_namespace"] == pid_namespace() and process_start(pid) != ours["start"])


class Lock:
    """A lock that is held. Refreshed by a thread of its own; `check` before anything is made durable under it."""

    def __init__(self, files: LockFiles, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        self._files = files
        self._clock = files.clock
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._lost = ""
        #: Our older files that are still to be deleted.
        self._replaced: list[str] = []
        self._mark()
        self.id = files.write(exclusive=exclusive)
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Raise `LockLost` when the lock is known to be gone or too old; asks nobody, so it costs nothing."""
        if self._lost:
            raise LockLost(self._lost)
        if self._age() > EXPIRE_SECONDS:
            raise LockLost(f"the lock could not be refreshed for {self._age() / 60:.0f} minutes")

    def confirm(self) -> None:
        """Check, and ask the store whether the lock is there still."""
        self.check()
        with self._mutex:
            self._require_file()

    def refresh(self) -> None:
        """Write a new lock file, then delete the old; `LockLost` when the old one is gone."""
        with self._mutex:
            if self._stop.is_set():
                return
            self._require_file()
            old, self.id = self.id, self._files.write(exclusive=self.exclusive)
            self._mark()
            self._replaced.append(old)
            self._remove_replaced()

    def start(self) -> None:
        """Begin to refresh in a thread."""
        self._thread = threading.Thread(target=self._run, name="lock-refresh", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop refreshing and delete the lock; a forked child leaves its parent's lock alone."""
        if os.getpid() != self._pid:
            return
        self._stop.set()
        if self._thread:
            self._thread.join()
        # A lock that cannot be deleted goes stale; the work under it was done.
        with self._mutex, suppress(StorageError):
            self._replaced.append(self.id)
            self._remove_replaced()

    def _remove_replaced(self) -> None:
        while self._replaced:
            self._files.remove(self._replaced[-1])
            self._replaced.pop()

    def _require_file(self) -> None:
        try:
            self._files.backend.stat(Handle(Kind.LOCK, self.id))
        except NotFound:
            self._lost = f"the lock {self.id[:8]} was removed by somebody else"
            raise LockLost(self._lost) from None

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            if self._age() < REFRESH_SECONDS:
                continue
            try:
                self.check()
                self.refresh()
            except LockLost as error:
                self._lost = error.message
                return
            except StorageError:
                # Tried again at the next turn; `check` says stop when that lasts too long.
                continue

    def _mark(self) -> None:
        self._monotonic = self._clock.monotonic()
        self._wall = self._clock.timestamp()

    def _age(self) -> float:
        # The monotonic clock stands still while a machine sleeps, the other one may be set back.
        return max(self._clock.monotonic() - self._monotonic, self._clock.timestamp() - self._wall)


@contextmanager
def hold(files: LockFiles, *, exclusive: bool) -> Generator[Lock]:
    """Hold a lock, after clearing those of this machine's dead processes; `Locked` names who is in the way."""
    with _hangup_survived():
        yield from _hold(files, exclusive=exclusive)


def _hold(files: LockFiles, *, exclusive: bool) -> Generator[Lock]:
    _refuse(files.clear_dead(), exclusive=exclusive)
    lock = Lock(files, exclusive=exclusive)
    try:
        files.clock.sleep(_SETTLE_SECONDS)
        _refuse((other for other in files.read_all() if other.id != lock.id), exclusive=exclusive)
        lock.start()
        yield lock
    finally:
        lock.release()


@contextmanager
def _hangup_survived() -> Generator[None]:
    """Ignore SIGHUP where it would end the process: stock restic's `unlock` sends it to see who is alive."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _refuse(locks: Iterable[LockInfo], *, exclusive: bool) -> None:
    conflicts = [lock for lock in locks if exclusive or lock.exclusive]
    if conflicts:
        raise Locked("; ".join(str(lock) for lock in conflicts[:3]))


def _machine(host: Host) -> str:
    """Tell machines apart without telling the machine id, which systemd asks to keep confidential."""
    return hashlib.sha256(b"pra-agent lock " + host.machine_id.encode()).hexdigest()[:32]


def _microseconds(text: str) -> str:
    """Cut the nanoseconds that Go writes, which datetime cannot take."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[: min(digits, 6)].ljust(6, '0')}{tail[digits:]}"
