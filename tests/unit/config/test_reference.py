"""The document is what the models say, and the example configuration is a good one."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from pra_agent.config import read
from pra_agent.config.checking import problems
from pra_agent.config.reference import render
from pra_agent.config.schema import config_schema
from pra_agent.config.secrets import Resolver

ROOT = Path(__file__).parents[3]


def test_the_document_is_up_to_date():
    assert (ROOT / "docs" / "configuration.md").read_text() == render(), (
        "run: python -m pra_agent.config.reference > docs/configuration.md"
    )


def test_the_example_is_good():
    loaded = read(ROOT / "packaging" / "config.yaml")
    resolver = Resolver(environ={}, unit_directories=(), stores=())
    found = {problem.key for problem in problems(loaded, resolver=resolver)} - {""}
    assert found <= {"repository.password"}  # there is none on this machine
    assert loaded.config.jobs["etc"].keep == loaded.config.defaults.keep


def test_what_is_commented_out_in_the_example_is_good_too(tmp_path):
    text = (ROOT / "packaging" / "config.yaml").read_text()
    for job in ("app-data", "glpi-db"):
        assert f"  # {job}:" in text
    jobs = text[text.index("  # app-data:") : text.index("# Metrics")]
    uncommented = re.sub(r"^  # ?", "  ", jobs, flags=re.MULTILINE)
    path = tmp_path / "config.yaml"
    path.write_text(text.replace(jobs, uncommented))
    loaded = read(path)
    assert loaded.config.jobs["app-data"].partial_ok == 10
    assert loaded.config.jobs["glpi-db"].source.type == "dump"


def test_the_built_in_defaults_are_those_of_the_example(tmp_path):
    text = (ROOT / "packaging" / "config.yaml").read_text()
    data = YAML(typ="safe", pure=True).load(text)
    del data["defaults"]
    path = tmp_path / "config.yaml"
    YAML(typ="safe", pure=True).dump(data, path)
    assert read(path).config.defaults == read(ROOT / "packaging" / "config.yaml").config.defaults


def test_the_schema_shows_defaults_as_people_write_them():
    properties = config_schema()["$defs"]["Job"]["properties"]
    assert properties["rpo"]["default"] == "4h"
    assert "name" not in properties
