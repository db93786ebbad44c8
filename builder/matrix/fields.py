"""The fields of `matrix.yaml`, schema version 1: names, types, meanings, defaults and examples."""

from __future__ import annotations

from typing import Final

from builder.matrix.definitions import BASE, EXTRA, FRAMEWORK
from builder.matrix.forms import (
    CUDA,
    GLOB,
    NAME,
    PYTHON,
    REASON,
    REPOSITORY,
    REQUIREMENT,
    TAG,
    TAG_PLACEHOLDERS,
    TAG_TEMPLATE,
    URL,
    VALUE_GLOB,
)
from builder.matrix.model import INTERPRETERS
from builder.matrix.schema import Choice, Either, Field, ListOf, MapOf, Number, Record
from builder.matrix.settings import DEFAULTS, OVERRIDE

SCHEMA_VERSION: Final = 1

AXES: Final = Record(
    name="axes",
    doc=(
        "The cells are the product of these lists, in this order: framework, cuda, python, base, "
        "extras; the last varies fastest."
    ),
    fields=(
        Field(
            name="framework",
            type=ListOf(item=REQUIREMENT, empty=True),
            required=True,
            doc="Frameworks with their exact versions. The names are defined under `frameworks`.",
            example="[torch==2.13.0]",
        ),
        Field(
            name="cuda",
            type=ListOf(item=CUDA, empty=True),
            required=True,
            doc="`cpu`, or CUDA versions. Quote them: YAML reads 12.10 as 12.1.",
            example='[cpu, "13.0"]',
        ),
        Field(
            name="python",
            type=ListOf(item=PYTHON, empty=True),
            required=True,
            doc="Python versions. Quote them: YAML reads 3.10 as 3.1.",
            example='["3.11"]',
        ),
        Field(
            name="base",
            type=ListOf(item=NAME),
            doc=("Names defined under `bases`. A base other than `defaults.base` becomes part of the cell's id."),
            example="[bookworm]",
            default="`defaults.base`",
        ),
        Field(
            name="extras",
            type=ListOf(item=ListOf(item=NAME, empty=True)),
            doc="Each item is a list of names defined under `extras`; `[]` is none.",
            example="[[tensorboard], [horovod, tensorboard]]",
            default="`[[]]`",
        ),
    ),
)

AXIS_MATCH: Final = Record(
    name="match",
    doc="Globs over a cell's values; every one that is given must match.",
    some=True,
    fields=tuple(
        Field(name=name, type=VALUE_GLOB, doc=doc, example=example, default="any")
        for name, doc, example in (
            ("framework", "The framework and version.", '"torch==2.*"'),
            ("cuda", "The CUDA version, or `cpu`.", '"12.*"'),
            ("python", "The Python version.", '"3.13"'),
            ("base", "The base, before overrides.", "trixie"),
            ("extras", "At least one of the cell's extras.", "horovod"),
        )
    ),
)

EXCLUDE: Final = Record(
    name="exclude",
    doc="Takes cells out of the matrix and records why.",
    fields=(
        Field(
            name="match",
            type=Either(text=GLOB, other=AXIS_MATCH),
            required=True,
            doc="Which cells.",
            example='{python: "3.13", extras: horovod}',
        ),
        Field(
            name="reason",
            type=REASON,
            required=True,
            doc="Why, on one line. It is shown to whoever asks for the cell.",
            example="no wheel exists",
        ),
    ),
)

