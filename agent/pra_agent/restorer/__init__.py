"""Snapshot to files.

`plan(reader, snapshot, RestoreRequest(target, in_place, paths, include, exclude, delete, verify, sparse))` compares the
snapshot with the target and gives a `Plan`: counts(), size, files, lines() to print; nothing is changed.
`execute(plan, reader, report=..., stop=...)` does it and gives `Restored(files, bytes, ..., failures)`: files that
failed are named there and reported, the rest is restored.
`reader` is a `model.snapshots.SnapshotReader`: the repository itself, or the control socket's client.
"""

from pra_agent.restorer.executing import Restored, execute
from pra_agent.restorer.plan import Action, Plan, RestoreRequest
from pra_agent.restorer.planning import plan

__all__ = ["Action", "Plan", "RestoreRequest", "Restored", "execute", "plan"]
