"""Restoring into a cluster: a read-only repository, `_restore`, health, and the documents counted."""

import json
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources import command
from pra_agent.sources.elasticsearch.cluster import Cluster, quoted
from pra_agent.sources.elasticsearch.settings import ElasticsearchSettings
from pra_agent.sources.source import ReinstateContext

_COPY_SECONDS = 24 * 3600
_OPTIONS = frozenset({"indices", "rename_pattern", "rename_replacement", "global_state", "snapshot"})


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is restored under which names."""

    snapshot: str
    targets: Mapping[str, str]
    body: Mapping[str, Any]
    live: Sequence[str]


def reinstate(cluster: Cluster, settings: ElasticsearchSettings, context: ReinstateContext) -> Sequence[str]:
    """Restore indices from the snapshot; returns a line for each thing done.

    Options: `indices` (names and patterns), `rename_pattern` and `rename_replacement` (as the API has them),
    `global_state=true`, `snapshot=NAME`. An index that exists is refused without `force`; with it, it is cloned to
    `before-<run>-<index>` first. Raises `SourceError` when the counts of documents differ afterwards.
    """
    unknown = set(context.options) - _OPTIONS
    if unknown:
        advice = f"It knows {', '.join(sorted(_OPTIONS))}."
        raise RefusedError(f"a cluster knows no option {', '.join(sorted(unknown))}", advice=advice)
    facts = _facts(context.restored)
    with _repository(cluster, settings, facts, context) as repository:
        plan = _plan(cluster, repository, facts, context)
        if plan.live and not context.force:
            raise RefusedError(
                f"{cluster.url}: {', '.join(plan.live)} exists",
                advice="Restore under other names (rename_pattern, rename_replacement), or replace with --force.",
            )
        if context.dry_run:
            return [f"would restore {index} as {target}" for index, target in sorted(plan.targets.items())]
        kept = [_keep(cluster, index, context) for index in plan.live]
        path = f"/_snapshot/{repository}/{quoted(plan.snapshot)}/_restore"
        cluster.ask("POST", path, plan.body, wait_for_completion="false")
        _wait(cluster, settings, plan, context)
        return [*kept, *_compare(cluster, plan, facts)]


def _facts(restored: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads((Path(restored) / "elasticsearch/facts.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise SourceError(
            "the restored files hold no elasticsearch/facts.json that tells what they are",
            advice="Restore the whole job.",
        ) from error


@contextmanager
def _repository(
    cluster: Cluster, settings: ElasticsearchSettings, facts: Mapping[str, Any], context: ReinstateContext
) -> Generator[str]:
    """Register what was restored as a read-only repository, under a name of its own."""
    name = quoted(f"pra-restore-{context.run.lower()}")
    beside: Path | None = None
    if settings.mode == "fs":
        restored = Path(context.restored) / "elasticsearch/repository"
        if not restored.is_dir():
            raise SourceError(f"{restored}: is not there", advice="Restore the whole job.")
        beside = settings.directory / f".pra-restore-{context.run}"
        seen = f"{settings.location}/.pra-restore-{context.run}"
        _copy(restored, beside, settings.directory)
        body: dict[str, Any] = {"type": "fs", "settings": {"location": seen, "readonly": True}}
    else:
        known = facts.get("s3") or (settings.s3.as_settings() if settings.s3 else None)
        if known is None:
            # Somebody else registered it, with settings that only the cluster knows.
            yield quoted(settings.repository)
            return
        body = {"type": "s3", "settings": {**known, "readonly": True}}
    try:
        cluster.ask("PUT", f"/_snapshot/{name}", body)
        yield name
    finally:
        cluster.ask("DELETE", f"/_snapshot/{name}", absent={})
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _copy(restored: Path, beside: Path, directory: Path) -> None:
    command.run(["cp", "--archive", "--no-target-directory", "--", str(restored), str(beside)], timeout=_COPY_SECONDS)
    owner = directory.stat()
    for root, directories, files in os.walk(beside):
        for name in (".", *directories, *files):
            os.chown(Path(root) / name, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _plan(cluster: Cluster, repository: str, facts: Mapping[str, Any], context: ReinstateContext) -> _Plan:
    options = context.options
    snapshot = options.get("snapshot") or str(facts["snapshot"])
    told = cluster.ask("GET", f"/_snapshot/{repository}/{quoted(snapshot)}")["snapshots"][0]
    _compatible(cluster, told, facts)
    wanted = options.get("indices", "*").split(",")
    chosen = [str(index) for index in told["indices"] if _wanted(str(index), wanted)]
    if not chosen:
        raise SourceError(
            f"the snapshot holds no index {options.get('indices')!r}", advice=f"It holds {told['indices']}"
        )
    pattern, replacement = options.get("rename_pattern"), options.get("rename_replacement")
    if (pattern is None) != (replacement is None):
        raise RefusedError("rename_pattern and rename_replacement go together")
    targets = {index: _renamed(index, pattern, replacement) for index in chosen}
    body: dict[str, Any] = {
        "indices": ",".join(chosen),
        "include_global_state": options.get("global_state", "false") == "true",
        "include_aliases": pattern is None,
    }
    if pattern is not None:
        body |= {"rename_pattern": pattern, "rename_replacement": replacement}
    there = {str(row["index"]) for row in cluster.ask("GET", "/_cat/indices", format="json", expand_wildcards="all")}
    return _Plan(snapshot, targets, body, sorted(set(targets.values()) & there))


def _wanted(index: str, patterns: Sequence[str]) -> bool:
    chosen = False
    for pattern in patterns:
        exact = re.escape(pattern.lstrip("-")).replace(r"\*", ".*")
        if re.fullmatch(exact, index):
            chosen = not pattern.startswith("-")
    return chosen


def _renamed(index: str, pattern: str | None, replacement: str | None) -> str:
    if pattern is None or replacement is None:
        return index
    return re.sub(pattern, re.sub(r"\$(\d)", r"\\\1", replacement), index)


def _compatible(cluster: Cluster, told: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """A snapshot of a newer major version cannot be restored; better said before anything is closed."""
    made = str(told.get("version") or facts.get("version") or "")
    running = min(cluster.facts()["versions"], key=_version, default="")
    if made and running and _version(made) > _version(running):
        raise SourceError(f"the snapshot was made by version {made}, the cluster runs {running}: it cannot read it")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _keep(cluster: Cluster, index: str, context: ReinstateContext) -> str:
    """Clone what is there (hard links, no second copy), then close it, so that the restore may take its place."""
    kept = f"before-{context.run.lower()}-{index.lstrip('.')}"
    cluster.ask("PUT", f"/{quoted(index)}/_block/write")
    cluster.ask("PUT", f"/{quoted(index)}/_clone/{quoted(kept)}", {"settings": {"index.blocks.write": None}})
    cluster.ask("GET", f"/_cluster/health/{quoted(kept)}", wait_for_status="yellow", timeout="60s")
    cluster.ask("POST", f"/{quoted(index)}/_close")
    return f"{index}: what was there is kept as {kept}"


def _wait(cluster: Cluster, settings: ElasticsearchSettings, plan: _Plan, context: ReinstateContext) -> None:
    names = ",".join(sorted(set(plan.targets.values())))

    def done() -> bool:
        # A bare 404: the restore has not made the index yet.
        told = cluster.ask("GET", f"/_cluster/health/{quoted(names)}", level="indices", absent={}, timeout="1s")
        indices = told.get("indices", {})
        recovering = cluster.ask("GET", f"/{quoted(names)}/_recovery", absent={"": {}}, active_only="true")
        whole = all(indices.get(name, {}).get("status") in ("green", "yellow") for name in plan.targets.values())
        return whole and not any(one.get("shards") for one in recovering.values())

    limit = settings.timeout.total_seconds()
    cluster.wait(done, within=limit, stop=context.stop, what=f"{cluster.url}: restore of {plan.snapshot}")


def _compare(cluster: Cluster, plan: _Plan, facts: Mapping[str, Any]) -> list[str]:
    counted: Mapping[str, Sequence[int]] = facts.get("documents", {}) if plan.snapshot == facts.get("snapshot") else {}
    found = cluster.documents(sorted(plan.targets.values()))
    done: list[str] = []
    differ: list[str] = []
    for index, target in sorted(plan.targets.items()):
        have, want = found.get(target, 0), counted.get(index)
        if want and not want[0] <= have <= want[-1]:
            differ.append(f"{target} has {have} documents instead of {' to '.join(map(str, want))}")
        done.append(f"{index}: restored as {target}, {have} documents")
    if differ:
        raise SourceError(f"{cluster.url}: {'; '.join(differ)}", advice="Look at _cat/recovery and the cluster's log.")
    return done
