"""Packages of the present sources, built once for what they are made of and kept in the test bed."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.docker_engine import TESTBED

ROOT = Path(__file__).parents[2]
_MADE_OF = ("agent", "docs", "packaging", "systemd", "pyproject.toml", "README.md", "LICENSE")
_KEPT = 8
EPOCH = 1_700_000_000


def build(sources: Path, out: Path, *targets: str, cache: Path, version: str = "", key: str = "") -> None:
    """Run packaging/build.sh of these sources; `key` signs, from the keyring of $GNUPGHOME."""
    done = subprocess.run(
        ["bash", str(sources / "packaging" / "build.sh"), *targets],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "OUT": str(out),
            "CACHE": str(cache),
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "SIGN_KEY": key,
            **({"VERSION": version} if version else {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"build.sh: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the sources, since others may be at work in them."""
    with TemporaryDirectory(prefix="pra-sources-") as directory:
        copy = Path(directory)
        for name in _MADE_OF:
            path = ROOT / name
            if path.is_dir():
                shutil.copytree(path, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, copy / name)
        yield copy


def packages(*targets: str, version: str = "") -> Path:
    """The directory with the packages of these targets; they are built when their sources have changed.

    What they were built from is in `sources` below it.
    """
    kept = TESTBED / "packages"
    kept.mkdir(parents=True, exist_ok=True)
    with copied() as sources, (kept / "lock").open("w") as lock:
        out = kept / f"out-{_digest(sources, *targets, version)}"
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "SHA256SUMS").exists():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            shutil.copytree(sources, out / "sources")
            build(sources, out, *targets, cache=kept, version=version)
            _forget_old(kept)
        os.utime(out)
    return out


def deb(directory: Path, target: str) -> Path:
    """The target's .deb in a directory of packages."""
    (found,) = directory.glob(f"*~{target}_*.deb")
    return found


def can_build() -> None:
    """Skip where packages cannot be built."""
    missing = [name for name in ("bash", "gzip", "sed", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {missing[0]} to build packages with")
    if not os.access(TESTBED, os.W_OK):
        pytest.skip(f"{TESTBED} belongs to another user")


def _digest(sources: Path, *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in sorted(sources.rglob("*")):
        if path.is_file():
            digest.update(f"\0{path.relative_to(sources)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old(kept: Path) -> None:
    newest_last = sorted(kept.glob("out-*"), key=lambda path: path.stat().st_mtime)
    for old in newest_last[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
