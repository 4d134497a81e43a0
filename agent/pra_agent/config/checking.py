"""What the models cannot see: schedules that cannot hold an RPO, missing paths and secrets, rights of files.

Yields problems; those with `warning` set do not keep anything from running.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from pra_agent.config.loading import Loaded
from pra_agent.config.models import Job
from pra_agent.config.places import Place, Problem
from pra_agent.config.secrets import Resolver
from pra_agent.errors import SecretError
from pra_agent.model.references import SecretRef
from pra_agent.storage.settings import CredentialsSettings
from pra_agent.units import format_duration


def problems(
    loaded: Loaded, *, resolver: Resolver | None = None, durations: Mapping[str, timedelta] | None = None
) -> Iterator[Problem]:
    """Check everything that this host can tell. `durations` are the jobs' usual ones, where they are known."""
    yield from writable_by_others(loaded)
    yield from _schedules(loaded, durations or {})
    yield from _paths(loaded)
    yield from _places(loaded)
    yield from _secrets(loaded, resolver or Resolver())
    if not loaded.config.jobs:
        yield loaded.problem("jobs", what="no job is configured, so nothing is saved", warning=True)


def writable_by_others(loaded: Loaded) -> Iterator[Problem]:
    """A configuration that others than root can write gives them the daemon's rights: refused when we are root."""
    root = os.geteuid() == 0
    for file in loaded.document.files:
        for path in (file, file.resolve().parent):
            reason = _writable(path, root=root)
            if reason:
                yield Problem(
                    Place(str(file)),
                    "",
                    f"{reason}, who could make the agent save, run or send what they like",
                    f"chown root:root {path} && chmod go-w {path}",
                    warning=not root,
                )
                break


def _writable(path: Path, *, root: bool) -> str:
    try:
        info = path.stat()
    except OSError:
        return ""
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & (stat.S_IWGRP if info.st_gid else 0) or (info.st_mode & stat.S_IWOTH and not sticky):
        return f"{path} can be written by others (mode {stat.S_IMODE(info.st_mode):04o})"
    if root and info.st_uid != 0:
        return f"{path} belongs to user {info.st_uid}"
    return ""


def _schedules(loaded: Loaded, durations: Mapping[str, timedelta]) -> Iterator[Problem]:
    for name, job in loaded.config.jobs.items():
        if job.schedule is None:
            yield loaded.problem(
                "jobs", name, "schedule", what="no schedule: it runs only when it is asked to", warning=True
            )
            continue
        late = rpo_excess(job, loaded.config.timezone, durations.get(name, timedelta(0)))
        if late:
            yield loaded.problem(
                "jobs", name, "schedule", what=late, suggestion="run it more often, or give the job a longer rpo"
            )


def rpo_excess(job: Job, timezone: str, usual: timedelta) -> str:
    """Say why a job's schedule cannot hold its RPO; "" when it can."""
    if job.schedule is None:
        return ""
    gap = job.schedule.largest_gap(timezone)
    total = gap + job.jitter + usual
    if total <= job.rpo:
        return ""
    took = f" + usual duration {format_duration(usual)}" if usual else ""
    return (
        f"the schedule's largest gap {format_duration(gap)} + jitter {format_duration(job.jitter)}{took}"
        f" is more than the RPO of {format_duration(job.rpo)}"
    )


def _paths(loaded: Loaded) -> Iterator[Problem]:
    for name, job in loaded.config.jobs.items():
        for key in ("paths", "exclude_files"):
            listed: object = getattr(job.source, key, ())
            if not isinstance(listed, tuple):
                continue
            for n, path in enumerate(cast("tuple[object, ...]", listed)):
                if not os.path.lexists(str(path)):
                    yield loaded.problem(
                        "jobs",
                        name,
                        "source",
                        key,
                        n,
                        what=f"there is no {path}",
                        suggestion="create it, or take it out of the list",
                    )


def _places(loaded: Loaded) -> Iterator[Problem]:
    config = loaded.config
    urls = {config.repository.url.rstrip("/"): ("repository", "url")}
    for n, copy in enumerate(config.copies):
        url = copy.url.rstrip("/")
        if url in urls:
            yield loaded.problem(
                "copies", n, "url", what="is the same place as another one", suggestion="a copy beside"
            )
        urls[url] = ("copies", "url")
    seen: dict[str, int] = {}
    for n, copy in enumerate(config.copies):
        if copy.label in seen:
            yield loaded.problem("copies", n, "name", what=f"the name {copy.label} is used twice")
        seen[copy.label] = n


def _secrets(loaded: Loaded, resolver: Resolver) -> Iterator[Problem]:
    for path, reference in secret_references(loaded):
        try:
            _can_be_had(reference, resolver)
        except SecretError as error:
            new = path == ("repository", "password") and reference.file is not None and not reference.file.exists()
            advice = "pra-agent init generates it" if new else error.advice
            yield loaded.problem(*path, what=error.message, suggestion=advice)


def secret_references(loaded: Loaded) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    """Yield every reference in the configuration with its key, those of sources too."""
    yield from _references(loaded.config, ())


def _references(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    if isinstance(value, SecretRef):
        yield path, value
    elif isinstance(value, CredentialsSettings):
        yield path, SecretRef(credential=value.credential, file=value.file)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _references(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            yield from _references(item, (*path, key))
    elif isinstance(value, tuple):
        for n, item in enumerate(cast("tuple[object, ...]", value)):
            yield from _references(item, (*path, n))


def _can_be_had(reference: SecretRef, resolver: Resolver) -> None:
    if reference.kms is not None:
        if not reference.kms.ciphertext_file.exists():
            raise SecretError(f"{reference.kms.ciphertext_file}: there is no such file")
        return
    resolver.resolve(reference)
