"""How a verb reaches what it works on: the configuration, the daemon's socket, or (--direct) the repository itself."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

from pra_agent.cli.asking import ask_secret
from pra_agent.cli.directly import private_state
from pra_agent.cli.options import Options
from pra_agent.cli.pruning_hosts import configurations
from pra_agent.clock import SystemClock
from pra_agent.config import Config, load
from pra_agent.config.loading import closest_job
from pra_agent.config.secrets import Resolver
from pra_agent.control.client import Client
from pra_agent.control.settings import ControlSettings
from pra_agent.daemon.composition import Opening, opened_repository
from pra_agent.errors import ConfigError, UsageError
from pra_agent.model.snapshots import SnapshotReader
from pra_agent.repository.repository import Repository


def configuration(options: Options) -> Config:
    """Read the configuration; with --as-node, as if this host were that node.

    With --direct on a pruning host it is the one of the host that --as-node names, and the repository's credentials are
    the pruner's.
    """
    pruning = pruning_configuration(options)
    if pruning is not None:
        known = {one.node: one for one in configurations(pruning)}
        named = known.get(options.as_node or pruning.node)
        if named is not None:
            return named
    config = load(options.config)
    return config.model_copy(update={"node": options.as_node}) if options.as_node else config


def pruning_configuration(options: Options) -> Config | None:
    """This host's configuration if it is a pruning host and works directly, else None."""
    if not options.direct:
        return None
    config = load(options.config)
    return config if config.pruner is not None else None


@contextmanager
def daemon(options: Options) -> Generator[Client]:
    """Talk to the daemon. A user who may use the socket need not be able to read the configuration."""
    if options.direct:
        raise UsageError("this is the daemon's to do; it does not go with --direct")
    if options.as_node:
        raise UsageError("--as-node goes with --direct only")
    try:
        socket = load(options.config).control.socket
    except ConfigError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        socket = ControlSettings.model_validate({}).socket
    with Client(socket) as client:
        yield client


@contextmanager
def direct(options: Options, opening: Opening | None = None) -> Generator[Repository]:
    """Open the repository in this process; neither locked nor with its index loaded.

    It keeps its cache in this user's own state directory. On a pruning host it is opened as `configuration` says.
    """
    chosen = opening or Opening()
    chosen = replace(chosen, state=private_state(), resolver=Resolver(ask=ask_secret))
    config = configuration(replace(options, direct=True))
    with opened_repository(config, SystemClock(), chosen) as repository:
        yield repository


@contextmanager
def direct_reader(options: Options, as_of: datetime | None = None) -> Generator[Repository]:
    """Open the repository for reading: under a shared lock, with its index loaded.

    A past (`as_of`) cannot be locked, and nobody can change it.
    """
    with direct(options, Opening(as_of=as_of)) as repository, ExitStack() as held:
        if as_of is None:
            held.enter_context(repository.lock())
        repository.load_index()
        yield repository


@contextmanager
def reader(options: Options, purpose: str, as_of: datetime | None = None) -> Generator[SnapshotReader]:
    """Read snapshots and blobs, through the socket or directly. The past (`as_of`) can be read directly only."""
    if options.direct:
        with direct_reader(options, as_of) as repository:
            yield repository
        return
    if as_of is not None:
        raise UsageError("--as-of goes with --direct only", advice="Say --direct, too.")
    with daemon(options) as client, client.session(purpose) as session:
        yield session


def chosen_jobs(config: Config, names: Sequence[str]) -> list[str]:
    """The jobs that were named, or all. Raises `UsageError` for one that is not configured."""
    for name in names:
        if name not in config.jobs:
            raise UsageError(f"there is no job {name!r}", advice=closest_job(name, config))
    return list(dict.fromkeys(names)) or list(config.jobs)
