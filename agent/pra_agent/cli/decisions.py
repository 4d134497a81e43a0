"""How forget's decisions are shown: which snapshots stay, and why."""

from collections.abc import Sequence

from pra_agent.cli.output import Output, count, instant
from pra_agent.retention import Decision

COLUMNS = ("SNAPSHOT", "DATA OF (UTC)", "NODE", "JOB", "", "WHY")


def show_decisions(output: Output, decisions: Sequence[Decision], **where: str) -> None:
    """Print what a forget would do; `where` goes into the JSON."""
    output.data(
        {
            "type": "forget_plan",
            **where,
            "snapshots": [
                {
                    "id": one.snapshot.id,
                    "time": one.snapshot.time,
                    "node": one.snapshot.hostname,
                    "job": one.snapshot.job,
                    "keep": one.keep,
                    "reasons": one.reasons,
                }
                for one in decisions
            ],
        }
    )
    output.table(
        COLUMNS,
        [
            (
                one.snapshot.id[:8],
                instant(one.snapshot.time),
                one.snapshot.hostname,
                one.snapshot.job or "-",
                "keep" if one.keep else "forget",
                ", ".join(one.reasons) or "no rule keeps it",
            )
            for one in decisions
        ],
    )
    gone = sum(not one.keep for one in decisions)
    output.line(f"would forget {count(gone, 'snapshot')}, and keep {len(decisions) - gone:,}")
