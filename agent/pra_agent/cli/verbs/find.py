"""find: search snapshots for names."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pra_agent.cli.choosing import AsOf, choose, node_of
from pra_agent.cli.entries import entry_json, long_line
from pra_agent.cli.jobs import job_names
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count, instant
from pra_agent.cli.reaching import reader
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.browse import find_entries


def command(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    patterns: Annotated[
        list[str],
        typer.Argument(metavar="PATTERN...", help="Shell patterns of names; of whole paths when they have a slash."),
    ],
    job: Annotated[
        list[str] | None, typer.Option("--job", "-j", autocompletion=job_names, help="Only in snapshots of this job.")
    ] = None,
    snapshot: Annotated[
        list[str] | None, typer.Option("--snapshot", "-s", metavar="ID", help="Only in this snapshot.")
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--all", "-a", help="In all snapshots, not only in the newest of each job.")
    ] = False,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="Upper and lower case are the same.")] = (
        False
    ),
    as_of: AsOf = None,
) -> None:
    """Search the newest snapshot of each job (or others) for names. Exit code 1 when nothing is found."""
    chosen = options(context)
    output = Output.of(chosen)
    with reader(chosen, "find", as_of) as source:
        known = source.snapshots()
        if snapshot:
            searched: Sequence[Snapshot] = [choose(chosen, known, one) for one in snapshot]
        else:
            searched = _of_jobs(known, job or [], node_of(chosen), everywhere=everywhere)
        last, number = "", 0
        for found in find_entries(source, searched, patterns, ignore_case=ignore_case):
            number += 1
            output.data({"type": "found", "snapshot": found.snapshot.id, **entry_json(found.path, found.node)})
            if found.snapshot.id != last:
                last = found.snapshot.id
                output.line(f"snapshot {last[:8]} of {found.snapshot.job}, {instant(found.snapshot.time)} UTC")
            output.line(f"  {long_line(found.path, found.node)}")
    if not number:
        output.note(f"nothing found in {count(len(searched), 'snapshot')}")
        raise typer.Exit(1)


def _of_jobs(known: Sequence[Snapshot], jobs: Sequence[str], node: str, *, everywhere: bool) -> list[Snapshot]:
    wanted = [one for one in known if (not jobs or one.job in jobs) and (not node or one.hostname == node)]
    if everywhere:
        return wanted[::-1]
    return list({(one.hostname, one.job): one for one in wanted}.values())
