"""Files to a `Config`: read, merged, validated, each job merged with the defaults."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from pra_agent.config.messages import explain
from pra_agent.config.models import Config, Defaults, Job, check_name
from pra_agent.config.places import Document, Problem, dotted, merge, read_document
from pra_agent.errors import ConfigError

DEFAULT_PATH = Path("/etc/pra-agent/config.yaml")


class ConfigProblems(ConfigError):
    """Everything that is wrong with a configuration: `problems`, one line each, is also the message."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.place, p.key)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with the places of its keys, for messages about what the models cannot see."""

    config: Config
    document: Document

    def problem(self, *path: str | int, what: str, suggestion: str = "", warning: bool = False) -> Problem:
        """Make a problem about a key."""
        return Problem(self.document.place(path), dotted(path), what, suggestion, warning)


def load(path: Path = DEFAULT_PATH) -> Config:
    """Read the configuration and its conf.d. Raises `ConfigError` with one line for each problem."""
    return read(path).config


def read(path: Path = DEFAULT_PATH) -> Loaded:
    """Like `load`, with the places of all keys."""
    problems: list[Problem] = []
    document = merge([read_document(file, problems) for file in _files(path)], problems)
    config = _build(document, problems)
    if problems or config is None:
        raise ConfigProblems(problems)
    return Loaded(config, document)


def _files(path: Path) -> list[Path]:
    """The main file, then those of the conf.d beside it, by name."""
    try:
        with path.open("rb"):
            extra = sorted(path.parent.glob("conf.d/*.yaml"))
        for file in extra:
            with file.open("rb"):
                pass
    except OSError as error:
        where = str(error.filename or path)
        raise ConfigError(
            f"{where}: cannot be read: {error.strerror}",
            advice="Name another file with --config, or copy the commented example from packaging/config.yaml."
            if isinstance(error, FileNotFoundError)
            else "Run it as root, or give this user the right to read it.",
        ) from error
    return [path, *extra]


def _build(document: Document, problems: list[Problem]) -> Config | None:
    jobs = document.data.get("jobs", {})
    defaults = _defaults(document)
    built: dict[str, Job] = {}
    if isinstance(jobs, Mapping):
        for name, raw in cast("Mapping[str, object]", jobs).items():
            job = _job(name, raw, defaults, document, problems)
            if job is not None:
                built[name] = job
    else:
        problems.append(Problem(document.place(("jobs",)), "jobs", "must be a mapping of names to jobs"))
    try:
        return _with_cache(Config.model_validate({**document.data, "jobs": built}))
    except ValidationError as error:
        problems.extend(explain(error, Config, document))
        return None


def _with_cache(config: Config) -> Config:
    """Let `limits.cache` be the size of the repository's cache, unless its tuning says otherwise."""
    tuning = config.repository.tuning
    if "cache_size" in tuning.model_fields_set:
        return config
    tuning = tuning.model_copy(update={"cache_size": config.limits.cache})
    return config.model_copy(update={"repository": config.repository.model_copy(update={"tuning": tuning})})


def _defaults(document: Document) -> Defaults:
    """The defaults, or the built-in ones when they are wrong (which `Config` reports)."""
    try:
        return Defaults.model_validate(document.data.get("defaults", {}))
    except ValidationError:
        return Defaults()


def _job(name: str, raw: object, defaults: Defaults, document: Document, problems: list[Problem]) -> Job | None:
    path = ("jobs", name)
    place = document.place(path)
    try:
        check_name(name)
    except ValueError as error:
        what, _, suggestion = str(error).partition("; ")
        problems.append(Problem(place, dotted(path), what, suggestion))
    if not isinstance(raw, Mapping):
        problems.append(Problem(place, dotted(path), "must be a mapping", "give it a source: {type: ..., ...}"))
        return None
    written = cast("Mapping[str, object]", raw)
    inherited = {key: getattr(defaults, key) for key in Defaults.model_fields if key not in written}
    if "name" in written:
        problems.append(
            Problem(document.place((*path, "name")), dotted((*path, "name")), "unknown key", "a job's key is its name")
        )
    try:
        return Job.model_validate({**inherited, **written, "name": name})
    except ValidationError as error:
        problems.extend(explain(error, Job, document, path))
        return None


def closest_job(name: str, config: Config) -> str:
    """A sentence about a job that is not configured."""
    close = difflib.get_close_matches(name, config.jobs, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Configured jobs: {', '.join(config.jobs) or 'none'}."
