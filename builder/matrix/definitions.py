"""The fields of what `matrix.yaml` defines by name: bases, frameworks, extras."""

from __future__ import annotations

from typing import Final

from builder.matrix.forms import (
    CONSTRAINTS,
    CUDA,
    DIGEST,
    IMAGE,
    LEAF,
    NAME,
    NO_FACTS,
    PACKAGE,
    PATH_PLACEHOLDERS,
    PYTHON,
    SYSTEM_PACKAGE,
    TEMPLATE,
    VERSION,
)
from builder.matrix.schema import Choice, Field, Flag, ListOf, MapOf, Record

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
            doc=(
                "The Pythons that its distribution carries, or that templates of one's own install. Cells whose "
                "`interpreter` is `uv` or `conda` may have others."
            ),
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
