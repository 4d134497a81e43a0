"""A snapshot with other tags: its file never changes, so it is written again, durable before the old one goes."""

from collections.abc import Sequence
from dataclasses import replace

from pra_agent.errors import AccessDenied
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.repository import Repository


def retag(old: Snapshot, tags: Sequence[str], repository: Repository, *, may_stay: bool) -> Snapshot:
    """Give a snapshot other tags; returns it as it is now, with its new id. The repository must be locked.

    Where the credentials may not delete (a hardened set-up) both are left if `may_stay`, else `AccessDenied` is raised.
    """
    new = repository.save_snapshot(replace(old, tags=tuple(tags), original=old.original or old.id, id=""))
    try:
        repository.remove_snapshot(old.id)
    except AccessDenied:
        if not may_stay:
            raise
    return new
