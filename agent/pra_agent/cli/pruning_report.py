"""What a pruning host tells Prometheus: a file for node_exporter's textfile collector, written as a whole.

Forget and prune are processes of their own, so what the one found is kept in a file of JSON for the other.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

from pra_agent.errors import PraError
from pra_agent.model.runs import Operation
from pra_agent.operations.pruner import Visit

_LEDGER = "pruner.json"
_HELP: Mapping[str, str] = {
    "last_attempt_timestamp_seconds": "When the operation was last begun on the pruning host.",
    "last_success_timestamp_seconds": "When the operation last ended well at a repository.",
    "failed": "1 when the operation failed at a repository the last time.",
    "failed_hosts": "Repositories at which the operation failed the last time.",
    "hosts": "Repositories that the operation was to walk the last time.",
    "snapshots": "Snapshots that the last forget left.",
    "quarantined_snapshots": "Snapshots that the last forget set aside: the store's clock contradicts their time.",
    "overwritten_objects": "Objects that somebody had written over, brought back by the last forget or prune.",
    "repository_size_bytes": "Size of a repository after its last prune.",
}
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
#: Numbers by metric, then by labels.
Numbers = dict[str, dict[str, float]]


@dataclass(slots=True)
class Ledger:
    """What is known of all rounds so far."""

    numbers: Numbers = field(default_factory=lambda: Numbers())

    def put(self, name: str, value: float, **labels: str) -> None:
        """Keep a number."""
        self.numbers.setdefault(name, {})[_labels(labels)] = value

    def drop(self, keep: Iterable[str]) -> None:
        """Forget repositories that are walked no more; `keep` are the labels that stay."""
        stays = tuple(f"{{{text}" for text in keep)
        for values in self.numbers.values():
            for labels in [labels for labels in values if "node=" in labels and not labels.startswith(stays)]:
                del values[labels]

    def text(self) -> str:
        """In Prometheus's text format."""
        return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for name, help_text in _HELP.items():
            if self.numbers.get(name):
                yield f"# HELP pra_pruner_{name} {help_text}\n# TYPE pra_pruner_{name} gauge\n"
                for labels, value in sorted(self.numbers[name].items()):
                    yield f"pra_pruner_{name}{labels} {value:.15g}\n"


def note(
    state: Path, textfile: Path, operation: Operation, visits: Sequence[Visit], started: datetime, finished: datetime
) -> None:
    """Put a round into the ledger below `state`, and all of it into the textfile. Raises `PraError`."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (state / f"{_LEDGER}.lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            ledger = _read(state / _LEDGER)
            _enter(ledger, operation, visits, started, finished)
            _replace(state / _LEDGER, json.dumps(ledger.numbers), 0o600)
            _replace(textfile, ledger.text(), 0o644)
    except OSError as error:
        raise PraError(f"{error.filename or textfile}: {error.strerror}", advice="Check pruner.textfile.") from error


def _enter(
    ledger: Ledger, operation: Operation, visits: Sequence[Visit], started: datetime, finished: datetime
) -> None:
    ledger.drop(_labels(_where(visit))[1:-1] for visit in visits)
    verb = {"operation": operation.value}
    ledger.put("last_attempt_timestamp_seconds", started.timestamp(), **verb)
    ledger.put("hosts", len(visits), **verb)
    ledger.put("failed_hosts", sum(visit.error is not None for visit in visits), **verb)
    for visit in visits:
        where = _where(visit)
        ledger.put("failed", float(visit.error is not None), **where, **verb)
        ledger.put("overwritten_objects", len(visit.covered), **where, **verb)
        if visit.error is not None:
            continue
        ledger.put("last_success_timestamp_seconds", finished.timestamp(), **where, **verb)
        if operation is Operation.FORGET:
            ledger.put("snapshots", sum(decision.keep for decision in visit.decisions), **where)
            ledger.put("quarantined_snapshots", len(visit.quarantined), **where)
        size = visit.record.detail.get("repository_size_bytes") if visit.record is not None else None
        if isinstance(size, int):
            ledger.put("repository_size_bytes", size, **where)


def _where(visit: Visit) -> dict[str, str]:
    return {"node": visit.place.node, "destination": visit.place.copy or "repository"}


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{text.translate(_ESCAPED)}"' for name, text in labels.items()) + "}"


def _read(path: Path) -> Ledger:
    try:
        return Ledger(cast("Numbers", json.loads(path.read_text())))
    except (FileNotFoundError, ValueError):
        return Ledger()


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file beside the old one and put it in its place, so that nobody reads half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
