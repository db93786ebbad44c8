"""The fields of `matrix.yaml`, schema version 1: names, types, meanings, defaults and examples."""

from __future__ import annotations

from typing import Final

from builder.matrix.forms import (
    CONSTRAINTS,
    CUDA,
    DIGEST,
    GLOB,
    IMAGE,
    LEAF,
    NAME,
    NO_FACTS,
    PACKAGE,
    PATH_PLACEHOLDERS,
    PYTHON,
    REASON,
    REPOSITORY,
    REQUIREMENT,
    SIZE,
    SYSTEM_PACKAGE,
    TAG,
    TAG_PLACEHOLDERS,
    TAG_TEMPLATE,
    TEMPLATE,
    URL,
    VALUE_GLOB,
    VERSION,
)
from builder.matrix.model import Level
from builder.matrix.schema import Choice, Days, Either, Field, Flag, ListOf, MapOf, Number, Record

SCHEMA_VERSION: Final = 1
LEVELS: Final = tuple(level.value for level in Level)

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

BOOTSTRAP: Final = Record(
    name="bootstrap",
    doc="How to make a base's equivalent from packages where no registry can be reached.",
    fields=(
        Field(
            name="distribution",
            type=Choice(values=("debian", "ubuntu")),
            required=True,
            doc="The distribution.",
            example="debian",
        ),
        Field(
            name="suite",
            type=NAME,
            required=True,
            doc="The distribution's release.",
            example="bookworm",
        ),
        Field(
            name="include",
            type=ListOf(item=SYSTEM_PACKAGE, empty=True),
            doc="Packages to install beyond the essential ones.",
            example="[ca-certificates]",
            default="`[]`",
        ),
    ),
)

BASE: Final = Record(
    name="base",
    doc="An image that cells are built from.",
    fields=(
        Field(
            name="image",
            type=IMAGE,
            required=True,
            doc="Name and tag in a registry.",
            example="debian:bookworm-slim",
        ),
        Field(
            name="digest",
            type=DIGEST,
            doc="Pins the image to these bytes.",
            example="sha256:0123…",
            default="the tag is resolved when it is locked",
        ),
        Field(
            name="bootstrap",
            type=BOOTSTRAP,
            doc="The equivalent where no registry can be reached.",
            example="{distribution: debian, suite: bookworm}",
            default="none: the base needs its registry",
        ),
        Field(
            name="python",
            type=ListOf(item=PYTHON),
            required=True,
            doc="The Pythons that cells may have on it: its distribution carries them, or templates install them.",
            example='["3.11"]',
        ),
    ),
)

FRAMEWORK: Final = Record(
    name="framework",
    doc="How a framework is installed, for all its versions.",
    fields=(
        Field(
            name="image",
            type=LEAF,
            required=True,
            doc="The last component of its images' repository.",
            example="pytorch",
        ),
        Field(
            name="template",
            type=TEMPLATE,
            required=True,
            doc="The Dockerfile template, a path inside `dockerfiles/`.",
            example="pytorch.Dockerfile.j2",
        ),
        Field(
            name="constraints",
            type=CONSTRAINTS,
            doc=(
                "A pip constraints file, a path inside `dockerfiles/`, that limits what `imgbuild lock` chooses. "
                "Placeholders: " + ", ".join(f"`{{{name}}}`" for name in PATH_PLACEHOLDERS) + "."
            ),
            example="constraints/torch-{version}-py{python}.txt",
            default="no limits",
        ),
        Field(
            name="channels",
            type=MapOf(key=CUDA, value=NAME),
            doc="For a value of `cuda`, the name of the channel that holds its wheels.",
            example="{cpu: pytorch-cpu}",
            default="the package index alone",
        ),
        Field(
            name="facts",
            type=NAME,
            doc=(
                "The project that it is in imgbuild's tables of facts, by which its cells are judged; "
                f"`{NO_FACTS}`: they know nothing of it, and only CUDA, Python and the base are judged."
            ),
            example=NO_FACTS,
            default="its own name",
        ),
    ),
)

EXTRA: Final = Record(
    name="extra",
    doc="Packages that some cells carry beside the framework.",
    fields=(
        Field(
            name="packages",
            type=ListOf(item=PACKAGE),
            required=True,
            doc="Python packages; their versions come from the lock.",
            example="[dask, distributed]",
        ),
        Field(
            name="version",
            type=VERSION,
            doc="The exact version, where `packages` is a single package.",
            example='"0.28.1"',
            default="the lock decides",
        ),
        Field(
            name="controller",
            type=Choice(values=("gloo", "mpi")),
            doc="How Horovod's ranks coordinate.",
            example="gloo",
            default="none",
        ),
        Field(
            name="named",
            type=Flag(),
            doc="Whether it is part of the cell's id and, as `{extras}`, of its tags.",
            example="true",
            default="`false`",
        ),
    ),
)

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
                + ". `{cuda}` renders `cpu` or `cuda13.0`, `{extras}` renders `-horovod0.28.1` "
                "for named extras and nothing for others."
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
