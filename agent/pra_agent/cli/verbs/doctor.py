"""doctor: look for what would keep a backup or a restore from working."""

from dataclasses import replace

import typer

from pra_agent.cli.examining import Finding, Verdict, examine
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count
from pra_agent.clock import SystemClock
from pra_agent.config import ConfigProblems, read


def command(context: typer.Context) -> None:
    """Look for what would keep a backup or a restore from working, on this host and in the repository.

    Configuration, secrets, rights, disk room, the daemon and its jobs, what no job protects, the repository and its
    copies: do they open with the configured password, are there locks, how far is the store's clock off.
    Changes nothing.
    Exit code 1 when something fails, 2 when the configuration does.
    """
    chosen = options(context)
    output = Output.of(chosen)
    try:
        loaded = read(chosen.config)
    except ConfigProblems as error:
        found = [
            Finding("configuration", Verdict.FAIL, str(replace(one, suggestion="")), one.suggestion)
            for one in error.problems
        ]
        for finding in found:
            _line(output, finding)
        _end(output, found)
        raise typer.Exit(2) from error
    findings: list[Finding] = []
    for finding in examine(loaded, SystemClock()):
        findings.append(finding)
        _line(output, finding)
    _end(output, findings)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(1)


def _line(output: Output, finding: Finding) -> None:
    output.line(f"{finding.verdict:<5} {finding.subject}: {finding.message}")
    if finding.advice:
        output.line(f"      {finding.advice}")


def _end(output: Output, findings: list[Finding]) -> None:
    number = {verdict: sum(one.verdict is verdict for one in findings) for verdict in Verdict}
    output.data({"type": "doctor", "ok": not number[Verdict.FAIL], "findings": findings})
    output.line(
        f"{number[Verdict.OK]} ok, {count(number[Verdict.WARN], 'warning')}, {count(number[Verdict.FAIL], 'failure')}"
    )
