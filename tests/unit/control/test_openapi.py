"""The document is what the server's table says."""

from pathlib import Path

import pytest

from pra_agent.control import openapi
from pra_agent.control.handlers import JobHandlers
from pra_agent.control.restores import RestoreHandlers
from pra_agent.control.routes import ROUTES

DOCS = Path(__file__).parents[3] / "docs"


def test_the_committed_document_is_up_to_date() -> None:
    assert (DOCS / "openapi.json").read_text() == openapi.render(), (
        "run: python -m pra_agent.control.openapi > docs/openapi.json"
    )


def test_it_is_valid() -> None:
    validator = pytest.importorskip("openapi_spec_validator")

    validator.validate(openapi.document())


def test_every_route_has_one_handler() -> None:
    for route in ROUTES:
        assert hasattr(JobHandlers, route.name) != hasattr(RestoreHandlers, route.name), route.name


def test_paths_and_parameters_agree() -> None:
    for route in ROUTES:
        named = {part.strip("{}") for part in route.path.split("/") if part.startswith("{")}
        assert named == {parameter.name for parameter in route.parameters if parameter.place == "path"}
