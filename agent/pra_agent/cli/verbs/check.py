"""check: verify the repository."""

from typing import cast

import typer

from pra_agent.cli.operating import number, operate
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count, duration
from pra_agent.cli.runs import exit_code
from pra_agent.cli.subset import ReadData, ReadDataSubset, chosen_subset
from pra_agent.model.runs import Operation, Outcome
from pra_agent.units import human_size


def command(
    context: typer.Context,
    read_data: ReadData = False,
    read_data_subset: ReadDataSubset = "",
) -> None:
    """Verify that everything is there that the snapshots need, and that it is what it should be.

    Says which snapshots, jobs and paths damage hits. Exit code 1 when there is any.
    """
    chosen = options(context)
    output = Output.of(chosen)
    asked = {"read_data_subset": chosen_subset(read_data, read_data_subset)}
    record = operate(chosen, output, Operation.CHECK, asked)
    output.data({"type": "run", "run": record})
    took = (record.finished - record.started).total_seconds() if record.finished is not None else 0.0
    for kind in ("damage", "notes"):
        for line in cast("list[str]", record.detail.get(kind) or []):
            output.line(f"{kind.removesuffix('s')}: {line}")
    parts = [f"check: {'no damage' if record.outcome is Outcome.SUCCESS else record.error or record.outcome}"]
    parts.append(f"{count(number(record, 'snapshots'), 'snapshot')}, {count(number(record, 'packs'), 'pack')}")
    parts.append(f"{human_size(record.bytes)} read in {duration(took)}")
    output.line(", ".join(parts))
    hit = cast("list[str]", record.detail.get("jobs_hit") or [])
    if hit:
        output.line(f"jobs hit: {', '.join(hit)}; pra-agent repair saves what can be saved")
    raise typer.Exit(exit_code([record]))
