"""The status page: one HTML document without assets, from templates in Python; every value is escaped."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from pra_agent.exporter.pictures import BADGES, CLASSES, curve, gauge, strip
from pra_agent.exporter.style import STYLE
from pra_agent.exporter.text import moment, size, span, text
from pra_agent.exporter.view import Drill, JobView, View, duration_of
from pra_agent.model.jobs import DaemonStatus, Health
from pra_agent.model.runs import RunRecord

#: For the Content-Security-Policy: this style sheet and no other.
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_WORDS: Final = {
    Health.OK: "protected",
    Health.AT_RISK: "at risk",
    Health.BREACHED: "RPO breached",
    Health.SUSPECT: "suspect size",
    Health.ON_HOLD: "on hold",
    Health.AWAITING_FIRST: "awaiting first backup",
}
_GRADES: Final = {
    Health.OK: "good",
    Health.AT_RISK: "warn",
    Health.BREACHED: "bad",
    Health.SUSPECT: "bad",
    Health.ON_HOLD: "warn",
    Health.AWAITING_FIRST: "idle",
}


def render(view: View) -> str:
    """Write the document."""
    node = text(view.status.node)
    body = "".join((_alerts(view), _jobs(view), _repository(view), _drills(view), _unprotected(view), _newest(view)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="60">
<title>{node}: backups</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#jobs">Skip to the jobs</a>
<header>
<h1>Backups of {node}</h1>
<p>{_summary(view)}</p>
</header>
<main>
{body}</main>
<footer>
<p><small>pra-agent {text(view.status.version)}, {view.now.strftime("%Y-%m-%d %H:%M:%S")} UTC.
This page only shows; its numbers are at <a href="/metrics">/metrics</a>.</small></p>
</footer>
</body>
</html>
"""


def _summary(view: View) -> str:
    counts = Counter(job.status.health for job in view.jobs)
    told = [f"{_badge(_GRADES[health], f'{counts[health]} {_WORDS[health]}')}" for health in Health if counts[health]]
    return " ".join(told) or "No job is configured: nothing is backed up."


def _alerts(view: View) -> str:
    status = view.status
    lines = _daemon_alerts(status)
    lines += [
        f"{text(job.status.fact.name)}: {_WORDS[job.status.health]}."
        for job in view.jobs
        if job.status.health in (Health.BREACHED, Health.SUSPECT)
    ]
    if not lines:
        return ""
    items = "".join(f"<p>{line}</p>" for line in lines)
    return f'<section class="alert" aria-labelledby="alerts"><h2 id="alerts">Needs attention</h2>{items}</section>\n'


def _daemon_alerts(status: DaemonStatus) -> list[str]:
    lines: list[str] = []
    if status.config_error:
        lines.append(f"The newest configuration was refused, the one before is in use: {text(status.config_error)}")
    if status.on_hold:
        lines.append("This host is on hold: no scheduled run starts until pra-agent release.")
    if not status.ready:
        lines.append("The daemon is not ready.")
    return lines


# ---------------------------------------------------------------- jobs
def _jobs(view: View) -> str:
    heads = ("Job", "State", "Age against RPO", "Last backup", "History", "Size", "Next run")
    rows = [_job(job, view.now) for job in view.jobs]
    return _section("jobs", "Jobs", _table("Jobs, the worst first", heads, rows, "No job is configured."))


def _job(view: JobView, now: datetime) -> Sequence[str]:
    status, fact = view.status, view.status.fact
    missed = f"<br><small>{status.missed_runs} missed</small>" if status.missed_runs else ""
    return (
        f"{text(fact.name)}<br><small>{text(fact.source)}, {text(fact.schedule or 'no schedule')}</small>",
        _badge(_GRADES[status.health], _WORDS[status.health]),
        _ages(view, now),
        _attempt(status.last_attempt, now),
        strip(view.history),
        f"{size(status.last_success.bytes if status.last_success else None)}{curve(view.sizes)}",
        f"{moment(status.next_run, now, 'not scheduled')}{missed}",
    )


def _ages(view: JobView, now: datetime) -> str:
    fact = view.status.fact
    lines: list[str] = []
    for place in fact.destinations:
        rpo = fact.rpo if place.rpo is None else place.rpo
        instant = view.status.data_instants.get(place.name)
        age = (now - instant).total_seconds() if instant is not None else None
        told = f"{span(age) if age is not None else 'no backup yet'} of {span(rpo) if rpo else 'no RPO'}"
        name = f"<br><small>{text(place.name)}</small>" if len(fact.destinations) > 1 else ""
        lines.append(f"<div>{told}{name}{gauge(age, rpo)}</div>")
    return "".join(lines)


