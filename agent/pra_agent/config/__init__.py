"""YAML to frozen models, with errors that name file, line and key.

`load(path) -> Config` raises `ConfigError`, one line for each problem. `Config.jobs` are merged with the defaults.
`secrets.Resolver` turns a `SecretRef` into the secret; `checking.problems` finds what the models cannot see (an RPO
that the schedule cannot hold, missing paths and secrets, rights); `Schedule.next_after` tells when a job is due.
"""

from pra_agent.config.loading import DEFAULT_PATH, ConfigProblems, Loaded, load, read
from pra_agent.config.models import Config, CopySettings, Defaults, Job, RepositorySettings
from pra_agent.config.schedule import Schedule
from pra_agent.model.references import SecretRef

__all__ = [
    "DEFAULT_PATH",
    "Config",
    "ConfigProblems",
    "CopySettings",
    "Defaults",
    "Job",
    "Loaded",
    "RepositorySettings",
    "Schedule",
    "SecretRef",
    "load",
    "read",
]
