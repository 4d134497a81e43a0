"""Whole processes, measured: wall time, processor time of the process and all it waited for, peak of summed PSS."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PAUSE = 0.05


@dataclass(frozen=True)
class Measured:
    """Seconds of wall and processor time, and bytes."""

    wall: float
    cpu: float
    memory: int


def measure(argv: Sequence[str], env: Mapping[str, str], *, watch: int | None = None) -> Measured:
    """Run a command to its end; it must succeed. `watch`: a further process whose tree counts for memory."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = _Peak([process.pid] + ([watch] if watch else []))
    peak.start()
    said = process.stderr.read() if process.stderr is not None else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.stderr is not None:
        process.stderr.close()
    peak.end()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: {process.returncode}: {said.decode(errors='replace')[-2000:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak.bytes)


class _Peak(threading.Thread):
    """Samples the summed proportional set size of process trees."""

    def __init__(self, roots: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._roots = roots
        self._over = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._over.wait(_PAUSE):
            self.bytes = max(self.bytes, tree_pss(self._roots))

    def end(self) -> None:
        """Stop sampling."""
        self._over.set()
        self.join()


def tree_pss(roots: Sequence[int]) -> int:
    """Bytes of the processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(f"/proc/{entry.name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting, total = list(roots), 0
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        total += _pss(pid)
    return total


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
