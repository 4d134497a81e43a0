"""What the configuration promises of each job, as the socket, the exporter and the status page want it."""

from collections.abc import Sequence

from pra_agent.config import Config, Job
from pra_agent.model.jobs import Destination, JobFact
from pra_agent.model.runs import Operation


def job_facts(config: Config) -> Sequence[JobFact]:
    """One fact a job, in the order of the configuration."""
    return [_fact(config, name, job) for name, job in config.jobs.items()]


def _fact(config: Config, name: str, job: Job) -> JobFact:
    places = [Destination(off_host=config.repository.survives_host)]
    places += [Destination(copy.url, copy.label, copy.survives_host) for copy in config.copies]
    full = job.full_every
    return JobFact(
        name=name,
        source=job.source.type,
        schedule=str(job.schedule) if job.schedule is not None else "",
        rpo=job.rpo.total_seconds(),
        rto=job.rto.total_seconds(),
        destinations=tuple(places),
        operations=(Operation.BACKUP, Operation.COPY) if config.copies else (Operation.BACKUP,),
        full=full.total_seconds() if full is not None else None,
    )
