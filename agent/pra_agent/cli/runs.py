"""Run records for people and for JSON, and the exit code that they make."""

from collections.abc import Sequence

from pra_agent.cli.output import Output, duration, printable_text
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.units import human_size

_CODES = {
    Outcome.SUCCESS: 0,
    Outcome.SKIPPED: 0,
    Outcome.PARTIAL: 3,
    Outcome.SUSPECT: 3,
    Outcome.FAILED: 1,
}


def exit_code(records: Sequence[RunRecord]) -> int:
    """The code of the worst run: what failed first, then what is partial."""
    codes = {_code(record) for record in records} - {0}
    worse = sorted(codes - {3})
    if worse:
        return worse[0] if len(worse) == 1 else 1
    return 3 if codes else 0


def _code(record: RunRecord) -> int:
    told = record.detail.get("exit_code")
    if record.outcome is Outcome.FAILED and isinstance(told, int) and told:
        return told
    return _CODES.get(record.outcome, 1) if record.outcome is not None else 1


def describe(record: RunRecord) -> str:
    """One line about a run that has ended."""
    name = f"{record.operation} {record.job}".strip()
    outcome = record.outcome or "running"
    parts = [f"{name}: {outcome}"]
    if record.snapshot:
        parts.append(f"snapshot {record.snapshot[:8]}")
    if record.operation is Operation.BACKUP and record.outcome not in (None, Outcome.FAILED):
        parts.append(
            f"{record.files:,} files, {human_size(record.bytes)}"
            f" ({human_size(record.bytes_added)} new, {human_size(record.bytes_stored)} stored)"
        )
    if record.files_failed:
        parts.append(f"{record.files_failed:,} files failed")
    if record.finished is not None:
        parts.append(duration((record.finished - record.started).total_seconds()))
    if record.error:
        parts.append(printable_text(record.error))
    return ", ".join(parts)


def show_runs(output: Output, records: Sequence[RunRecord]) -> None:
    """Print runs that have ended, each on a line, with the files that failed."""
    for record in records:
        output.data({"type": "run", "run": record})
        output.line(describe(record))
        for failure in record.failures[:20]:
            output.line(f"  {printable_text(failure.path)}: {failure.reason}")
        if len(record.failures) > 20:
            output.line(f"  and {len(record.failures) - 20} more (--json shows all)")
        advice = record.detail.get("advice")
        if record.outcome is Outcome.FAILED and isinstance(advice, str) and advice:
            output.line(f"  {advice}")
        if record.outcome is Outcome.SUSPECT:
            output.line(f"  It looks too small. If that is right: pra-agent accept {record.job}")
