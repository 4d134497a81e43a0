"""The document is what the collector's table says."""

from pathlib import Path

from pra_agent.exporter import reference


def test_the_committed_document_is_up_to_date() -> None:
    committed = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert committed.read_text() == reference.render(), "run: python -m pra_agent.exporter.reference > docs/metrics.md"
