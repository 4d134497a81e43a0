"""Moments as people write them: a date, a time, or how long ago."""

from datetime import UTC, datetime, time, timedelta

import typer

from pra_agent.clock import SystemClock
from pra_agent.units import parse_duration

METAVAR = "WHEN"
HELP = 'like "2026-11-30", "2026-11-30 14:05", "2026-11-30T14:05+01:00" or "3h ago"; UTC unless a zone is given'


def parse_when(text: str, now: datetime) -> datetime:
    """Read a moment; a date alone is the end of that day. Raises ValueError."""
    ago = text.strip().removesuffix("ago").strip()
    if ago != text.strip():
        return now - parse_duration(ago)
    moment = datetime.fromisoformat(text.strip())
    if len(text.strip()) <= len("2026-11-30"):
        moment = datetime.combine(moment.date(), time(), moment.tzinfo) + timedelta(days=1, microseconds=-1)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)


def when(text: str) -> datetime:
    """Read a moment of the command line."""
    try:
        return parse_when(text, SystemClock().now())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no moment; write it {HELP}") from error
