"""What templates ask a lock for, and what lock files hold.

There are two kinds, both below `dockerfiles/locks/`:

- one for each base, `<base>.base.json`: its digest, the packages of its made equivalent, and the distribution's
  packages that cells on it install;
- one for each environment, `<framework>-<version>-<cuda>-py<python>-<base>.python.json`: the Python packages of every
  cell that has these five in common. They are resolved together, so that such cells share versions, and layers.

Every request of a template has its answer there: what it adds to the requests before it.

A lock holds no URL and nothing of the machine that made it: a lock made behind a mirror equals one made without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ARCHITECTURE = "amd64"
"""The one that locks are for, as engines spell it: for another, every file of a framework is another."""


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

    @property
    def order(self) -> tuple[object, ...]:
        """What requests are sorted by: what builds on little comes first, as in a Dockerfile."""
        return (len(self.after), self.after, self.requirements, self.deps)

    def __str__(self) -> str:
        """The request, as its template's author would know it."""
        text = ", ".join(self.requirements) or "nothing"
        if not self.deps:
            text += " without dependencies"
        return f"{text} after {', '.join(self.after)}" if self.after else text


@dataclass(frozen=True, kw_only=True)
class DebianRequest:
    """One `debian(…)` of a template.

    Attributes:
        packages: what is asked for, sorted.
        after: the packages, sorted, that earlier requests of the same image ask for.
    """

    packages: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def order(self) -> tuple[object, ...]:
        """As `PythonRequest.order`."""
        return (len(self.after), self.after, self.packages)

    def __str__(self) -> str:
        text = ", ".join(self.packages)
        return f"{text} after {', '.join(self.after)}" if self.after else text


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Everything that the templates of one cell ask for.

    Attributes:
        python: its requests for Python packages, in the order in which the templates make them.
        debian: its requests for the distribution's packages, likewise.
        constraints: the text of the cell's constraints file; empty when it has none.
        provided: names, sorted, of the projects that something else in the image stands for: they are not installed.
    """

    python: tuple[PythonRequest, ...]
    debian: tuple[DebianRequest, ...]
    constraints: str
    provided: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LockedPackage:
    """One file that pip installs.

    Attributes:
        name: the project's normalised name.
        version: with its local part, such as "2.13.0+cpu".
        file: the file's name: the wheel that fits the environment best, or the source distribution.
        sha256: of the file, 64 hexadecimal digits.
    """

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentLock:
    """The Python packages of the cells that share a framework, its version, CUDA, Python and base.

    Attributes:
        name: the file's name without its suffix, such as "torch-2.13.0-cpu-py3.11-bookworm".
        constraints: SHA-256 of the constraints file that it was resolved under; empty without one.
        packages: every package that one of its cells installs, by name: one version of each.
        installs: names of the packages, sorted, that each request installs.
    """

    name: str
    constraints: str
    packages: Mapping[str, LockedPackage]
    installs: Mapping[PythonRequest, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class MadeBase:
    """A base made from the distribution's packages.

    Attributes:
        recipe: SHA-256 of its recipe, as `BootstrapRecipe.sha256`.
        packages: versions of everything that is installed in it, by name.
    """

    recipe: str
    packages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class BaseLock:
    """A base, and what the distribution adds to it.

    Attributes:
        name: the base's name in `matrix.yaml`.
        image: its image there, such as "debian:bookworm-slim".
        refreshed: the day (ISO 8601) on which versions were last taken from the distribution.
        digest: the image's digest; None when no registry could be asked, which `why` explains.
        why: why there is no digest; empty when there is one.
        made: its equivalent; None when it was not made.
        installs: what each request installs, versions by name: what it asks for and what that depends on, apart from
            what the base and the earlier requests brought.
    """

    name: str
    image: str
    refreshed: str
    digest: str | None
    why: str
    made: MadeBase | None
    installs: Mapping[DebianRequest, Mapping[str, str]] = field(default_factory=dict)
