"""What config check finds beyond the models."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pra_agent.config import read
from pra_agent.config.checking import problems, rpo_excess, secret_references
from pra_agent.config.secrets import Resolver

TEXT = """\
node: web-1
repository: {{url: {dir}/repo, password: {{file: {dir}/password}}}}
jobs:
  data: {{source: {{type: files, paths: [{dir}/data]}}}}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    return tmp_path


def found(place: Path, text: str = TEXT, **options: Any) -> list[str]:
    path = place / "config.yaml"
    path.write_text(text.format(dir=place))
    path.chmod(options.pop("mode", 0o600))
    lines = problems(read(path), resolver=Resolver(environ={}, unit_directories=(), stores=()), **options)
    return [f"{'warning: ' if p.warning else ''}{p}".replace(f"{place}/", "") for p in lines]


def test_nothing_to_find(place):
    assert found(place) == []


def test_a_missing_path(place):
    (place / "data").rmdir()
    (line,) = found(place)
    assert line.startswith("config.yaml:4: jobs.data.source.paths[0]: there is no data; create it")


def test_a_dangling_link_is_there(place):
    (place / "data").rmdir()
    (place / "data").symlink_to("nowhere")
    assert found(place) == []


def test_a_missing_secret(place):
    (place / "password").unlink()
    (line,) = found(place)
    assert line.startswith("config.yaml:2: repository.password: password: cannot be read")
    assert line.endswith("pra-agent init generates it")


def test_secrets_of_copies_and_credential_files_are_looked_at(place):
    text = TEXT + "copies: [{{url: s3://other/x, password: {{env: NOPE}}, credentials: {{file: {dir}/ini}}}}]\n"
    text = text.replace("url: {dir}/repo", "url: s3://bucket/x, credentials: {{file: {dir}/ini}}")
    lines = found(place, text)
    assert [line.split(": ")[1] for line in lines] == [
        "repository.credentials",
        "copies[0].credentials",
        "copies[0].password",
    ]
    loaded = read(place / "config.yaml")
    assert len(list(secret_references(loaded))) == 4


@pytest.mark.parametrize("more", ["schedule: '@daily'", "schedule: '0 8-18 * * *'", "schedule: {{every: 4h}}"])
def test_a_schedule_that_cannot_hold_the_rpo(place, more):
    (line,) = found(place, TEXT.replace("data: {{", f"data: {{{{{more}, "))
    assert line.startswith("config.yaml:4: jobs.data.schedule: the schedule's largest gap")
    assert "more than the RPO of 4h; run it more often" in line


def test_the_usual_duration_counts(place):
    assert found(place, durations={"data": timedelta(hours=2)}) == []
    (line,) = found(place, durations={"data": timedelta(hours=3)})
    assert "usual duration 3h" in line


def test_without_a_schedule_there_is_a_warning(place):
    (line,) = found(place, TEXT.replace("data: {{", "data: {{schedule: null, "))
    assert line.startswith("warning: config.yaml:4: jobs.data.schedule: no schedule")
    loaded = read(place / "config.yaml")
    assert rpo_excess(loaded.config.jobs["data"], "UTC", timedelta(0)) == ""


def test_no_job_at_all(place):
    (line,) = found(place, TEXT.partition("jobs:")[0])
    assert "nothing is saved" in line


def test_two_copies_at_one_place(place):
    lines = found(place, TEXT + "copies: [{{url: {dir}/repo/}}, {{url: /mnt/b, name: x}}, {{url: /mnt/c, name: x}}]\n")
    assert [line.split(": ", 1)[1].split(";")[0] for line in lines] == [
        "copies[0].url: is the same place as another one",
        "copies[2].name: the name x is used twice",
    ]


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_configuration_that_others_can_write(place, mode):
    (line,) = found(place, mode=mode)
    assert "can be written by others" in line
    assert line.startswith("warning: ") == (os.geteuid() != 0)


def test_a_directory_that_others_can_write(place):
    place.chmod(0o777)
    (line,) = found(place)
    assert "can be written by others" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_configuration_of_another_user(place):
    assert found(place) == []
    os.chown(place / "config.yaml", 12345, 0)
    (line,) = found(place)
    assert "belongs to user 12345" in line
