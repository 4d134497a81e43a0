"""Log lines on standard error: key=value, or JSON; never a secret, never a stack trace for a user's mistake."""

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pra_agent.errors import PraError

_SECRET = re.compile(r"pass(word|phrase)|secret|token|credential|authorization|master_key", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


def configure(*, json: bool = False, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Set up logging for this process. Under the systemd journal, which has its own, lines carry no time."""
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _mistakes_have_no_trace,
        _no_secrets,
    ]
    if json or "JOURNAL_STREAM" not in os.environ:
        chain.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if json:
        chain += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=str)]
    else:
        chain += [
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
            ),
        ]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream if stream is not None else sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What libraries say through the standard module: only what needs attention.
    logging.basicConfig(stream=stream if stream is not None else sys.stderr, level=logging.ERROR, force=True)


def _mistakes_have_no_trace(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    found = event.get("exc_info")
    error = sys.exc_info()[1] if found is True else found
    if isinstance(error, PraError):
        del event["exc_info"]
        event["error"] = error.message
        if error.advice:
            event["advice"] = error.advice
    return event


def _no_secrets(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    _clean(event)
    return event


def _clean(values: MutableMapping[str, object]) -> None:
    for key, value in values.items():
        if _SECRET.search(key):
            values[key] = "***"
        elif isinstance(value, str):
            values[key] = _IN_URL.sub("***@", value)
