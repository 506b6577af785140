"""What every section of a configuration has in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

#: class index of a pixel that no loss and no score may look at
IGNORE = 255
#: a file's name has up to 255, and ours put seeds and endings behind it
_NAME_BYTES = 200


class Section(BaseModel):
    """A frozen, strict group of fields: unknown keys, wrong types and nan are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def name_problem(name: str) -> str | None:
    """Why a word cannot name a file or folder, a column and a line on the screen; None: it can."""
    if not name.isprintable():
        return "characters that cannot be printed"
    if "/" in name or name in ("", ".", ".."):
        return "a path in place of a name"
    return f"more than {_NAME_BYTES} bytes" if len(name.encode()) > _NAME_BYTES else None


def _checked_name(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(f"name {name[:_NAME_BYTES]!r}: {problem}; a name has no '/', no line break and 1 to 200 bytes")
    return name


#: what people call an arm, a factor, a parameter: it becomes a folder, a column, a comment
Name = Annotated[str, AfterValidator(_checked_name)]


def json_schema(section: type[Section]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a section, for editors that complete and check YAML files."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **section.model_json_schema()}


#: `pretrained`: the library's weights, an error where they cannot be had. `pretrained_if_available`: those, or
#: random ones, settled and said on screen before the first trial. `none`: random. Anything else: a
#: .safetensors file.
Weights = Literal["pretrained", "pretrained_if_available", "none"] | str
