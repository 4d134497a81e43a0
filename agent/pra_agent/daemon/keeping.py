"""What a run leaves for the journal beside its record: numbers, data instants, runs of an earlier life."""

from collections.abc import Mapping
from datetime import datetime
from typing import cast

from pra_agent.daemon import records
from pra_agent.daemon.journal import Journal


def keep(journal: Journal, message: Mapping[str, object]) -> None:
    """Put a message of `worker.Work` there, if it is for the journal at all."""
    kind, job = message.get("type"), str(message.get("job", ""))
    if kind == "gauge":
        value = cast("float | None", message["value"])
        if value is not None and message.get("add"):
            journal.add_to_gauge(str(message["name"]), value, job)
        else:
            journal.set_gauge(str(message["name"]), value, job)
    elif kind == "instant":
        instant = datetime.fromisoformat(str(message["instant"]))
        journal.advance(job, str(message["destination"]), instant, off_host=bool(message["off_host"]))
    elif kind == "seed":
        journal.seed(records.from_json(cast("Mapping[str, object]", message["record"])))
