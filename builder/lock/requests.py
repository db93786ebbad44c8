"""What the templates of a cell ask a lock for: gathered by rendering the cell without a lock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PythonRequest:
    """One `python(…)` of a template.

    Attributes:
        requirements: what is asked for, sorted, such as ("numpy", "torch==2.13.0+cpu").
        after: the requirements, sorted, of every request that this one builds on; what they install is there already.
        deps: whether dependencies are installed too.
    """

    requirements: tuple[str, ...]
    after: tuple[str, ...]
    deps: bool = True


@dataclass(frozen=True, kw_only=True)
class DebianRequest:
    """One `debian(…)` of a template.

    Attributes:
        packages: what is asked for, sorted.
        after: the packages, sorted, that earlier requests of the same image ask for.
    """

    packages: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Everything that the templates of one cell ask for.

    Attributes:
        python: its requests for Python packages, in the order in which the templates make them.
        debian: its requests for the distribution's packages, likewise.
        constraints: the text of the cell's constraints file; empty when it has none.
    """

    python: tuple[PythonRequest, ...]
    debian: tuple[DebianRequest, ...]
    constraints: str
