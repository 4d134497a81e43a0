"""Showing something again and again until it is interrupted."""

import sys
from collections.abc import Callable

from pra_agent.cli.output import Output, is_terminal
from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import DaemonUnreachable

EVERY = 2.0
_CLEAR = "\x1b[H\x1b[2J"


def watch(output: Output, show: Callable[[], object], clock: Clock | None = None) -> None:
    """Show it every two seconds, on a cleared screen where there is one, until Ctrl-C. A daemon may come and go."""
    ticking = clock or SystemClock()
    try:
        while True:
            if is_terminal(sys.stdout) and not output.json:
                print(_CLEAR, end="")
            try:
                show()
            except DaemonUnreachable as error:
                output.line(error.message)
            ticking.sleep(EVERY)
    except KeyboardInterrupt:
        return
