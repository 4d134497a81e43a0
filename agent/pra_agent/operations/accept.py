"""Accept: a snapshot that looked too small is one like all others, for restores, for retention and for pruning hosts.

Where the credentials may not delete, the suspect one stays beside the accepted one until the pruning host forgets it.
"""

from collections.abc import Collection

from pra_agent.model.snapshots import SUSPECT_TAG, Snapshot
from pra_agent.operations.retag import retag
from pra_agent.repository.repository import Repository


def accept(wanted: Collection[str], repository: Repository) -> list[Snapshot]:
    """Take the mark from these snapshots (whole ids); returns those that changed, with their new ids.

    What is gone, or was accepted before, is left as it is: doing it again changes nothing.
    """
    with repository.lock():
        snapshots = repository.snapshots()
        done = {each.original for each in snapshots if SUSPECT_TAG not in each.tags}
        return [
            retag(each, [tag for tag in each.tags if tag != SUSPECT_TAG], repository, may_stay=True)
            for each in snapshots
            if each.id in wanted and SUSPECT_TAG in each.tags and (each.original or each.id) not in done
        ]
