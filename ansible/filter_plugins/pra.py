"""What the inventory says about jobs, for Prometheus: durations as seconds, and the jobs that are to be seen."""  # noqa: INP001 - found by its path

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from ansible.errors import AnsibleFilterError

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+[wdhms])+")
_PART = re.compile(r"(\d+)([wdhms])")
DEFAULT_RPO = "4h"


def pra_seconds(value: str) -> int:
    """Seconds of a duration as the agent's configuration has it, like 90s, 4h or 1h30m."""
    text = str(value).replace(" ", "")
    if not _DURATION.fullmatch(text):
        raise AnsibleFilterError(f"{value!r} is no duration; write it like 90s, 30m, 4h, 1h30m or 30d")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def pra_get(variables: Mapping[str, object], *names: str) -> object:
    """Give the first of the variables that is set."""
    return next((variables[name] for name in names if variables.get(name)), "")


def pra_expected_jobs(hosts: Iterable[Mapping[str, object]], port: int = 9807) -> Sequence[Mapping[str, object]]:
    """List each (host, job, RPO) of the inventory: `instance` and `backup_job` as Prometheus labels them, `rpo` in s.

    The agent's own merging is repeated: a job's `rpo`, else that of the host's defaults, else the built-in one. Jobs
    with `schedule: null` run only when they are asked to, so no RPO is expected of them.
    """
    expected: list[Mapping[str, object]] = []
    for host in hosts:
        defaults = _mapping(host.get("backup_defaults"))
        for name, raw in _mapping(host.get("backup_jobs")).items():
            job = {**defaults, **_mapping(raw)}
            if "schedule" in job and job["schedule"] is None:
                continue
            where = f"{host['inventory_hostname']}:{host.get('backup_exporter_port', port)}"
            rpo = pra_seconds(str(job.get("rpo", DEFAULT_RPO)))
            expected.append({"instance": where, "backup_job": name, "rpo": rpo})
    return expected


def pra_snapshots_at(
    snapshots: Iterable[Mapping[str, object]], config: Mapping[str, object], at: str, jobs: Sequence[str]
) -> Sequence[Mapping[str, object]]:
    """Choose as `pra-agent restore JOB --at AT` does: each job's newest sound snapshot of this node by that instant.

    `snapshots` and `config` are what `pra-agent --json snapshots` and `config show` print. Gives `job`, `id` ("" for
    none), `time`, `age` (s before the instant) and `rpo` (s).
    """
    instant = _instant(at)
    configured = _mapping(config["jobs"])
    unknown = sorted(set(jobs) - set(configured))
    if unknown:
        raise AnsibleFilterError(f"no such job: {', '.join(unknown)}; there are {', '.join(configured)}")
    own = [one for one in snapshots if one["node"] == config["node"] and _instant(str(one["time"])) <= instant]
    chosen: list[Mapping[str, object]] = []
    for job in jobs or list(configured):
        of_job = [one for one in own if one["job"] == job]
        sound = [one for one in of_job if not one["suspect"]] or of_job
        newest = max(sound, key=lambda one: _instant(str(one["time"])), default=None)
        rpo = pra_seconds(str(_mapping(configured[job]).get("rpo", DEFAULT_RPO)))
        if newest is None:
            chosen.append({"job": job, "id": "", "time": "", "age": 0, "rpo": rpo})
        else:
            age = int((instant - _instant(str(newest["time"]))).total_seconds())
            chosen.append({"job": job, "id": newest["id"], "time": newest["time"], "age": age, "rpo": rpo})
    return chosen


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.strip()))
    except ValueError as error:
        raise AnsibleFilterError(f"{text!r} is no instant; write it like 2026-11-30 14:05") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def pra_copy_file(item: Mapping[str, object]) -> Mapping[str, object]:
    """Turn a name and its keys into the file that they are to be in."""
    return {"file": f"copy-{item['key']}", "pair": item["value"]}


def pra_copy_credentials(item: Mapping[str, object], directory: str) -> Mapping[str, object]:
    """Name that file as the section `pruner.copies` does."""
    return {str(item["key"]): {"file": f"{directory}/copy-{item['key']}.ini"}}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


class FilterModule:
    """How Ansible finds them."""

    def filters(self) -> Mapping[str, Callable[..., object]]:
        """Filters by the names that templates know them by."""
        return {
            "pra_seconds": pra_seconds,
            "pra_get": pra_get,
            "pra_expected_jobs": pra_expected_jobs,
            "pra_snapshots_at": pra_snapshots_at,
            "pra_copy_file": pra_copy_file,
            "pra_copy_credentials": pra_copy_credentials,
        }
