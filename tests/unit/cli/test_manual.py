"""Manual pages: one for each verb, with all of its options, and what roff takes."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
import typer

from pra_agent.cli.app import build
from pra_agent.cli.manual import pages
from pra_agent.cli.verb_table import VERBS

DATE = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def made():
    return pages(DATE)


def test_there_is_one_for_each_verb(made):
    assert made.keys() == {"pra-agent.1", *(f"pra-agent-{verb}.1" for verb in VERBS)}
    for verb in VERBS:
        assert rf"\fBpra\-agent\-{verb}\fR(1)" in made["pra-agent.1"]


def test_it_tells_every_option(made):
    command = typer.main.get_command(build("restore")).commands["restore"]  # type: ignore[attr-defined]
    for parameter in command.params:
        for name in parameter.opts if parameter.param_type_name == "option" else ():
            assert name.replace("-", r"\-") in made["pra-agent-restore.1"]


def test_groups_tell_their_verbs(made):
    assert ".SH KEY ADD" in made["pra-agent-key.1"]


def test_it_is_dated(made):
    assert made["pra-agent.1"].startswith('.TH PRA\\-AGENT 1 2026-01-02 "pra-agent ')


@pytest.mark.skipif(shutil.which("mandoc") is None and shutil.which("groff") is None, reason="no mandoc and no groff")
def test_roff_has_no_complaint(made):
    checker = ["mandoc", "-Tlint", "-Werror"] if shutil.which("mandoc") else ["groff", "-man", "-ww", "-Tascii", "-z"]
    for name, text in made.items():
        done = subprocess.run(checker, input=text, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), name
