"""Files to a Config: merging, defaults, and every problem in one line with its place."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pra_agent.config import ConfigProblems, load, read
from pra_agent.config.loading import closest_job
from pra_agent.errors import ConfigError
from pra_agent.model.references import SecretRef

GOOD = """\
node: web-1
repository:
  url: /srv/backup
  password: {file: /etc/pra-agent/password}
defaults: {rpo: 6h, keep: {hourly: 48, daily: 30, min_count: 3}}
jobs:
  app-data: {source: {type: files, paths: [/srv/app], exclude: ["*.tmp"]}}
  etc:
    source: {type: files, paths: [/etc]}
    schedule: {every: 90m}
    keep: {last: 5}
    partial_ok: 10 files
"""


@pytest.fixture
def configure(tmp_path):
    def write(text, **more):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        for name, extra in more.items():
            (tmp_path / "conf.d" / f"{name}.yaml").write_text(extra)
        return path

    return write


def lines(path: Path) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        load(path)
    assert caught.value.exit_code == 2
    return [line.removeprefix(f"{path.parent}/") for line in caught.value.message.splitlines()]


def test_a_good_configuration(configure):
    config = load(configure(GOOD))
    assert config.node == "web-1"
    assert config.repository.password == SecretRef(file=Path("/etc/pra-agent/password"))
    assert list(config.jobs) == ["app-data", "etc"]
    app = config.jobs["app-data"]
    assert (app.name, app.rpo, str(app.schedule)) == ("app-data", timedelta(hours=6), "0 * * * *")
    assert app.keep.hourly == 48


def test_a_jobs_own_values_replace_the_defaults_and_keep_as_a_whole(configure):
    job = load(configure(GOOD)).jobs["etc"]
    assert job.partial_ok == 10
    assert (job.keep.last, job.keep.hourly, job.keep.daily) == (5, 0, 0)
    assert job.schedule is not None
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert job.schedule.next_after(start) - start == timedelta(minutes=90) == job.schedule.largest_gap()


def test_conf_d_adds_jobs_settings_and_copies(configure):
    config = load(
        configure(
            GOOD + "limits: {nice: 5}\ncopies: [{url: /mnt/a}]\n",
            b="jobs: {logs: {source: {type: files, paths: [/var/log]}}}\ncopies: [{url: /mnt/b}]\n",
            c="limits: {cache: 1GiB}\n",
        )
    )
    assert list(config.jobs) == ["app-data", "etc", "logs"]
    assert [copy.url for copy in config.copies] == ["/mnt/a", "/mnt/b"]
    assert (config.limits.nice, config.limits.cache) == (5, 1 << 30)


def test_a_mistake_in_an_added_copy_has_its_own_line(configure):
    path = configure(GOOD + "copies:\n  - url: /mnt/a\n", b="copies:\n  - url: /mnt/b\n    names: x\n")
    assert lines(path) == ["conf.d/b.yaml:3: copies[1].names: unknown key; did you mean name?"]


def test_a_job_that_is_defined_twice_names_both_places(configure):
    path = configure(GOOD, x="jobs:\n\n  etc: {source: {type: files, paths: [/etc]}}\n")
    (line,) = lines(path)
    assert line.startswith("conf.d/x.yaml:3: jobs.etc: this job is defined already at ")
    assert f"{path}:8" in line


def test_a_setting_that_is_defined_twice_names_both_places(configure):
    path = configure(GOOD, x="node: other\ndefaults: {rpo: 1h}\n")
    found = lines(path)
    assert len(found) == 2
    assert f"conf.d/x.yaml:1: node: this is defined already at {path}:1; remove one of the two" in found


def test_a_key_twice_in_one_file(configure):
    (line,) = [line for line in lines(configure(GOOD + "node: again\n")) if "YAML" in line]
    assert "config.yaml:13" in line
    assert "duplicate key" in line


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("node: web-1", "nod: web-1"), ["config.yaml:1: nod: unknown key; did you mean node?"]),
        (("rpo: 6h", "rpoo: 6h"), ["config.yaml:5: defaults.rpoo: unknown key; did you mean rpo?"]),
        (("rpo: 6h", "rpo: 6"), ["config.yaml:5: defaults.rpo: a duration needs a unit; write it like 30s"]),
        (("hourly: 48", "hourly: often"), ["config.yaml:5: defaults.keep.hourly: must be a whole number"]),
        (("paths: [/etc]", "path: [/etc]"), ["config.yaml:9: jobs.etc.source.path: unknown key; did you mean paths?"]),
        (("type: files, paths: [/etc]", "type: file, paths: [/etc]"), ["'file' is none of"]),
        (("90m", "90"), ["config.yaml:10: jobs.etc.schedule.every: a duration needs a unit"]),
        (("{every: 90m}", '"0 99 * * *"'), ["config.yaml:10: jobs.etc.schedule: '99' in the hour field is outside"]),
        (("{every: 90m}", "{every: 90m, cron: '@daily'}"), ["config.yaml:10: jobs.etc.schedule: write either"]),
        (("{every: 90m}", "{every: 5s}"), ["config.yaml:10: jobs.etc.schedule: an interval of at least 1m"]),
        (("app-data:", '"app data":'), ["jobs.app data: 'app data' is no good name; use letters"]),
        (("etc:\n", "etc:\n    name: x\n"), ["jobs.etc.name: unknown key; a job's key is its name"]),
        (("10 files", "some files"), ["config.yaml:12: jobs.etc.partial_ok: a number of files"]),
        (("{file: /etc/pra-agent/password}", "hunter2"), ["repository.password: a secret is never written here"]),
        (("{file: /etc/pra-agent/password}", "{}"), ["repository.password: name exactly one origin"]),
        (("node: web-1", "node: web-1\ntimezone: Paris"), ["config.yaml:2: timezone: unknown time zone 'Paris'"]),
        (("node: web-1", "node: web 1"), ["config.yaml:1: node: 'web 1' is no good name"]),
        (("jobs:", "jobs: 5\nx:"), ["config.yaml:6: jobs: must be a mapping", "x: unknown key"]),
        (("[/srv/app]", "[srv/app]"), ["jobs.app-data.source.paths[0]: 'srv/app' is no absolute path"]),
        (("  url: /srv/backup\n", ""), ["config.yaml:2: repository.url: is missing"]),
        (("daily: 30", "daily: 30, tags: ['']"), ["config.yaml:5: defaults.keep.tags[0]"]),
        (
            ("partial_ok: 10 files", "tags: ['job=x']"),
            ["config.yaml:12: jobs.etc.tags: the tag 'job=x' cannot be used"],
        ),
    ],
)
def test_problems(configure, change, expected):
    assert change[0] in GOOD
    found = lines(configure(GOOD.replace(change[0], change[1], 1)))
    for part in expected:
        assert any(part in line for line in found), found
    assert not any("hunter2" in line for line in found)


def test_all_problems_at_once_in_the_order_of_the_file(configure):
    bad = GOOD.replace("node:", "nod:").replace("rpo: 6h", "rpo: x").replace("last: 5", "lest: 5")
    found = lines(configure(bad))
    assert len(found) == 4  # node is missing, too
    assert [int(line.split(":")[1] or 0) for line in found[1:]] == [1, 5, 11]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node: [", "no valid YAML"),
        ("a: b: c", "no valid YAML"),
        ("- a\n", "not a mapping"),
        ("just words", "not a mapping"),
        ("\x00", "no valid YAML"),
        ("", "node: is missing"),
        ("# nothing\n", "repository: is missing"),
    ],
)
def test_no_configuration_at_all(configure, text, says):
    assert any(says in line for line in lines(configure(text)))


def test_bytes_that_are_no_text(configure):
    path = configure("")
    path.write_bytes(b"node: \xff\xfe\n")
    assert any("no valid YAML" in line for line in lines(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file") as caught:
        load(tmp_path / "none.yaml")
    assert "--config" in caught.value.advice


def test_anchors_and_merge_keys(configure):
    text = GOOD.replace(
        "  etc:\n    source: {type: files, paths: [/etc]}\n",
        "  etc:\n    <<: &base {jitter: 1m}\n    source: {type: files, paths: [/etc]}\n",
    )
    assert load(configure(text)).jobs["etc"].jitter == timedelta(minutes=1)


def test_places_of_keys(configure):
    loaded = read(configure(GOOD))
    assert loaded.document.place(("jobs", "etc", "keep", "last")).line == 11
    assert loaded.document.place(("jobs", "etc", "rpo")).line == 8


def test_closest_job(configure):
    config = load(configure(GOOD))
    assert closest_job("app-dta", config) == "Did you mean app-data?"
    assert closest_job("zzz", config) == "Configured jobs: app-data, etc."
