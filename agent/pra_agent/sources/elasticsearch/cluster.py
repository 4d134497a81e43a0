"""A cluster, through the low-level transport: no product check, so that OpenSearch and a refused `GET /` will do."""

import base64
import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any, cast

import elastic_transport
import elasticsearch

from pra_agent.errors import SourceError
from pra_agent.sources.elasticsearch.settings import ElasticsearchSettings

_REQUEST_SECONDS = 120
_POLL_SECONDS = 0.5
Json = Any


class Cluster:
    """Requests to one cluster. Errors are `SourceError` in one line, with the cluster's own reason."""

    def __init__(self, settings: ElasticsearchSettings, password: str | None, api_key: str | None) -> None:
        self.url = settings.url
        self._headers = {"accept": "application/json"}
        if api_key is not None:
            self._headers["authorization"] = f"ApiKey {api_key}"
        elif password is not None:
            login = base64.b64encode(f"{settings.user}:{password}".encode()).decode()
            self._headers["authorization"] = f"Basic {login}"
        options: dict[str, Any] = {"max_retries": 2, "retry_on_timeout": False}
        if settings.ca_file is not None:
            options["ca_certs"] = str(settings.ca_file)
        self._client = cast("Any", elasticsearch.Elasticsearch)(settings.url, **options)

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def __enter__(self) -> "Cluster":  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        absent: Json = None,
        **parameters: str,
    ) -> Json:
        """Make a request and return its JSON. A 404 gives `absent` when that is not None."""
        target = path + (f"?{urllib.parse.urlencode(parameters)}" if parameters else "")
        headers = dict(self._headers)
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            answer = self._client.transport.perform_request(
                method,
                target,
                headers=headers,
                body=None if body is None else json.dumps(body),
                request_timeout=_REQUEST_SECONDS,
            )
        except elastic_transport.TransportError as error:
            raise SourceError(
                f"{self.url}: {type(error).__name__}: {_first_line(error)}",
                advice="Check that the cluster runs and that url, ca_file and the login of the job are right.",
            ) from error
        status = int(answer.meta.status)
        if status == 404 and absent is not None:
            return absent
        if status >= 400:
            raise SourceError(f"{self.url}: {method} {path}: {status} {_reason(answer.body)}")
        return answer.body

    def wait(self, done: Callable[[], bool], *, within: float, stop: Event, what: str) -> None:
        """Ask again until `done` says so. Raises `SourceError` when that takes too long or the run is to end."""
        left = within
        while not done():
            if stop.wait(_POLL_SECONDS):
                raise SourceError(f"{what}: stopped, because the run ends")
            left -= _POLL_SECONDS
            if left <= 0:
                raise SourceError(f"{what}: not done within {within:.0f} s")

    def is_master_here(self) -> bool:
        """Whether the node that answers is the elected master."""
        local = set(self.ask("GET", "/_nodes/_local", filter_path="nodes.*.name").get("nodes", {}))
        state = self.ask("GET", "/_cluster/state/master_node")
        return str(state.get("master_node") or state.get("cluster_manager_node")) in local

    def facts(self) -> dict[str, Any]:
        """Name, id and versions; from the nodes, since `GET /` is refused by some."""
        told = self.ask("GET", "/_nodes", filter_path="cluster_name,nodes.*.name,nodes.*.version,nodes.*.roles")
        state = self.ask("GET", "/_cluster/state/metadata", filter_path="metadata.cluster_uuid", absent={})
        nodes = cast("Mapping[str, Any]", told.get("nodes", {}))
        return {
            "cluster_name": told.get("cluster_name"),
            "cluster_uuid": state.get("metadata", {}).get("cluster_uuid"),
            "versions": sorted({str(node["version"]) for node in nodes.values()}),
            "nodes": sorted(str(node["name"]) for node in nodes.values()),
        }

    def documents(self, indices: Sequence[str], *, refresh: bool = True) -> dict[str, int]:
        """Documents by index. A refresh makes the count right, but waits a minute for a shard that is not there."""
        if not indices:
            return {}
        names = ",".join(indices)
        if refresh:
            self.ask("POST", f"/{quoted(names)}/_refresh", ignore_unavailable="true", expand_wildcards="open,hidden")
        rows = self.ask(
            "GET", f"/_cat/indices/{quoted(names)}", format="json", h="index,docs.count", expand_wildcards="open,hidden"
        )
        return {str(row["index"]): int(row["docs.count"] or 0) for row in rows}


def quoted(name: str) -> str:
    """A name as one component of a path."""
    return urllib.parse.quote(name, safe=",*-_.")


def _reason(body: Json) -> str:
    try:
        error = cast("Mapping[str, Any]", body)["error"]
        if isinstance(error, str):
            return error[:500]
        causes = [str(cause.get("reason")) for cause in error.get("root_cause", ()) if cause.get("reason")]
        deep = error.get("caused_by", {}).get("reason")
        reasons: list[str] = list(dict.fromkeys([str(error.get("reason")), *causes, *([str(deep)] if deep else [])]))
        return f"{error.get('type')}: {'; '.join(reasons)}"[:500]
    except (KeyError, TypeError, AttributeError):
        return str(body).replace("\n", " ")[:300]


def _first_line(error: BaseException) -> str:
    return (str(getattr(error, "message", "")) or str(error)).splitlines()[0][:300]
