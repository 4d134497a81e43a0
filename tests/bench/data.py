"""What is backed up in a bench: reproducible, and neither all noise nor all text."""

import random
from pathlib import Path

MIB = 1 << 20


def large(root: Path) -> None:
    """1 GiB in four files: two of noise, two of text."""
    root.mkdir(parents=True)
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 11))) for _ in range(20_000)]
    for number in range(4):
        with (root / f"file{number}").open("wb") as file:
            for _ in range(256):
                if number < 2:
                    file.write(chance.randbytes(MIB))
                else:
                    text = " ".join(chance.choices(words, k=180_000)).encode()
                    file.write(text[:MIB])


def small(root: Path) -> None:
    """40,000 files of median 4 KiB in 400 directories, a third noise and the rest text."""
    chance = random.Random(2)
    text = " ".join(str(chance.randint(0, 10**9)) for _ in range(200_000)).encode()
    for directory in range(400):
        place = root / f"d{directory // 20}" / f"e{directory}"
        place.mkdir(parents=True)
        for number in range(100):
            size = min(int(chance.lognormvariate(8.3, 1.2)), MIB)
            if chance.random() < 0.33:
                data = chance.randbytes(size)
            else:
                start = chance.randrange(len(text) - MIB // 2)
                data = text[start : start + size]
            (place / f"f{number}.dat").write_bytes(data)


def change(root: Path) -> None:
    """Change one file."""
    file = next(path for path in sorted(root.rglob("*")) if path.is_file())
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"something else")
