"""Watching: again and again, past a daemon that is away, until Ctrl-C."""

from pra_agent.cli.output import Output
from pra_agent.cli.watching import EVERY, watch
from pra_agent.clock import SystemClock
from pra_agent.errors import DaemonUnreachable


class Impatient(SystemClock):
    """A clock whose third sleep is interrupted."""

    def __init__(self):
        self.slept: list[float] = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        if len(self.slept) == 3:
            raise KeyboardInterrupt


def test_until_it_is_interrupted(capsys):
    clock = Impatient()
    shown: list[int] = []

    def show():
        shown.append(len(shown))
        if len(shown) == 2:
            raise DaemonUnreachable("nobody listens")

    watch(Output(), show, clock)
    assert shown == [0, 1, 2]
    assert clock.slept == [EVERY] * 3
    assert capsys.readouterr().out == "nobody listens\n"
