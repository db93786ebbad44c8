"""The fields of what holds for many cells at once: `defaults`, and `overrides` by glob over cell ids."""

from __future__ import annotations

from typing import Final

from builder.matrix.forms import GLOB, NAME, SIZE
from builder.matrix.model import INTERPRETERS, Level
from builder.matrix.schema import Choice, Days, Field, Record

LEVELS: Final = tuple(level.value for level in Level)

REQUIRE: Final = Record(
    name="require",
    doc=(
        "What an image must have shown before it gets its names. Each key stands for itself: what an override does not "
        "say, `defaults` says."
    ),
    some=True,
    fields=(
        Field(
            name="public",
            type=Choice(values=LEVELS),
            doc="The level that it must reach for its tags and aliases. Not above `verified`.",
            example="cpu",
            default="`cpu`, or `verified` where that is less",
        ),
        Field(
            name="verified",
            type=Choice(values=LEVELS),
            doc=(
                "The level that it must reach for the same names with `-verified`. At least `gpu` for a CUDA cell, at "
                "most `cpu` for a CPU cell."
            ),
            example="gpu",
            default="`cpu` for CPU cells, `gpu` for CUDA cells",
        ),
        Field(
            name="max-age",
            type=Days(),
            doc="After so many days, a check no longer counts.",
            example="30",
            default="no limit",
        ),
    ),
)

_FORMER: Final = (("verify", "write `require: {verified: …}`"),)

DEFAULTS: Final = Record(
    name="defaults",
    doc="What holds where nothing else is said.",
    fields=(
        Field(
            name="base",
            type=NAME,
            required=True,
            doc="A name defined under `bases`.",
            example="bookworm",
        ),
        Field(
            name="interpreter",
            type=Choice(values=INTERPRETERS),
            doc=(
                "Where Python comes from: the base's `distribution`; a build of python-build-standalone, installed by "
                "`uv`; or `conda`, from conda-forge."
            ),
            example="uv",
            default="`distribution`",
        ),
        Field(
            name="require",
            type=REQUIRE,
            doc="What an image must have shown before it is tagged.",
            example="{max-age: 30}",
            default="see there",
        ),
        Field(
            name="budget",
            type=SIZE,
            doc=(
                "The most that an image may take on the engine, in decimal units as `docker images` prints them. "
                "One that takes more fails and gets no tag."
            ),
            example="1.2 GB",
            default="no limit",
        ),
    ),
    former=_FORMER,
)

OVERRIDE_SET: Final = Record(
    name="set",
    doc="What an override changes.",
    some=True,
    fields=(
        Field(
            name="base",
            type=NAME,
            doc="A name defined under `bases`. The cell's id does not change.",
            example="trixie",
            default="unchanged",
        ),
        Field(
            name="require",
            type=REQUIRE,
            doc="What an image must have shown before it is tagged.",
            example="{public: gpu}",
            default="unchanged",
        ),
        Field(
            name="budget",
            type=SIZE,
            doc="The most that the cell's image may take, as in `defaults`.",
            example="900 MB",
            default="unchanged",
        ),
        Field(
            name="interpreter",
            type=Choice(values=INTERPRETERS),
            doc="Where Python comes from, as in `defaults`. The cell's id does not change.",
            example="uv",
            default="unchanged",
        ),
    ),
    former=_FORMER,
)

OVERRIDE: Final = Record(
    name="override",
    doc="Changes the cells that match. Two may not set one thing of one cell differently.",
    fields=(
        Field(
            name="match",
            type=GLOB,
            required=True,
            doc="A glob over cell ids.",
            example='"*-cuda*"',
        ),
        Field(
            name="set",
            type=OVERRIDE_SET,
            required=True,
            doc="What it changes.",
            example="{base: trixie}",
        ),
    ),
)
