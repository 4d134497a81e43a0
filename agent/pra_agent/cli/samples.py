"""Files to lose and to bring back: what the demo saves, and the comparison that shows it is all back."""

import hashlib
import os
import random
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_WORDS = ("recovery", "objective", "backup", "restore", "snapshot", "repository", "host", "disaster", "drill", "key")
_FOLDERS = ("orders", "invoices", "customers", "images", "settings")
_FILES_EACH = 40
_LARGE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What makes a file that file: type and mode, size, time, and its content or target."""

    mode: int
    size: int
    mtime: int
    content: str


def make_sample(root: Path) -> None:
    """Fill a new directory: some hundred small files, one large, links, and modes worth keeping."""
    dice = random.Random(20240229)  # noqa: S311 - the same files each time, nothing secret
    root.mkdir()
    for folder in _FOLDERS:
        (root / folder).mkdir()
        for n in range(_FILES_EACH):
            words = " ".join(dice.choices(_WORDS, k=dice.randint(20, 900)))
            (root / folder / f"{folder[:-1]}-{n:03}.txt").write_text(f"{words}\n", encoding="utf-8")
    (root / "database.bin").write_bytes(dice.randbytes(_LARGE))
    (root / "settings" / "secret.key").write_bytes(dice.randbytes(64))
    (root / "settings" / "secret.key").chmod(0o400)
    (root / "run.sh").write_text("#!/bin/sh\necho ready\n", encoding="utf-8")
    (root / "run.sh").chmod(0o755)
    (root / "current").symlink_to("orders/order-001.txt")
    os.link(root / "database.bin", root / "database.hardlink")
    (root / "a name that is not UTF-8: \udcff").touch()
    (root / "empty").mkdir(mode=0o700)


def describe_tree(root: Path) -> Mapping[str, Facts]:
    """Describe everything below a directory, itself included."""
    return {str(path.relative_to(root)): _facts(path) for path in _walk(root)}


def difference(before: Mapping[str, Facts], after: Mapping[str, Facts]) -> list[str]:
    """Name what is missing, new or not the same."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


def destroy(root: Path) -> None:
    """Remove all of it."""
    shutil.rmtree(root)


def _walk(root: Path) -> Iterator[Path]:
    yield root
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)


def _facts(path: Path) -> Facts:
    info = path.lstat()
    content = ""
    if stat.S_ISLNK(info.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(info.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return Facts(info.st_mode, size, info.st_mtime_ns, content)
