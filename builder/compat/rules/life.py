"""What is past its end of life: a warning, as of the day of the tables."""

from __future__ import annotations

from collections.abc import Iterator

from builder.compat.model import Combination, Facts
from builder.compat.rules.base import system_of
from builder.compat.rules.said import Said, warning


def _is_over(end: str | None, facts: Facts) -> bool:
    """Whether a date is past. One without a day, such as 2026-10, is past when its month is."""
    if end is None:
        return False
    return end < facts.date[: len(end)]


def end_of_life(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The Python or the distribution gets no more security fixes."""
    if combination.python is not None:
        known = facts.pythons.get(combination.python.rstrip("t"))
        if known is not None and _is_over(known.end_of_life, facts):
            yield warning(f"Python {known.version} has had no security fixes since {known.end_of_life}", known.origin)
    system = system_of(combination, facts)
    if system is not None and _is_over(system.end_of_life, facts):
        yield warning(f"the regular support of {system.name} ended on {system.end_of_life}", system.origin)
