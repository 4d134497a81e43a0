"""Against stock restic, in the same run: alternating, on a repository that `restic init` made, restores compared."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.bench import data
from tests.bench.measure import Measured, measure, tree_pss
from tests.support.agent import AGENT
from tests.support.trees import compare_trees

STEPS = ("first backup", "unchanged", "one changed file", "full restore")
_PASSWORD = "bench"


@dataclass
class Side:
    """One of the two, in a directory of its own for each round."""

    name: str
    home: Path
    source: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.home / "repository"

    def prepare(self) -> None:
        """Make a repository by restic init, whose key derivation both pay."""
        self.home.mkdir(parents=True)
        password = self.home / "password"
        password.write_text(_PASSWORD)
        password.chmod(0o600)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "RESTIC_PASSWORD_FILE": str(password)}
        self.env |= {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_CACHE_DIR": str(self.home / "cache")}
        self.env |= {"XDG_STATE_HOME": str(self.home / "state"), "PYTHONPATH": str(AGENT)}
        subprocess.run(["restic", "init"], env=self.env, check=True, capture_output=True)


class Restic(Side):
    """Stock restic."""

    def step(self, step: str) -> Measured:
        if step == "full restore":
            return measure(["restic", "restore", "latest", "--target", str(self.home / "restored")], self.env)
        return measure(["restic", "backup", str(self.source)], self.env)

    def close(self) -> None:
        """Nothing runs."""


class Agent(Side):
    """pra-agent: directly, and through its daemon for the run that finds nothing to do."""

    daemon: subprocess.Popen[bytes] | None = None

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pra_agent", "--config", str(self.home / "config.yaml"), *words]

    def prepare(self) -> None:
        super().prepare()
        settings = {
            "node": "bench",
            "repository": {"url": str(self.repository), "password": {"file": str(self.home / "password")}},
            "jobs": {"bench": {"source": {"type": "files", "paths": [str(self.source)]}, "full": "never"}},
            "defaults": {"schedule": None},
            "state": {"dir": str(self.home / "daemon-state")},
            "control": {"socket": str(self.home / "s")},
            "exporter": {"enabled": False},
            "maintenance": {name: {"schedule": None} for name in ("forget", "prune", "check")},
        }
        config = self.home / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        config.chmod(0o600)

    def step(self, step: str) -> Measured:
        if step == "full restore":
            return measure(
                self._argv("--direct", "restore", "bench", "--target", str(self.home / "restored")), self.env
            )
        if step == "unchanged":
            return self._through_daemon()
        return measure(self._argv("--direct", "backup", "bench"), self.env)

    def _through_daemon(self) -> Measured:
        self.daemon = subprocess.Popen(
            self._argv("daemon"), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while subprocess.run(self._argv("status"), env=self.env, capture_output=True).returncode != 0:
            if self.daemon.poll() is not None:
                raise SystemExit("the daemon ended")
        # The daemon's own first run learns what the direct one knew.
        measure(self._argv("backup", "bench"), self.env)
        return measure(self._argv("backup", "bench"), self.env, watch=self.daemon.pid)

    def idle(self) -> int:
        """Bytes of the daemon and all its processes while nothing runs."""
        return tree_pss([self.daemon.pid]) if self.daemon is not None else 0

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(60)
            self.daemon = None


@contextmanager
def _place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="pra-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def compare(name: str, make: Callable[[Path], None], rounds: int) -> str:
    """Run the rounds and return the table, in Markdown."""
    found: dict[tuple[str, str], list[Measured]] = {}
    idle: list[int] = []
    with _place() as place:
        source = place / "source"
        make(source)
        for number in range(rounds):
            sides: list[Restic | Agent] = [
                Restic("restic", place / f"{number}-restic", source),
                Agent("pra-agent", place / f"{number}-agent", source),
            ]
            for side in sides:
                side.prepare()
            for step in STEPS:
                if step == "one changed file":
                    data.change(source)
                os.sync()
                for side in sides if number % 2 else reversed(sides):
                    found.setdefault((step, side.name), []).append(side.step(step))
                    if isinstance(side, Agent) and step == "unchanged":
                        idle.append(side.idle())
            for side in sides:
                _same(source, side)
                side.close()
                shutil.rmtree(side.home)
    return _table(name, found, idle, rounds)


def _same(source: Path, side: Side) -> None:
    differences = compare_trees(source, side.home / "restored" / str(source).lstrip("/"))
    if differences:
        raise SystemExit(f"{side.name} restored something else: {differences[:3]}")


def _table(name: str, found: Mapping[tuple[str, str], list[Measured]], idle: list[int], rounds: int) -> str:
    lines = [f"### {name} (median of {rounds})", "", "| | restic | pra-agent | ratio | CPU | peak memory (PSS) |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for step in STEPS:
        theirs, ours = found[step, "restic"], found[step, "pra-agent"]
        wall = [statistics.median(one.wall for one in side) for side in (theirs, ours)]
        cpu = [statistics.median(one.cpu for one in side) for side in (theirs, ours)]
        memory = [max(one.memory for one in side) >> 20 for side in (theirs, ours)]
        used = f"{cpu[0]:.1f} s / {cpu[1]:.1f} s" if step != "unchanged" else f"{cpu[0]:.1f} s / in the daemon"
        lines.append(
            f"| {step} | {wall[0]:.2f} s | {wall[1]:.2f} s | {wall[1] / wall[0]:.2f} | {used} | "
            f"{memory[0]} MiB / {memory[1]} MiB |"
        )
    lines.append(f"\nThe idle daemon: {max(idle) >> 20} MiB (summed PSS).")
    return "\n".join(lines)
