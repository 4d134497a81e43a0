"""What the inventory says about jobs, for Prometheus: durations as seconds, and the jobs that are to be seen."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

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


def pra_copy_file(item: Mapping[str, object]) -> Mapping[str, object]:
    """Turn a name and its keys into the file that they are to be in."""
    return {"file": f"copy-{item['key']}", "keys": item["value"]}


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
            "pra_copy_file": pra_copy_file,
            "pra_copy_credentials": pra_copy_credentials,
        }
