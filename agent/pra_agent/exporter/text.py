"""Numbers and times as people read them, and the escaping of all text that goes into the page."""

from datetime import datetime
from html import escape
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def text(value: object) -> str:
    """Make any text safe inside an element or a quoted attribute."""
    # Names of files and hosts may hold control characters; HTML does not allow them, escaped or not.
    return escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)))


def size(number: float | None) -> str:
    """Tell bytes: 1.5 GiB."""
    if number is None:
        return "unknown"
    value, unit = float(number), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def span(seconds: float | None) -> str:
    """Tell a duration by its two largest units: 3 h 20 min."""
    if seconds is None:
        return "unknown"
    if seconds < 0:
        return f"-{span(-seconds)}"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min {whole % 60} s" if minutes < 10 and whole % 60 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"


def moment(when: datetime | None, now: datetime, never: str = "never") -> str:
    """Tell a time as how long ago or until; the exact one is in the element."""
    if when is None:
        return never
    away = (when - now).total_seconds()
    told = f"in {span(away)}" if away > 0 else f"{span(-away)} ago"
    exact = when.strftime("%Y-%m-%d %H:%M:%S UTC")
    return f'<time datetime="{when.isoformat()}" title="{exact}">{told}</time>'