def _attempt(run: RunRecord | None, now: datetime) -> str:
    if run is None:
        return "never"
    return f"{_outcome(run)} {moment(run.started, now)}{_trouble(run)}"


def _trouble(run: RunRecord) -> str:
    error = f"<br><small>{text(run.error)}</small>" if run.error else ""
    failed = f"<br><small>{run.files_failed} files failed</small>" if run.files_failed else ""
    return error + failed


# ---------------------------------------------------------------- the rest
def _repository(view: View) -> str:
    lock = view.numbers["repository_oldest_lock_timestamp_seconds"]
    skew = view.numbers["clock_skew_seconds"]
    facts = [
        ("Repository", text(view.status.repository or "unknown")),
        ("Size", size(view.numbers["repository_size_bytes"])),
        ("Oldest lock", moment(datetime.fromtimestamp(lock, UTC), view.now) if lock else "none"),
        ("Clock skew", span(skew)),
        *((f"Last {name}", _when(run, view.now)) for name, run in view.upkeep.items()),
    ]
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return _section("repository", "Repository", f'<dl class="facts">{items}</dl>')


def _when(run: RunRecord | None, now: datetime) -> str:
    return moment(run.finished if run is not None else None, now)


def _drills(view: View) -> str:
    heads = ("Job", "Last drill", "Last success", "Time against RTO")
    rows = [_drill(drill, view.now) for drill in view.drills]
    nothing = "No drill is configured: nothing proves that these backups can be restored in time."
    return _section("drills", "Drills", _table("Drills", heads, rows, nothing))


def _drill(drill: Drill, now: datetime) -> Sequence[str]:
    took = f"{span(drill.duration)} of {span(drill.rto) if drill.rto else 'no RTO'}{gauge(drill.duration, drill.rto)}"
    return (
        text(drill.job),
        _attempt(drill.attempt, now),
        _when(drill.success, now),
        took if drill.duration is not None else "not measured yet",
    )


def _unprotected(view: View) -> str:
    found = {kind: int(number) for kind, number in view.unprotected.items() if number}
    if not view.unprotected:
        told = "<p>Nothing has been searched for yet.</p>"
    elif not found:
        told = "<p>Everything that was found on this host is covered by a job.</p>"
    else:
        rows = [(text(kind), str(number)) for kind, number in sorted(found.items())]
        told = "<p>Found on this host, covered by no job:</p>" + _table("Not protected", ("Kind", "Number"), rows, "")
    return _section("unprotected", "Not protected", told)


def _newest(view: View) -> str:
    heads = ("Run", "Outcome", "Started", "Took", "Stored")
    rows = [
        (
            f"{text(run.operation.value)} {text(run.job)}",
            f"{_outcome(run)}{_trouble(run)}",
            moment(run.started, view.now),
            span(duration_of(run)) if run.finished else "",
            size(run.bytes_stored),
        )
        for run in view.newest
    ]
    return _section("runs", "Newest runs", _table("Newest runs", heads, rows, "Nothing has run yet."))


# ---------------------------------------------------------------- pieces
def _outcome(run: RunRecord) -> str:
    kind = run.outcome.value if run.outcome is not None else "running"
    return _badge(CLASSES[run.outcome], BADGES.get(run.outcome, kind))


def _badge(grade: str, word: str) -> str:
    return f'<span class="badge {grade}">{text(word)}</span>'


def _section(name: str, title: str, content: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>\n{content}</section>\n'


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> str:
    """Write a table whose cells are HTML already. The roles keep it a table where the style makes cards of it."""
    lines = [
        f'<tr role="row"><th scope="row" role="rowheader">{first}</th>'
        + "".join(
            f'<td role="cell" data-label="{text(head)}">{cell}</td>' for head, cell in zip(heads[1:], rest, strict=True)
        )
        + "</tr>\n"
        for first, *rest in rows
    ]
    if not lines:
        return f"<p>{nothing}</p>"
    columns = "".join(f'<th scope="col" role="columnheader">{text(head)}</th>' for head in heads)
    head = f'<thead role="rowgroup"><tr role="row">{columns}</tr></thead>'
    body = f'<tbody role="rowgroup">{"".join(lines)}</tbody>'
    return f'<table role="table" aria-label="{text(caption)}">{head}\n{body}</table>'
