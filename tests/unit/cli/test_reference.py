"""The document is what the verbs say, and every verb is in the documents."""

from pathlib import Path

import pytest

from pra_agent.cli.reference import render
from pra_agent.cli.verb_table import VERBS

ROOT = Path(__file__).parents[3]


def test_the_document_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text() == render(), "run: python -m pra_agent.cli.reference > docs/cli.md"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_its_json(verb):
    if verb not in {"completion", "daemon", "dump"}:
        assert f"`{verb}" in (ROOT / "docs" / "json.md").read_text()
