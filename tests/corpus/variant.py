"""What a variant of a healthy image is, and the shell that makes one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

DEADLINE = 400.0
"""Seconds for a run of the suite; a healthy image takes about 40 on two idle cores."""


class Base(Enum):
    """The healthy image that a variant is a layer on."""

    HOROVOD = "horovod"
    """torch, Horovod, TensorBoard and Dask."""
    PLAIN = "plain"
    """The same without Horovod: where a defect of torch would fail Horovod's checks as well, and take longer."""
    TENSORFLOW = "tensorflow"
    """TensorFlow with Keras 3 and tf_keras, Horovod, TensorBoard and Dask."""


CELLS = {
    Base.HOROVOD: "torch-2.13.0-cpu-py3.11-horovod",
    Base.PLAIN: "torch-2.13.0-cpu-py3.11",
    Base.TENSORFLOW: "tensorflow-2.21.0-cpu-py3.11-horovod",
}
"""The cells of the default matrix whose images these are."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a variant changes of its base's configuration; None and empty leave it as it is.

    Attributes:
        environment: variables to set.
        entrypoint: replaces the base's.
        command: replaces the base's.
        user: as in a Dockerfile.
        workdir: as in a Dockerfile.
        labels: labels to add.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    user: str = ""
    workdir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where the cell promises something else than what the base has; None and empty promise what it has.

    Attributes:
        python: major and minor version.
        cuda: the CUDA version, or `cpu`.
        packages: versions by name, added to those of the base.
    """

    python: str = ""
    cuda: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """An image that is broken in exactly one way.

    Attributes:
        id: unique, for names of tests.
        kind: the kind of defect, in the words of a list of defects.
        breaks: one sentence on what is wrong with the image.
        check: the exact name of the check, or of the host's row, that must fail.
        reason: a part of the reason that it must give.
        base: what it is a layer on.
        script: shell lines that root runs in a container of the base; PYTHON is the base's interpreter, SITE its
            site-packages.
        settings: changes of the configuration.
        cell: what its cell promises.
        also: checks, or globs, that may fail or not run as a consequence; everything else must pass.
        deadline: seconds for the whole run.
        memory_bytes: the limit that it runs under; None for the usual one.
    """

    id: str
    kind: str
    breaks: str
    check: str
    reason: str
    base: Base = Base.HOROVOD
    script: str = ""
    settings: Settings = Settings()
    cell: Cell = Cell()
    also: tuple[str, ...] = ()
    deadline: float = DEADLINE
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """An image that differs from its base in a way that must not matter. The attributes are those of `Broken`.

    Attributes:
        differs: one sentence on how.
        whole: whether it is worth the whole suite also in a short run: what changes could reach the training.
    """

    id: str
    differs: str
    base: Base = Base.HOROVOD
    script: str = ""
    settings: Settings = Settings()
    cell: Cell = Cell()
    whole: bool = False

    @property
    def as_built(self) -> bool:
        """Whether it does not differ at all."""
        return not self.script and self.settings == Settings() and self.cell == Cell()


def append(path: str, text: str) -> str:
    """Shell lines that append a text to a file, as it is."""
    return f"cat >> {path} <<'END_OF_TEXT'\n{textwrap.dedent(text).strip()}\nEND_OF_TEXT\n"


def patch(module: str, text: str) -> str:
    """Shell lines that append Python to a module of the image's site-packages, such as `torch/optim/adamw.py`."""
    # Two empty lines: the module may end in the middle of anything, but not of a line.
    return f'printf "\\n\\n" >> "$SITE/{module}"\n' + append(f'"$SITE/{module}"', text)


def replace(path: str, text: str) -> str:
    """Shell lines that put a program in the place of a file, which may be a link."""
    return f"rm -f {path}\n{append(path, text)}chmod 755 {path}\n"
