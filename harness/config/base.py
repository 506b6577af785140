"""What every section of a configuration has in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

#: class index of a pixel that no loss and no score may look at
IGNORE = 255


class Section(BaseModel):
    """A frozen, strict group of fields: unknown keys, wrong types and nan are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def json_schema(section: type[Section]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a section, for editors that complete and check YAML files."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **section.model_json_schema()}


#: `pretrained`: the library's weights, an error where they cannot be had. `pretrained_if_available`: those, or
#: random ones, settled and said on screen before the first trial. `none`: random. Anything else: a
#: .safetensors file.
Weights = Literal["pretrained", "pretrained_if_available", "none"] | str
