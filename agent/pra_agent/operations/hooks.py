"""Hooks: commands of the operator's around a run. `after` runs whatever happened, `on_failure` when the run failed."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pra_agent.errors import CommandError, PraError
from pra_agent.model.events import Notice, Reporter, ignore
from pra_agent.sources import command
from pra_agent.units import Duration

_SHOWN = 400


class Hook(BaseModel):
    """A command as a list of arguments; no shell sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Duration = timedelta(minutes=5)


class Hooks(BaseModel):
    """Commands around each run of a job. They see PRA_JOB, PRA_RUN and, after it, PRA_OUTCOME and PRA_ERROR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: tuple[Hook, ...] = Field(default=(), description="One that fails makes the run fail, before anything.")
    after: tuple[Hook, ...] = Field(default=(), description="Run at the end, whatever happened.")
    on_failure: tuple[Hook, ...] = Field(default=(), description="Run when the run failed, before `after`.")


@contextmanager
def around(hooks: Hooks, *, job: str, run: str, report: Reporter = ignore) -> Generator[None]:
    """Run the hooks around what is done in this context.

    Raises `CommandError` when a `before` hook fails (the `on_failure` and `after` hooks have run then). The others'
    failures are told as notices: they change nothing about what was saved.
    """
    env = {"PRA_JOB": job, "PRA_RUN": run}
    outcome: Mapping[str, str] = {"PRA_OUTCOME": "success"}
    try:
        for hook in hooks.before:
            _run("before", hook, env, report)
        yield
    except BaseException as error:
        said = error.message if isinstance(error, PraError) else type(error).__name__
        outcome = {"PRA_OUTCOME": "failed", "PRA_ERROR": said}
        _try_all("on_failure", hooks.on_failure, env | dict(outcome), report)
        raise
    finally:
        _try_all("after", hooks.after, env | dict(outcome), report)


def _try_all(kind: str, hooks: Sequence[Hook], env: Mapping[str, str], report: Reporter) -> None:
    for hook in hooks:
        try:
            _run(kind, hook, env, report)
        except PraError as error:
            report(Notice(error.message, "warning"))


def _run(kind: str, hook: Hook, env: Mapping[str, str], report: Reporter) -> None:
    try:
        done = command.run(hook.command, timeout=hook.timeout.total_seconds(), env=env)
    except CommandError as error:
        raise CommandError(
            f"hook {kind}: {error.message}", advice="Run the hook by hand as the agent's user."
        ) from error
    said = " ".join(done.text.split())[:_SHOWN]
    if said:
        report(Notice(f"hook {kind} {hook.command[0]}: {said}"))
