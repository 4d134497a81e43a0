"""From the configuration to open things: backends, repositories, sources. Used by runs and by the cli's --direct.

with opened_repository(config, clock) as repository: ...
with opened_repository(config, clock, Opening(state=None, copy="second", as_of=when)) as repository: ...
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pra_agent.clock import Clock
from pra_agent.config import Config, CopySettings, Job, SecretRef
from pra_agent.config.secrets import Resolver
from pra_agent.errors import UsageError
from pra_agent.repository.host import Host, this_host
from pra_agent.repository.repository import Repository
from pra_agent.sources.source import Source
from pra_agent.storage.backend import Backend
from pra_agent.storage.metered import Meter
from pra_agent.storage.opening import open_backend, open_originals
from pra_agent.storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a repository.

    `copy` is the label of one of the configuration's copies, "" the host's own repository. `state` is the directory
    for what this host keeps of it (None: nothing is kept). `as_of` reads a versioned bucket as it was then.
    """

    copy: str = ""
    state: Path | None = None
    resolver: Resolver = field(default_factory=Resolver)
    meter: Meter | None = None
    as_of: datetime | None = None


def find_copy(config: Config, label: str) -> CopySettings:
    """The copy with that label or URL; raises `UsageError`."""
    for copy in config.copies:
        if label in {copy.label, copy.url}:
            return copy
    known = ", ".join(copy.label for copy in config.copies) or "none"
    raise UsageError(f"no copy is called {label}; configured: {known}")


@contextmanager
def opened_backend(config: Config, clock: Clock, opening: Opening | None = None) -> Generator[Backend]:
    """The backend of the repository (or a copy) with its limits and retries; closed at the end."""
    opening = opening or Opening()
    settings, _ = _place(config, opening.copy)
    backend = open_backend(settings, clock, meter=opening.meter, as_of=opening.as_of)
    try:
        yield backend
    finally:
        backend.close()


@contextmanager
def opened_originals(config: Config, clock: Clock, opening: Opening | None = None) -> Generator[Backend | None]:
    """What was written over in the repository's (or a copy's) bucket; None where there are no versions."""
    settings, _ = _place(config, (opening or Opening()).copy)
    backend = open_originals(settings, clock)
    try:
        yield backend
    finally:
        if backend is not None:
            backend.close()


@contextmanager
def opened_repository(config: Config, clock: Clock, opening: Opening | None = None) -> Generator[Repository]:
    """The repository (or a copy), open; its backend is closed at the end.

    Raises `SecretError`, `NoRepository`, `WrongKey` and what the backend raises.
    """
    with _with_repository(config, clock, opening or Opening(), Repository.open) as repository:
        yield repository


@contextmanager
def new_repository(config: Config, clock: Clock, opening: Opening | None = None) -> Generator[Repository]:
    """Make the repository (or a copy) and open it. Raises `RepositoryExists` and as `opened_repository`."""
    with _with_repository(config, clock, opening or Opening(), Repository.init) as repository:
        yield repository


@contextmanager
def _with_repository(
    config: Config, clock: Clock, opening: Opening, get: Callable[..., Repository]
) -> Generator[Repository]:
    _, reference = _place(config, opening.copy)
    password = opening.resolver.resolve(reference)
    with opened_backend(config, clock, opening) as backend:
        yield get(
            backend,
            password,
            clock=clock,
            host=host_of(config),
            state=opening.state,
            settings=config.repository.tuning,
        )


def host_of(config: Config) -> Host:
    """This host and process under the configuration's node name."""
    return this_host(config.node)


def build_source(job: Job, resolver: Resolver | None = None) -> Source:
    """Make the job's source; its own libraries are imported only now, and its secrets are read when they are needed."""
    return job.source.build((resolver or Resolver()).resolve)


def never_captured(config: Config) -> Sequence[bytes]:
    """Raw paths that no job saves: state, scratch, and repositories that are directories."""
    places: list[StorageSettings] = [config.repository, *config.copies]
    paths = [config.state.dir, config.scratch_dir, *(Path(place.url) for place in places if place.s3 is None)]
    return [bytes(path) for path in paths]


def _place(config: Config, copy: str) -> tuple[StorageSettings, SecretRef]:
    if not copy:
        return config.repository, config.repository.password
    found = find_copy(config, copy)
    return found, config.copy_password(found)
