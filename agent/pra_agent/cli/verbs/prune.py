"""prune: give space back that no snapshot needs."""

from typing import Annotated

import typer

from pra_agent.cli.operating import number, operate
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, duration
from pra_agent.cli.pruning import everywhere
from pra_agent.cli.reaching import pruning_configuration
from pra_agent.cli.runs import exit_code
from pra_agent.model.runs import Operation
from pra_agent.units import human_size


def command(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show the plan.")] = False,
) -> None:
    """Give back the space that no snapshot needs, within the configured time and amounts.

    It holds the exclusive lock: backups wait. What is left over for want of time is done the next time. On a pruning
    host (pruner in the configuration) --direct walks all hosts that are named there, or the one that --as-node names;
    exit code 1 when one failed, or when something had been written over.
    """
    chosen = options(context)
    output = Output.of(chosen)
    pruning = pruning_configuration(chosen)
    if pruning is not None:
        raise typer.Exit(everywhere(pruning, output, Operation.PRUNE, node=chosen.as_node, dry_run=dry_run))
    record = operate(chosen, output, Operation.PRUNE, {"dry_run": dry_run})
    output.data({"type": "run", "run": record})
    took = (record.finished - record.started).total_seconds() if record.finished is not None else 0.0
    size = human_size(number(record, "repository_size_bytes"))
    if dry_run:
        output.line(f"prune: a plan only, nothing was changed; the repository has {size}")
    else:
        error = f", {record.error}" if record.error else ""
        output.line(f"prune: {record.outcome} in {duration(took)}, the repository has {size} now{error}")
    raise typer.Exit(exit_code([record]))
