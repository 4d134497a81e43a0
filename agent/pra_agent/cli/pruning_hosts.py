"""The configurations that a pruning host looks after."""

from collections.abc import Sequence

from pra_agent.config import Config, load
from pra_agent.errors import ConfigError


def configurations(config: Config) -> Sequence[Config]:
    """This host's configuration and those of the others, each with the pruner's credentials for its repository.

    Raises `ConfigError` when one cannot be read, or when two are the same node's.
    """
    pruner = config.pruner
    if pruner is None:
        return [config]
    found: dict[str, Config] = {}
    for one in (config, *(load(path) for path in pruner.hosts)):
        if one.node in found:
            raise ConfigError(f"pruner.hosts: two of the configurations are of the node {one.node}")
        repository = one.repository.model_copy(update={"credentials": pruner.credentials})
        found[one.node] = one.model_copy(update={"repository": repository, "pruner": pruner})
    return list(found.values())
