"""What is told after a restore: that all nodes agree on the schema, and how many rows a table has."""

from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import Interrupted, SourceError
from pra_agent.sources.cassandra.cql import quoted
from pra_agent.sources.cassandra.session import Session

_AGREE_SECONDS = 60.0
_COUNT_SECONDS = 60.0


def wait_for_agreement(session: Session, stop: Event) -> None:
    """Return when all nodes have the same schema. `SourceError` when that takes too long."""
    left = _AGREE_SECONDS
    while len(versions := session.schema_versions()) > 1:
        if left <= 0:
            raise SourceError(
                f"the nodes do not agree on the schema ({len(versions)} versions)",
                advice="See nodetool describecluster; bring the nodes that are down back first.",
            )
        if stop.wait(0.5):
            raise Interrupted("stopped while the nodes agreed on the schema")
        left -= 0.5


def count_rows(session: Session, keyspace: str, table: str, clock: Clock | None = None) -> str:
    """Count a table's rows, for a minute at most, and say so. At LOCAL_QUORUM, else as this node alone can."""
    clock = clock or SystemClock()
    title = f"{keyspace}.{table}"
    query = f"SELECT {_key(session, keyspace, table)} FROM {quoted(keyspace)}.{quoted(table)}"  # noqa: S608
    for level in ("LOCAL_QUORUM", "LOCAL_ONE"):
        end = clock.monotonic() + _COUNT_SECONDS
        count = 0
        try:
            for count, _ in enumerate(session.paged(query, level=level), 1):
                if not count % 5000 and clock.monotonic() > end:
                    return f"{title}: more than {count} rows at {level}"
        except Exception as error:  # noqa: BLE001 - pages come from the driver, which has many errors
            if level == "LOCAL_ONE":
                return f"{title}: rows could not be counted: {' '.join(str(error).split())[:200]}"
            continue
        return f"{title}: {count} rows at {level}"
    return title


def _key(session: Session, keyspace: str, table: str) -> str:
    """Name the first column of the partition key, the smallest thing that each row has."""
    rows = session.rows(
        "SELECT column_name, kind FROM system_schema.columns WHERE keyspace_name=%s AND table_name=%s", keyspace, table
    )
    return next((quoted(str(row.column_name)) for row in rows if row.kind == "partition_key"), "*")
