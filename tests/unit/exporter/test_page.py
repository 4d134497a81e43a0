"""The status page: well-formed, escaped, without assets, and it says what it shows."""

from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.exporter import text
from pra_agent.exporter.page import render
from pra_agent.exporter.view import look
from pra_agent.model.jobs import DaemonStatus, Destination, JobFact
from pra_agent.model.runs import Failure, JobState, Operation, Outcome, RunRecord
from tests.support.daemons import START, MemoryJournal

VOID = {"meta", "br", "link"}
EVIL = "<script>alert('x')</script>\"&\x00\x1b"


class Tree(HTMLParser):
    """Checks nesting, and gathers tags with their attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run(at: int, outcome: Outcome | None, operation: Operation = Operation.BACKUP, **fields: object) -> RunRecord:
    started = START + timedelta(hours=at)
    finished = None if outcome is None else started + timedelta(seconds=75)
    record = RunRecord(f"r{at}", operation, "app", started, finished, outcome, bytes=(at + 1) * 10**9)
    return replace(record, **fields)  # type: ignore[arg-type]


def full() -> tuple[MemoryJournal, list[JobFact]]:
    journal = MemoryJournal(
        [
            run(0, Outcome.SUCCESS),
            run(1, Outcome.PARTIAL, files_failed=2, failures=(Failure("/a", "x"),)),
            run(2, Outcome.FAILED, error="S3: 503"),
            run(3, Outcome.SUCCESS, Operation.DRILL, stages={"restore": 4000.0}),
            run(4, Outcome.SUCCESS, Operation.CHECK, job=""),
            run(5, None),
        ],
        states={"app": JobState("app", START + timedelta(hours=7), 2, on_hold=False, suspect=False)},
        instants={"app": {"": START}},
        numbers={("repository_size_bytes", ""): 3 * 2**30, ("unprotected_resources", "volume"): 2},
    )
    facts = [
        JobFact("app", "files", "0 * * * *", 4 * 3600.0, 3600.0),
        JobFact("db", "dump", "", 4 * 3600.0, None, (Destination(), Destination("c", "copy", off_host=True))),
    ]
    return journal, facts


STATUS = DaemonStatus("web-1", "1.0", START, repository="s3://bucket/web-1")


def shown(hours: float = 6, status: DaemonStatus = STATUS) -> Tree:
    journal, facts = full()
    return Tree(render(look(journal, facts, status, START + timedelta(hours=hours))))


def test_it_says_what_matters() -> None:
    page = shown()

    for told in (
        "Backups of web-1",
        "RPO breached",
        "awaiting first backup",
        "6 h of 4 h",
        "2 missed",
        "in 1 h",
        "S3: 503",
        "3.0 GiB",
        "1 h 6 min of 1 h",
        "covered by no job",
        "s3://bucket/web-1",
    ):
        assert told in page.text, told


def test_it_is_accessible() -> None:
    page = shown()

    assert page.named("html") == [{"lang": "en"}]
    for landmark in ("header", "main", "footer", "h1"):
        assert len(page.named(landmark)) == 1
    for section in page.named("section"):
        assert any(heading.get("id") == section["aria-labelledby"] for heading in page.named("h2"))
    for table in page.named("table"):
        assert table["aria-label"]
    assert all(head.get("scope") for head in page.named("th"))
    pictures = page.named("svg")
    assert len(pictures) > 3
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    strip = next(picture for picture in pictures if "runs:" in str(picture["aria-label"]))
    assert strip["aria-label"] == "Last 4 runs: 1 success, 1 partial, 1 failed, 1 running"


def test_nothing_comes_from_elsewhere_and_nothing_runs() -> None:
    page = shown()

    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "form", "link"}
    assert all(attributes.get("href", "#") in ("#jobs", "/metrics") for attributes in page.named("a"))
    assert not any(
        "style" in attributes or any(key.startswith("on") for key in attributes) for _, attributes in page.tags
    )


def test_everything_is_escaped() -> None:
    journal, _ = full()
    journal.records = [run(0, Outcome.FAILED, job=EVIL, error=EVIL, destination=EVIL)]
    journal.numbers = {("unprotected_resources", EVIL): 1}
    facts = [JobFact(EVIL, EVIL, EVIL, 1.0, 1.0, (Destination("", EVIL), Destination("b", EVIL)), tuple(Operation))]
    status = replace(STATUS, node=EVIL, version=EVIL, repository=EVIL, config_error=EVIL)

    page = Tree(render(look(journal, facts, status, START)))

    assert not page.named("script")
    assert "\x00" not in page.text
    assert "<script>alert('x')</script>" in page.text


def test_a_daemon_in_trouble_says_so() -> None:
    page = shown(status=replace(STATUS, config_error="config.yaml:3: unknown key", on_hold=True, ready=False))

    assert "config.yaml:3: unknown key" in page.text
    assert "on hold" in page.text
    assert "not ready" in page.text


def test_nothing_configured() -> None:
    page = Tree(render(look(MemoryJournal(), [], STATUS, START)))

    assert "nothing is backed up" in page.text
    assert "Nothing has run yet." in page.text
    assert "No drill is configured" in page.text


def test_all_is_well() -> None:
    page = shown(hours=0.5)

    assert "protected" in page.text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (1.26, "1.3 s"),
        (59, "59 s"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (90000, "25 h"),
        (86400 * 3 + 7200, "3 d 2 h"),
        (86400 * 40, "40 d"),
        (-75, "-1 min 15 s"),
    ],
)
def test_spans(seconds: float | None, told: str) -> None:
    assert text.span(seconds) == told


@pytest.mark.parametrize(
    ("number", "told"), [(None, "unknown"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**60, "1024.0 PiB")]
)
def test_sizes(number: float | None, told: str) -> None:
    assert text.size(number) == told


@given(st.text())
def test_any_text_is_harmless(raw: str) -> None:
    escaped = text.text(raw)

    assert not set(escaped) & set("<>\"'")
    assert escaped.isprintable()
