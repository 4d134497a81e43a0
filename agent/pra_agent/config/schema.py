"""The JSON Schema of the configuration, with defaults as people write them."""

from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from pra_agent.config.models import Config
from pra_agent.units import format_duration


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401 - whatever a default can be
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def config_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
