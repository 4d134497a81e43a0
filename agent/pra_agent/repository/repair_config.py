"""A repository whose config file is lost or broken: the key slots still give the master key, so it is written anew."""

from contextlib import suppress

from pra_agent.errors import DamagedError, NotFound, RefusedError
from pra_agent.repository.codec import Codec
from pra_agent.repository.config_file import RepositoryConfig
from pra_agent.repository.keys import open_master_key
from pra_agent.storage.backend import Backend, Handle, Kind

_CONFIG = Handle(Kind.CONFIG)


def rebuild_config(backend: Backend, password: str, *, repository_id: str = "") -> RepositoryConfig:
    """Write a new config; with the repository's own id, if that is known (state directories are named by it).

    All data stays readable. Stock restic would cut new data at other places than before, because its chunker's
    polynomial is lost; ours is keyed by the master key. `RefusedError` when the config is whole, `WrongKey` when the
    password opens no key slot.
    """
    master, _ = open_master_key(backend, password)
    codec = Codec(master)
    with suppress(NotFound, DamagedError):
        RepositoryConfig.unseal(codec, backend.get(_CONFIG))
        raise RefusedError("the repository's config is whole", advice="There is nothing to rebuild.")
    fresh = RepositoryConfig.generate()
    config = RepositoryConfig(repository_id or fresh.id, fresh.polynomial)
    with suppress(NotFound):
        backend.delete(_CONFIG)
    backend.put(_CONFIG, config.seal(codec))
    return config
