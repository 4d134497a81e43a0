"""What status says beside its table."""

from datetime import UTC, datetime
from typing import Any

from pra_agent.cli.output import Output
from pra_agent.cli.verbs.status import _show
from pra_agent.model.jobs import DaemonStatus, Destination, Health, JobFact, JobStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Told:
    """A client of a daemon with one job, whose copy has not been made yet."""

    def status(self) -> DaemonStatus:
        return DaemonStatus("web-1", "1.0", NOW, pid=1)

    def jobs(self) -> list[JobStatus]:
        places = (Destination(), Destination("s3://dr/web-1", "dr-site"))
        fact = JobFact("app", "files", "0 * * * *", 14400.0, 7200.0, destinations=places)
        return [JobStatus(fact, Health.AWAITING_FIRST, None, {"repository": NOW})]


def test_where_the_first_data_is_awaited(capsys):
    client: Any = Told()
    _show(Output(), client)
    assert "app: nothing of it yet at dr-site\n" in capsys.readouterr().out
