"""Names of jobs as arguments, which a shell can complete from the configuration."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.options import CONFIG_VARIABLE, DEFAULT_CONFIG
from pra_agent.config import load
from pra_agent.errors import PraError


def job_names(incomplete: str) -> list[str]:
    """The configured jobs that begin so; none where the configuration cannot be read."""
    try:
        config = load(Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)))
    except PraError:
        return []
    return [name for name in config.jobs if name.startswith(incomplete)]


JobNames = Annotated[
    list[str] | None, typer.Argument(metavar="[JOB]...", autocompletion=job_names, help="Jobs; all when none is named.")
]
OneJob = Annotated[str, typer.Argument(metavar="JOB", autocompletion=job_names, help="A configured job.")]
