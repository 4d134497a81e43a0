"""How long backups usually take, as far as the daemon knows."""

from collections.abc import Mapping
from datetime import timedelta

from pra_agent.config import Config
from pra_agent.control.client import Client
from pra_agent.errors import PraError


def usual_durations(config: Config) -> Mapping[str, timedelta]:
    """The duration of each job's newest good backup; nothing when the daemon does not answer."""
    try:
        with Client(config.control.socket) as client:
            jobs = client.jobs()
    except PraError:
        return {}
    return {
        job.fact.name: job.last_success.finished - job.last_success.started
        for job in jobs
        if job.last_success is not None and job.last_success.finished is not None
    }
