"""daemon: run in the foreground, as systemd wants it."""

from typing import Annotated

import typer

from pra_agent.cli.options import options
from pra_agent.daemon import service
from pra_agent.errors import UsageError


def command(
    context: typer.Context,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines instead of key=value.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the daemon in the foreground: the schedule, the control socket and the metrics.

    SIGHUP reloads the configuration (a bad one is refused, and the old one stays), SIGTERM stops it in order.
    """
    chosen = options(context)
    if chosen.direct or chosen.as_node:
        raise UsageError("--direct and --as-node are for commands without the daemon; this is the daemon")
    raise typer.Exit(service.main(chosen.config, log_json=log_json or chosen.json, verbose=verbose or chosen.debug))
