"""Cassandra: a node's snapshot as hard links, read without what did not change, and two ways back.

`CassandraSettings` is the job's configuration; it imports the source, and the driver with it, only when it builds one.
"""

from pra_agent.sources.cassandra.settings import CassandraSettings

__all__ = ["CassandraSettings"]
