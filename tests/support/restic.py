"""Stock restic as an oracle: a runner without cache, with the password in the environment only."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "correct horse battery staple"


def require_restic() -> str:
    """The binary's path; skips the test where there is none."""
    binary = shutil.which("restic")
    if binary is None:
        pytest.skip("there is no restic on this system")
    return binary


class ResticFailed(AssertionError):
    """Restic ended with another exit status than 0."""


@dataclass(frozen=True)
class Restic:
    """Stock restic on one repository; `environment` adds variables (credentials of a store)."""

    repository: str | Path
    password: str = PASSWORD
    environment: tuple[tuple[str, str], ...] = ()
    timeout: float = 300.0

    def run(self, *args: str | Path, cwd: Path | None = None, stdin: bytes | None = None) -> str:
        """Run a command; its standard output, or `ResticFailed` with what it said."""
        done = self.try_run(*args, cwd=cwd, stdin=stdin)
        if done.returncode:
            raise ResticFailed(f"restic {args[0]}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def try_run(
        self, *args: str | Path, cwd: Path | None = None, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever its exit status."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.environ.get("HOME", "/"),
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            "RESTIC_PASSWORD": self.password,
            **dict(self.environment),
        }
        done = subprocess.run(
            [require_restic(), "--repo", str(self.repository), "--no-cache", "--quiet", *map(str, args)],
            cwd=cwd,
            input=stdin,
            env=environment,
            capture_output=True,
            timeout=self.timeout,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        )

    def init(self) -> None:
        """Make a new repository."""
        self.run("init", "--repository-version", "2")

    def backup(self, *paths: str | Path, cwd: Path | None = None, extra: Sequence[str] = ()) -> None:
        """Save paths."""
        self.run("backup", *extra, *paths, cwd=cwd)

    def restore(self, target: Path, snapshot: str = "latest", extra: Sequence[str] = ()) -> None:
        """Restore a snapshot below a directory."""
        self.run("restore", snapshot, "--target", target, *extra)

    def check(self, *, read_data: bool = True) -> str:
        """Check the repository, all data included; what it printed."""
        done = self.try_run("check", *(["--read-data"] if read_data else []))
        if done.returncode:
            raise ResticFailed(f"restic check: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout + done.stderr

    def snapshots(self) -> list[dict[str, Any]]:
        """All snapshots, as restic's JSON has them."""
        found: list[dict[str, Any]] = json.loads(self.run("snapshots", "--json"))
        return found

    def cat(self, kind: str, name: str = "") -> bytes:
        """Show an object (`restic cat`)."""
        return self.run("cat", kind, *([name] if name else [])).encode()

    def list(self, kind: str) -> set[str]:
        """The ids of all objects of a kind (`packs`, `blobs`, `index`, `snapshots`, `locks`, `keys`)."""
        return set(self.run("list", kind, "--no-lock").split())
