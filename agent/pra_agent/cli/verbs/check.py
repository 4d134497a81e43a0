"""check: verify the repository."""

import re
from typing import Annotated, cast

import typer

from pra_agent.cli.operating import number, operate
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count, duration
from pra_agent.cli.runs import exit_code
from pra_agent.model.runs import Operation, Outcome
from pra_agent.units import human_size

_SUBSET = re.compile(r"100%|[0-9]{1,2}(\.[0-9]{1,4})?%|[1-9][0-9]{0,3}/[1-9][0-9]{0,3}")


def _subset(text: str) -> str:
    if text and not _SUBSET.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no part of the data; write it like 5% or 1/7")
    return text


def command(
    context: typer.Context,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and verify all data.")] = False,
    read_data_subset: Annotated[
        str,
        typer.Option(
            "--read-data-subset",
            metavar="PART",
            callback=_subset,
            help="Read and verify a part: 5% (chosen at random), or 1/7 (the first of seven).",
        ),
    ] = "",
) -> None:
    """Verify that everything is there that the snapshots need, and that it is what it should be.

    Says which snapshots, jobs and paths damage hits. Exit code 1 when there is any.
    """
    chosen = options(context)
    output = Output.of(chosen)
    asked = {"read_data_subset": "100%" if read_data else read_data_subset}
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
