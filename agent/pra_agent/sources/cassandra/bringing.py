"""The way back: plan A for a whole node of the same ring, plan B for what goes into a running cluster."""

from collections.abc import Callable, Sequence

from pra_agent.model.references import SecretRef
from pra_agent.sources.cassandra.offline import plan_a, undo_plan_a
from pra_agent.sources.cassandra.online import plan_b, undo_plan_b
from pra_agent.sources.cassandra.restored import read_choice, read_restored
from pra_agent.sources.cassandra.settings import CassandraSettings
from pra_agent.sources.source import ReinstateContext, StateBefore

Resolve = Callable[[SecretRef], str] | None


def bring_back(settings: CassandraSettings, resolve: Resolve, context: ReinstateContext) -> Sequence[str]:
    """Put a node's snapshot back into service; a line for each thing done, and for what is left to do.

    Raises `RefusedError` when live data would be replaced without force, `SourceError` when it cannot be done.
    """
    choice = read_choice(context.options)
    restored = read_restored(context.restored)
    if choice.plan == "a":
        return plan_a(settings, resolve, restored, choice, context)
    return plan_b(settings, resolve, restored, choice, context)


def undo_bringing(settings: CassandraSettings, resolve: Resolve, state: StateBefore) -> None:
    """After a crash amid a restore: what was there before is back, copies are gone."""
    undo_plan_b(state)
    undo_plan_a(settings, resolve, state)
