"""Which system keyspaces and tables are kept, and which way back takes them.

The table in the documents is made of this one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemKeyspace:
    """What is done about one of Cassandra's own keyspaces. `without` are tables of it that are not kept."""

    name: str
    kept: bool
    plan_a: bool
    plan_b: str
    why: str
    without: frozenset[str] = frozenset()


SYSTEM = (
    SystemKeyspace(
        "system",
        True,
        True,
        "no",
        "the node's own identity: host id, tokens, peers; derived tables are left out and come back by themselves",
        frozenset(
            {
                "batches",
                "compaction_history",
                "peer_events",
                "peer_events_v2",
                "prepared_statements",
                "size_estimates",
                "sstable_activity",
                "sstable_activity_v2",
                "table_estimates",
                "top_partitions",
            }
        ),
    ),
    SystemKeyspace(
        "system_schema", True, True, "no", "plan A needs it as it was; plan B makes the schema by its statements"
    ),
    SystemKeyspace(
        "system_auth", True, True, "when named", "roles and permissions; plan B leaves those of the new cluster alone"
    ),
    SystemKeyspace("system_distributed", True, True, "when named", "history of repairs, state of views"),
    SystemKeyspace("system_traces", False, False, "no", "traces of queries: they expire in a day"),
    SystemKeyspace("system_views", False, False, "no", "virtual: nothing on disk"),
    SystemKeyspace("system_virtual_schema", False, False, "no", "virtual: nothing on disk"),
)
_BY_NAME = {one.name: one for one in SYSTEM}


def is_system(keyspace: str) -> bool:
    """Whether it is one of Cassandra's own; one that this table does not know is kept."""
    return keyspace in _BY_NAME or keyspace.startswith("system_")


def keeps(keyspace: str, table: str) -> bool:
    """Whether a table of a node that is saved as a whole is kept."""
    known = _BY_NAME.get(keyspace)
    return known is None or (known.kept and table not in known.without)


def online(keyspace: str, *, named: bool) -> bool:
    """Whether plan B puts it back; `named`: it was asked for by name."""
    known = _BY_NAME.get(keyspace)
    return named and known.plan_b == "when named" if known is not None else named or not is_system(keyspace)
