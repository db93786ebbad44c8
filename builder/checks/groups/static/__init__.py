"""What every image promises, whatever is in it: it runs as any user on a read-only root, and its packages fit.

The files of packages are looked at once, and each framework is imported once, for all checks that ask.
"""

from __future__ import annotations

import json
import os
import pkgutil
from functools import cached_property
from pathlib import Path
from typing import Any

from builder.checks.contract import Group, Measured
from builder.checks.facts import builds, packages
from builder.checks.groups.static import _imports, _packages


class State:
    """What the checks of this group share.

    Attributes:
        request: what the host asked for.
        packages: version of each installed package by name.
        wrong: what is wrong with their metadata, one sentence each.
    """

    def __init__(self, request: dict[str, Any], found: dict[str, str], wrong: list[str]) -> None:
        self.request = request
        self.packages = found
        self.wrong = wrong

    @cached_property
    def files(self) -> _packages.Files:
        """The files that packages brought."""
        return _packages.walk()

    @cached_property
    def imports(self) -> tuple[_imports.Import, ...]:
        """The import of each framework."""
        source = pkgutil.get_data("builder.checks.groups.static", "_probe.py")
        assert source is not None
        return _imports.import_all(source.decode(), Path.cwd())


def _prepare() -> tuple[Any, Measured]:
    """The request, and what the image says of its user and its packages."""
    request = json.loads(os.environ["IMGBUILD_CHECK_REQUEST"])
    home = os.environ.get("HOME", "")
    found, wrong = packages()
    facts = {
        "home": {"path": home, "writable": bool(home) and os.access(home, os.W_OK)},
        "user": os.environ.get("USER", ""),
        "packages": found,
        "builds": builds(),
    }
    return State(request, found, wrong), facts


GROUP = Group(prepare=_prepare, deadline=30, image_home=True)
