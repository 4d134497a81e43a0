"""Operations on the repository as a whole: asked of the daemon, or done here with --direct."""

from collections.abc import Mapping

from pra_agent.cli.directly import run_directly
from pra_agent.cli.options import Options
from pra_agent.cli.output import Output
from pra_agent.cli.progress import showing
from pra_agent.cli.reaching import configuration, daemon
from pra_agent.daemon.requests import RunRequest
from pra_agent.errors import Interrupted
from pra_agent.model.runs import Operation, RunRecord


def operate(chosen: Options, output: Output, operation: Operation, asked: Mapping[str, object]) -> RunRecord:
    """Run an operation, show how far it is, and return its record."""
    if chosen.direct:
        with showing(output) as report:
            return run_directly(configuration(chosen), RunRequest(operation, options=asked), report)
    with daemon(chosen) as client:
        try:
            with showing(output) as report:
                return client.operate(operation, report, **asked)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted; the daemon goes on with the {operation}", advice="pra-agent status shows it."
            ) from error


def number(record: RunRecord, *names: str) -> int:
    """A number in the details of a record, 0 when there is none."""
    value: object = record.detail
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - JSON
    return value if isinstance(value, int) else 0
