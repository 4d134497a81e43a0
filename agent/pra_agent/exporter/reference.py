"""Writes docs/metrics.md from the table: `python -m pra_agent.exporter.reference > docs/metrics.md`."""

import sys

from pra_agent.exporter.metrics import TABLE, Metric
from pra_agent.exporter.observed import OBSERVED

_HEAD = """# Metrics

Written from the exporter's own table by `python -m pra_agent.exporter.reference`; do not edit.

The exporter (`exporter.listen`, 127.0.0.1:9807 unless configured) serves these at `/metrics`, as plain text or
OpenMetrics. All values come from the run journal: they survive a restart, and a scrape never touches the repository.

- A timestamp is in seconds since the epoch, and NaN while the thing has never happened: the series is there from the
  start, no comparison with NaN is true, and `pra_backup_awaiting_first` tells about a first backup.
- A series that is labelled `backup_job` appears with its job and goes when the job leaves the configuration.
- `backup_job` is empty for operations on the whole repository.
- `destination` is `repository` for the job's own repository, and the URL (without credentials) of a copy.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


_OBSERVER = """
## The observer's

`pra-agent observe` serves these at its own `/metrics` (127.0.0.1:9808 unless configured), or writes them into a
textfile. All times are the store's own. `destination` is what its configuration says, to be that of the agent's.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


def render() -> str:
    """Write the whole document."""
    return _HEAD + "".join(map(_row, TABLE)) + _OBSERVER + "".join(map(_row, OBSERVED))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
