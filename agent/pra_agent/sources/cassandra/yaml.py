"""The two lines of cassandra.yaml that tell a node its tokens; all others are left as they are."""

import re
from collections.abc import Sequence
from pathlib import Path

from pra_agent.errors import SourceError


def write_tokens(path: Path, tokens: Sequence[str], run: str) -> str:
    """Write `initial_token` and `num_tokens`; what was there is kept beside. Returns a line that tells it."""
    lines = {"initial_token": f"'{','.join(tokens)}'", "num_tokens": str(len(tokens))}
    try:
        before = path.read_text(encoding="utf-8")
        text = before
        for key, value in lines.items():
            line = f"{key}: {value}"
            text, count = re.subn(rf"(?m)^#?[ \t]*{key}:.*$", line, text, count=1)
            if not count:
                text = text.rstrip("\n") + f"\n{line}\n"
        kept = _kept(path, run)
        kept.write_text(before, encoding="utf-8")
        kept.chmod(path.stat().st_mode & 0o777)
        # Written over, not renamed: in a container it may be a mount of its own.
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SourceError(f"{path}: the tokens cannot be written: {error.strerror}") from error
    return f"{path}: initial_token is {len(tokens)} tokens of the snapshot; what was there is in {kept.name}"


def put_tokens_back(path: Path, run: str) -> None:
    """Put back what `write_tokens` has replaced."""
    kept = _kept(path, run)
    path.write_bytes(kept.read_bytes())
    kept.unlink()


def _kept(path: Path, run: str) -> Path:
    return path.with_name(f"{path.name}.pra-before-{run}")