INCLUDE: Final = Record(
    name="include",
    doc="Adds one cell beside the product of the axes; `exclude` and `overrides` apply to it too.",
    fields=(
        Field(
            name="framework",
            type=REQUIREMENT,
            required=True,
            doc="As in `axes`.",
            example="torch==2.12.0",
        ),
        Field(name="cuda", type=CUDA, required=True, doc="As in `axes`.", example='"12.6"'),
        Field(name="python", type=PYTHON, required=True, doc="As in `axes`.", example='"3.11"'),
        Field(
            name="base",
            type=NAME,
            doc="As in `axes`.",
            example="bookworm",
            default="`defaults.base`",
        ),
        Field(
            name="interpreter",
            type=Choice(values=INTERPRETERS),
            doc="As in `defaults`; another one than there becomes part of the cell's id.",
            example="uv",
            default="`defaults.interpreter`",
        ),
        Field(
            name="extras",
            type=ListOf(item=NAME, empty=True),
            doc="Names defined under `extras`.",
            example="[dask]",
            default="`[]`",
        ),
        Field(
            name="reason",
            type=REASON,
            doc="Why the cell is there, for readers of the file.",
            example="the last release for our old driver",
            default="none",
        ),
    ),
)

MATRIX: Final = Record(
    name="matrix",
    doc="The whole file.",
    fields=(
        Field(
            name="version",
            type=Number(value=SCHEMA_VERSION),
            required=True,
            doc="The version of this schema.",
            example="1",
        ),
        Field(
            name="repository",
            type=REPOSITORY,
            required=True,
            doc="Images are `<repository>/<framework's image>:<tag>`.",
            example="imgbuild",
        ),
        Field(name="axes", type=AXES, required=True, doc="What is multiplied.", example="{…}"),
        Field(
            name="bases",
            type=MapOf(key=NAME, value=BASE),
            required=True,
            doc="The images that cells are built from.",
            example="{bookworm: {…}}",
        ),
        Field(
            name="frameworks",
            type=MapOf(key=NAME, value=FRAMEWORK),
            required=True,
            doc="The frameworks that `axes` and `include` may name.",
            example="{torch: {…}}",
        ),
        Field(
            name="channels",
            type=MapOf(key=NAME, value=URL),
            doc="Package indexes that hold a framework's wheels for one CUDA version.",
            example="{pytorch-cpu: https://wheels.example.org/cpu}",
            default="`{}`",
        ),
        Field(
            name="extras",
            type=MapOf(key=NAME, value=EXTRA),
            doc=(
                "The extras that `axes` and `include` may name. This order is the order in which "
                "a cell lists and names them."
            ),
            example="{horovod: {…}}",
            default="`{}`",
        ),
        Field(
            name="defaults",
            type=DEFAULTS,
            required=True,
            doc="What holds where nothing else is said.",
            example="{base: bookworm}",
        ),
        Field(
            name="include",
            type=ListOf(item=INCLUDE, empty=True),
            doc="Further cells.",
            example="[{…}]",
            default="`[]`",
        ),
        Field(
            name="exclude",
            type=ListOf(item=EXCLUDE, empty=True),
            doc="Cells that are not built, with the reason. The first that matches counts.",
            example="[{…}]",
            default="`[]`",
        ),
        Field(
            name="overrides",
            type=ListOf(item=OVERRIDE, empty=True),
            doc="Changes by glob over cell ids.",
            example="[{…}]",
            default="`[]`",
        ),
        Field(
            name="tags",
            type=ListOf(item=TAG_TEMPLATE),
            required=True,
            doc=(
                "A cell's tags. Placeholders: "
                + ", ".join(f"`{{{name}}}`" for name in TAG_PLACEHOLDERS)
                + ". `{cuda}` renders `cpu` or `cuda13.0`, `{extras}` renders `-horovod0.28.1` for named extras and "
                "nothing for others, `{interpreter}` renders `-uv` or `-conda`, and nothing for the distribution's."
            ),
            example='["{version}-{cuda}-py{python}{extras}"]',
        ),
        Field(
            name="aliases",
            type=MapOf(key=TAG, value=Either(text=GLOB, other=ListOf(item=GLOB))),
            doc=(
                "Moving tags. Each glob matches exactly one cell; with several, the cells belong "
                "to different image repositories."
            ),
            example='{latest: "torch-2.13.0-cpu-py3.11-horovod"}',
            default="`{}`",
        ),
    ),
)
