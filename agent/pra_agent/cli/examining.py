"""What doctor looks at, one finding at a time. Each examination yields findings and raises nothing."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pra_agent import __version__
from pra_agent.cli.asking import ask_secret
from pra_agent.cli.directly import private_state
from pra_agent.cli.durations import usual_durations
from pra_agent.cli.output import age, count
from pra_agent.clock import Clock
from pra_agent.config import Config, Loaded
from pra_agent.config.checking import problems
from pra_agent.config.secrets import Resolver
from pra_agent.control.client import Client
from pra_agent.daemon.composition import Opening, opened_repository
from pra_agent.errors import DaemonUnreachable, PraError
from pra_agent.model.jobs import Health
from pra_agent.model.snapshots import AGENT_TAG, Snapshot
from pra_agent.operations import coverage
from pra_agent.repository.repository import Repository
from pra_agent.units import human_size

SKEW_WARN, SKEW_FAIL = timedelta(seconds=30), timedelta(minutes=5)
#: Capabilities that let a process read everything (capability.h).
_READ_EVERYTHING = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2}


class Verdict(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    subject: str
    verdict: Verdict
    message: str
    advice: str = ""


def _ok(subject: str, message: str) -> Finding:
    return Finding(subject, Verdict.OK, message)


def _warn(subject: str, message: str, advice: str = "") -> Finding:
    return Finding(subject, Verdict.WARN, message, advice)


def _fail(subject: str, message: str, advice: str = "") -> Finding:
    return Finding(subject, Verdict.FAIL, message, advice)


def examine(loaded: Loaded, clock: Clock) -> Iterator[Finding]:
    """Everything, from the near to the far."""
    config = loaded.config
    yield from _configuration(loaded)
    yield from _rights(config)
    yield from _disk(config)
    yield from _daemon(config)
    yield from _coverage(config)
    yield from _repository(config, "", "repository", clock)
    for copy in config.copies:
        yield from _repository(config, copy.label, f"copy {copy.label}", clock)


def _configuration(loaded: Loaded) -> Iterator[Finding]:
    durations = usual_durations(loaded.config)
    found = list(problems(loaded, resolver=Resolver(ask=ask_secret), durations=durations))
    for problem in found:
        make = _warn if problem.warning else _fail
        yield make("configuration", f"{problem.place}: {problem.key}: {problem.what}", problem.suggestion)
    if not found:
        files, jobs = count(len(loaded.document.files), "file"), count(len(loaded.config.jobs), "job")
        yield _ok("configuration", f"{files}, {jobs}, all references can be resolved")


def _rights(config: Config) -> Iterator[Finding]:
    if os.geteuid() == 0 or _capable():
        yield _ok("rights", "this process can read every file")
        return
    unreadable = [
        str(path)
        for job in config.jobs.values()
        for path in getattr(job.source, "paths", ())
        if not os.access(path, os.R_OK)
    ]
    if unreadable:
        yield _fail(
            "rights",
            f"this user cannot read {', '.join(unreadable[:3])}",
            "Run it as root, or give the service AmbientCapabilities=CAP_DAC_READ_SEARCH.",
        )
    else:
        yield _warn("rights", "not root and without CAP_DAC_READ_SEARCH: files of other users may be missing")


def _capable() -> bool:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    effective = int(line.split()[1], 16)
    return any(effective >> bit & 1 for bit in _READ_EVERYTHING.values())


def _disk(config: Config) -> Iterator[Finding]:
    for subject, wanted in (("state", config.state.dir), ("scratch", config.scratch_dir)):
        place = next((path for path in (wanted, *wanted.parents) if path.exists()), Path("/"))
        try:
            usage = shutil.disk_usage(place)
        except OSError as error:
            yield _fail(subject, f"{place}: {error.strerror}")
            continue
        need = config.limits.free_bytes(usage.total)
        text = f"{human_size(usage.free)} free at {wanted}"
        if usage.free < need:
            yield _fail(subject, f"{text}, less than min_free ({human_size(need)})", "Free some room on that disk.")
        else:
            yield _ok(subject, text)


def _daemon(config: Config) -> Iterator[Finding]:
    try:
        with Client(config.control.socket) as client:
            status, jobs = client.status(), client.jobs()
    except DaemonUnreachable as error:
        yield _warn("daemon", error.message, error.advice)
        return
    except PraError as error:
        yield _fail("daemon", error.message, error.advice)
        return
    if status.config_error:
        yield _fail("daemon", f"refused the newest configuration: {status.config_error}", "pra-agent config check")
    if status.version != __version__:
        yield _warn("daemon", f"is version {status.version}, this is {__version__}", "Restart the daemon.")
    if status.on_hold:
        yield _warn("daemon", "is on hold: no scheduled run", "pra-agent release when the host is well.")
    yield _ok("daemon", f"answers at {config.control.socket}, {'ready' if status.ready else 'not ready yet'}")
    for job in jobs:
        subject = f"job {job.fact.name}"
        if job.health in (Health.OK, Health.AWAITING_FIRST):
            yield _ok(subject, f"{job.health}, data {age(job.age)} old")
        else:
            make = _fail if job.health is Health.BREACHED else _warn
            reason = job.last_attempt.error if job.last_attempt is not None else ""
            yield make(subject, f"{job.health}, data {age(job.age)} old{f'; {reason}' if reason else ''}")


def _coverage(config: Config) -> Iterator[Finding]:
    sources = {name: job.source for name, job in config.jobs.items()}
    found = coverage.look(sources, Resolver(ask=ask_secret).resolve, intended=config.unprotected_ok)
    for one in found.unprotected:
        yield _warn("coverage", f"{one.kind} {one.name} is protected by no job", one.lines)
    for place, why in found.unknown.items():
        yield _warn("coverage", f"{place} could not be asked: {why}")
    if not found.unprotected and found.counted:
        yield _ok("coverage", f"all that was found is protected ({_numbers(found.counted)})")


def _numbers(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{kind}: {number}" for kind, number in counted.items())


def _repository(config: Config, copy: str, subject: str, clock: Clock) -> Iterator[Finding]:
    opening = Opening(copy=copy, state=private_state(), resolver=Resolver(ask=ask_secret))
    try:
        with opened_repository(config, clock, opening) as repository:
            yield _ok(subject, f"{repository.backend.location} opens, id {repository.id[:10]}")
            yield from _inside(repository, config, subject, clock.now())
    except PraError as error:
        yield _fail(subject, error.message, error.advice)


def _inside(repository: Repository, config: Config, subject: str, now: datetime) -> Iterator[Finding]:
    slots = repository.keys.list()
    if len(slots) < 2:
        yield _warn(
            subject,
            "one key slot only: whoever loses that password loses every backup",
            "pra-agent key add, or make sure that the recovery kit is off this host.",
        )
    yield from _locks(repository, subject)
    theirs = repository.backend.store_time()
    if theirs is not None:
        skew = abs(theirs - now)
        verdict = Verdict.OK if skew <= SKEW_WARN else Verdict.WARN if skew <= SKEW_FAIL else Verdict.FAIL
        advice = "" if verdict is Verdict.OK else "Set up NTP on this host."
        yield Finding(subject, verdict, f"the store's clock is {age(skew.total_seconds())} off", advice)
    snapshots = repository.snapshots()
    for name, reason in repository.unreadable_snapshots.items():
        yield _fail(subject, f"snapshot {name[:8]} cannot be read: {reason}", "pra-agent check")
    yield from _snapshots(snapshots, config, subject, now)


def _locks(repository: Repository, subject: str) -> Iterator[Finding]:
    locks = repository.locks.read_all()
    for lock in locks:
        if lock.dead or lock.stale:
            yield _warn(subject, f"{lock} is left over", "pra-agent unlock")
        else:
            yield _ok(subject, f"{lock} is in use")


def _snapshots(snapshots: list[Snapshot], config: Config, subject: str, now: datetime) -> Iterator[Finding]:
    future = [one for one in snapshots if one.time > now + SKEW_FAIL]
    if future:
        yield _fail(subject, f"{count(len(future), 'snapshot')} from the future", "Check this host's clock.")
    others = {one.hostname for one in snapshots if AGENT_TAG in one.tags} - {config.node}
    if others:
        yield _warn(subject, f"also has snapshots of {', '.join(sorted(others))}", "One repository for each host.")
    for name, job in config.jobs.items():
        own = [one for one in snapshots if one.job == name and one.hostname == config.node]
        if not own:
            yield _warn(subject, f"no snapshot of {name} yet", f"pra-agent backup {name}")
            continue
        old = now - own[-1].time
        make = _ok if old <= job.rpo else _warn
        yield make(subject, f"{name}: {count(len(own), 'snapshot')}, the newest is {age(old.total_seconds())} old")
