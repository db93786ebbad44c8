"""Globs, compiled once: `fnmatch` keeps only the last few hundred, and a matrix of many rules has more."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate

Match = Callable[[str], object]
"""Whether a text matches, as something true or None."""


def compiled(glob: str) -> Match:
    """What matches `glob` as a whole; upper and lower case differ."""
    return re.compile(translate(glob)).match
