"""Proof of the copies that a prune relies on: a blob that lies in several packs is kept in one of them only.

The index says that it is there. Whoever has the master key can write an index that says so of a pack of garbage, and a
disk can rot: so before the other copies go, the one that stays is read.
"""

from threading import Event

from pra_agent.errors import Interrupted
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.repository.pack import open_blob
from pra_agent.repository.prune_plan import PrunePlan
from pra_agent.repository.repository import Repository


def prove_copies(
    plan: PrunePlan, repository: Repository, *, report: Reporter = ignore, stop: Event | None = None
) -> int:
    """Read every blob that stays in one of several packs; returns how many. `DamagedError` names a broken one.

    Packs that the plan rewrites are proven while they are rewritten.
    """
    rewritten = set(plan.repack.tolist())
    done = 0
    for number, entries in plan.packs.copies():
        if stop is not None and stop.is_set():
            raise Interrupted("stopped while copies were proven")
        if number in rewritten:
            continue
        pack = plan.packs.table.name(number)
        for entry, stored in repository.stored_blobs(pack, entries):
            open_blob(repository.codec, pack, entry, stored)
            done += 1
        report(Progress("prove copies", files_done=done))
    return done
