"""Where the frames come from, what their ids mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from harness.config.base import Section

RawId = Annotated[int, Field(ge=0, le=65535)]
Channel = Annotated[int, Field(ge=0, le=255)]


def _on_one_line(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"name {name!r}: characters that cannot be printed; a name is one line of letters")
    return name


#: it stands in tables and on screens
ClassName = Annotated[str, Field(min_length=1), AfterValidator(_on_one_line)]


class SyntheticDesert(Section):
    """The generated desert that stands in where no dataset is given."""

    train: int = Field(96, ge=1, description="training frames")
    val: int = Field(32, ge=1, description="validation frames, same environment as training")
    test: int = Field(32, ge=1, description="test frames, from the other environment")
    height: int = Field(136, ge=32, description="frame height, pixels")
    width: int = Field(240, ge=32, description="frame width, pixels")
    seed: int = Field(0, ge=0, description="seed of the generator")


class DataConfig(Section):
    """The frames, and the size at which the model sees them."""

    root: str | None = Field(None, description="dataset folder in the official layout; none: synthetic desert")
    synthetic: SyntheticDesert = Field(SyntheticDesert(), description="the desert made when root is none")
    input_size: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = Field(
        (96, 160), description="height and width of the model's input, pixels"
    )
    normalise: Literal["imagenet", "unit"] = Field(
        "imagenet", description="imagenet: minus mean, over deviation; unit: divided by 255 only (DesertMind)"
    )


class CustomClass(Section):
    """One class of a custom taxonomy."""

    name: ClassName = Field(description="name, unique in the taxonomy")
    ids: tuple[RawId, ...] = Field(min_length=1, description="raw mask values; the first is written by predict")
    colour: tuple[Channel, Channel, Channel] = Field(description="RGB, 0-255")


class NamedTaxonomy(Section):
    """One of the taxonomies that come with the harness, with classes merged if wanted."""

    kind: Literal["named"] = "named"
    name: Literal["falcon10", "ignitia10", "falcon7"] = Field(
        "falcon10",
        description="falcon10: all ten classes. falcon7: Ground Clutter, Flowers, Logs ignored. "
        "ignitia10: as that team trained, Flowers (600) lost in class 0",
    )
    merge: dict[str, str] = Field({}, description="class to the class it becomes, or to 'ignore'")


class CustomTaxonomy(Section):
    """Your own classes."""

    kind: Literal["custom"] = "custom"
    classes: tuple[CustomClass, ...] = Field(min_length=2, max_length=254, description="classes in index order")
    ignore: tuple[RawId, ...] = Field((), description="raw values that are never scored")
    unlisted: Literal["error", "ignore"] = Field("error", description="what any other raw value is")
    merge: dict[str, str] = Field({}, description="class to the class it becomes, or to 'ignore'")


TaxonomyConfig = Annotated[NamedTaxonomy | CustomTaxonomy, Field(discriminator="kind")]
