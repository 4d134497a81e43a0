"""Pin and unpin: a snapshot that forget must leave alone. A snapshot's file never changes, so it is written again.

The new file is durable before the old one goes. Where the credentials may not delete (a hardened set-up), a pin leaves
both: the pinned one stays for good, and the old one goes by policy. An unpin cannot be had there.
"""

from pra_agent.model.snapshots import PINNED_TAG, Snapshot
from pra_agent.operations.retag import retag
from pra_agent.repository.repository import Repository


def pin(snapshot: str, repository: Repository) -> Snapshot:
    """Pin a snapshot by its id, a prefix of it or `latest`; returns it as it is now, with its new id."""
    return _retag(snapshot, repository, pinned=True)


def unpin(snapshot: str, repository: Repository) -> Snapshot:
    """Let forget judge a snapshot again; returns it with its new id. `AccessDenied` where nothing may be deleted."""
    return _retag(snapshot, repository, pinned=False)


def _retag(wanted: str, repository: Repository, *, pinned: bool) -> Snapshot:
    with repository.lock():
        old = repository.find_snapshot(wanted)
        if old.pinned == pinned:
            return old
        tags = (*old.tags, PINNED_TAG) if pinned else tuple(tag for tag in old.tags if tag != PINNED_TAG)
        return retag(old, tags, repository, may_stay=pinned)
