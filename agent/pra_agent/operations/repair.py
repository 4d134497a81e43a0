"""Repair: what can be saved of a damaged repository is saved, and what is lost is told by snapshot, job and path."""

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event
from typing import BinaryIO

from pra_agent.model.events import Notice, Reporter, ignore
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository import repair as repairing
from pra_agent.repository.check import check
from pra_agent.repository.check_subset import Subset
from pra_agent.repository.repair import Opener, Repaired, RepairPlan
from pra_agent.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """What to repair.

    `subset` chooses packs that are read to find damage that sizes do not show; None trusts packs of the right size.
    `recover` makes snapshots of trees that no snapshot refers to. `opener` reads files of the host again, see
    `host_files`; None leaves the host alone.
    """

    subset: Subset | None = None
    recover: bool = False
    dry_run: bool = False
    opener: Opener | None = None


@dataclass(frozen=True, slots=True)
class RepairDone:
    """The plan, and what was done of it (None for a dry run)."""

    plan: RepairPlan
    done: Repaired | None


def repair(
    request: RepairRequest, repository: Repository, *, report: Reporter = ignore, stop: Event | None = None
) -> RepairDone:
    """Plan a repair and carry it out, under an exclusive lock; with `dry_run` only plan."""
    with repository.lock(exclusive=True) as lock:
        suspects: set[str] = set()
        if request.subset is not None:
            suspects = check(repository, request.subset, report=report, stop=stop).broken_packs
        plan = repairing.plan(
            repository,
            suspects=suspects,
            prove=request.subset is not None,
            recover=request.recover,
            report=report,
            stop=stop,
        )
        for line in plan.lines():
            report(Notice(line))
        if request.dry_run:
            return RepairDone(plan, None)
        done = repairing.execute(plan, repository, lock, opener=request.opener, report=report, stop=stop)
    return RepairDone(plan, done)


def host_files(captured: Callable[[Snapshot, bytes], bytes | None]) -> Opener:
    """An opener for files of this host. `captured` maps a path in a snapshot to the host's own; None: not a file here.

    Only regular files are opened, and no symlink is followed to one.
    """

    def open_again(snapshot: Snapshot, path: bytes) -> AbstractContextManager[BinaryIO] | None:
        real = captured(snapshot, path)
        if real is None:
            return None
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb")

    return open_again
