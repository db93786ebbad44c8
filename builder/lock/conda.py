"""Lists of conda packages: what a cell's Python is made of where its `interpreter` is `conda`.

A list is one for each Python, `locks/python3.12.conda.txt`, in the form that conda calls explicit: a URL, `#` and a
SHA-256 on each line. It must be of conda-forge; a site's mirror takes the place of that when it is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from builder.errors import ConfigError

CONDA_SUFFIX: Final = ".conda.txt"
CHANNEL: Final = "https://conda.anaconda.org/conda-forge"

_LINE = re.compile(
    re.escape(CHANNEL)
    + r"/(?P<path>(?:linux-64|noarch)/(?P<name>[a-z0-9_][a-z0-9_.-]*)-(?P<version>[^-/#\s]+)-[A-Za-z0-9_.]+"
    r"\.(?:conda|tar\.bz2))#(?:sha256:)?(?P<sha256>[0-9a-f]{64})"
)
# conda adds them to every Python before 3.13, which needs none of them; pip would then be in an image twice.
_LEFT_OUT = ("pip", "setuptools", "wheel")
_EXAMPLE = f"{CHANNEL}/linux-64/python-3.12.9-h9e4cc4f_1_cpython.conda#<64 hexadecimal digits>"


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaPackage:
    """One package.

    Attributes:
        name: such as "python".
        version: such as "3.12.9".
        path: in the channel, such as "linux-64/python-3.12.9-h9e4cc4f_1_cpython.conda".
        sha256: of the file, 64 hexadecimal digits.
    """

    name: str
    version: str
    path: str
    sha256: str


def conda_file(python: str) -> str:
    """The name of the list for a Python, such as "python3.12.conda.txt"."""
    return f"python{python}{CONDA_SUFFIX}"


def parse_conda(data: bytes, where: str, python: str) -> tuple[CondaPackage, ...]:
    """The packages of a list, by path.

    Args:
        data: the file's bytes. Empty lines, comments, `@EXPLICIT`, and pip with what belongs to it count for nothing.
        where: the file's path, for messages.
        python: the Python that it must hold, such as "3.12".

    Raises:
        ConfigError: a line is no package of conda-forge with a SHA-256, a package is there twice, or Python is not
            there or another one.
    """
    found: dict[str, CondaPackage] = {}
    for number, raw in enumerate(data.decode(errors="replace").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "@EXPLICIT")):
            continue
        place, match = f"{where}:{number}:1", _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                "not a package of conda-forge for linux-64 with its SHA-256", where=place, hint=f"such as {_EXAMPLE}"
            )
        if match["name"] in found:
            raise ConfigError(f"{match['name']} is there twice", where=place, hint="keep one of the lines")
        if match["name"] in _LEFT_OUT:
            continue
        found[match["name"]] = CondaPackage(
            name=match["name"], version=match["version"], path=match["path"], sha256=match["sha256"]
        )
    own = found.get("python")
    if own is None or not f"{own.version}.".startswith(f"{python}."):
        raise ConfigError(
            f"the list is for Python {python} and holds {f'Python {own.version}' if own else 'no Python'}",
            where=where,
            hint=conda_hint(python),
        )
    return tuple(sorted(found.values(), key=lambda package: package.path))


def conda_text(packages: tuple[CondaPackage, ...]) -> str:
    """What a build installs from: path and SHA-256 of each package, without the channel."""
    return "".join(f"{package.path} {package.sha256}\n" for package in packages)


def conda_hint(python: str) -> str:
    """How a list is made."""
    return (
        f"write it with conda: `conda create --name py -c conda-forge --override-channels python={python}`, "
        f"then `conda list --name py --explicit --sha256 > dockerfiles/locks/{conda_file(python)}`"
    )
