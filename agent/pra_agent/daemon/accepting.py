"""What a person has accepted, told to the repository: in a child process of the daemon, as everything that opens it."""

from dataclasses import replace

from pra_agent.daemon.actions import config_of, repository_of
from pra_agent.daemon.worker import Work
from pra_agent.model.runs import Outcome, RunRecord
from pra_agent.operations.accept import accept as accept_snapshots


def accept(work: Work) -> RunRecord:
    """Take the mark from the snapshots that the journal knows to be accepted; doing it again changes nothing."""
    wanted = {work.journal.accepted_snapshot(name) for name in config_of(work).jobs} - {""}
    if wanted:
        with repository_of(work) as (repository, _):
            accept_snapshots(wanted, repository)
    return replace(work.run, outcome=Outcome.SUCCESS, finished=work.clock.now())
