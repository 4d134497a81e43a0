"""The dashboards as code: `PYTHONPATH=grafana/src python -m pra_dashboards grafana/dashboards` writes the JSON."""

from collections.abc import Callable, Mapping

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from pra_dashboards import fleet, job, readiness

DASHBOARDS: Mapping[str, Callable[[], Dashboard]] = {
    "pra-fleet.json": fleet.dashboard,
    "pra-job.json": job.dashboard,
    "pra-readiness.json": readiness.dashboard,
}


def render(name: str) -> str:
    """The JSON of one, as it is committed."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[name]()) + "\n"
