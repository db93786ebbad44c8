"""`exclude` and `overrides`: which of them apply to a combination, and which of them never did.

Neither can change what it matches, an id and the values on the axes: the id is fixed before them, and an override's
base is not looked at by any glob. So their order never matters but for the reason that is recorded, and no cycle of
rules can be written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from builder.errors import ConfigError
from builder.matrix.declare import Declarations, Exclusion, Override, Placed, Requirements
from builder.matrix.globs import Match, compiled
from builder.matrix.model import Axes
from builder.source import Position, nearest, quote

# Comparing a word that matches nothing with every id of a large matrix would take longer than expanding it.
_MOST_COMPARED = 200


class Exclusions:
    """The entries of `exclude`."""

    def __init__(self, entries: Sequence[Exclusion]) -> None:
        self._rules = [(entry, _Exclude(entry)) for entry in entries]
        self._useful: set[Position] = set()

    def first(self, id: str, axes: Axes) -> Exclusion | None:
        """The first entry that matches; every one that does is known to be of use."""
        found: Exclusion | None = None
        for entry, rule in self._rules:
            if rule.matches(id, axes):
                self._useful.add(entry.position)
                found = found or entry
        return found

    def useless(self, ids: Collection[str], values: Mapping[str, Collection[str]]) -> list[str]:
        """A warning for each entry that matched nothing.

        Args:
            ids: of all combinations.
            values: of all combinations, by axis.
        """
        return [
            _useless_exclusion(entry, rule, ids, values)
            for entry, rule in self._rules
            if entry.position not in self._useful
        ]


def axis_values(declarations: Declarations) -> dict[str, set[str]]:
    """Every value that occurs on each axis, in the product or in an include."""
    axes, include = declarations.axes, declarations.include
    return {
        "framework": {value.text for value in (*axes.framework, *(each.framework for each in include))},
        "cuda": {value.text for value in (*axes.cuda, *(each.cuda for each in include))},
        "python": {value.text for value in (*axes.python, *(each.python for each in include))},
        "base": {value.text for value in (*axes.base, *(each.base for each in include))},
        "extras": {
            name
            for names in (*(each.names for each in axes.extras), *(each.extras for each in include))
            for name in names
        },
    }


class _Exclude:
    """One entry, with its globs compiled and what they said of each value of an axis."""

    def __init__(self, entry: Exclusion) -> None:
        self._id = compiled(entry.glob) if entry.glob is not None else None
        self.axes = [(axis, glob, compiled(glob)) for axis, glob in entry.axes]
        self._known: dict[tuple[str, str], bool] = {}

    def matches(self, id: str, axes: Axes) -> bool:
        if self._id is not None:
            return self._id(id) is not None
        return all(any(self._value(axis, match, value) for value in axes.values(axis)) for axis, _, match in self.axes)

    def _value(self, axis: str, match: Match, value: str) -> bool:
        known = self._known.get((axis, value))
        if known is None:
            known = self._known[axis, value] = match(value) is not None
        return known


def _useless_exclusion(
    entry: Exclusion, rule: _Exclude, ids: Collection[str], values: Mapping[str, Collection[str]]
) -> str:
    message = f"{entry.position}: this `exclude` matches no cell"
    if entry.glob is not None:
        return _with_hint(message, nearest_id(entry.glob, ids))
    for axis, glob, match in rule.axes:
        if not any(match(value) for value in values[axis]):
            return _with_hint(f"{message}: no cell has `{axis}` {quote(glob)}", nearest(glob, values[axis]))
    return f"{message}: no cell has all of its values"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overridden:
    """What a cell gets from `overrides`, each with its position; None for no change."""

    base: Placed | None
    interpreter: Placed | None
    budget: Placed | None
    require: Requirements


class Overrides:
    """The entries of `overrides`."""

    def __init__(self, entries: Sequence[Override], default_base: str) -> None:
        self._rules = [(entry, compiled(entry.match.text)) for entry in entries]
        self._useful: set[Position] = set()
        self._default_base = default_base

    def of(self, id: str, axes: Axes, interpreter: str | None = None) -> Overridden:
        """What the cell gets from them.

        Args:
            id: of the cell.
            axes: its values.
            interpreter: the one that its id names; None when it names none.

        Raises:
            ConfigError: two set one thing differently, or the id would name another base or interpreter than the
                cell's.
        """
        named = {"base": None if axes.base == self._default_base else axes.base, "interpreter": interpreter}
        found: dict[str, tuple[Override, Placed]] = {}
        for entry, match in self._rules:
            if not match(id):
                continue
            self._useful.add(entry.match.position)
            said = entry.require
            for name, value in (
                ("base", entry.base),
                ("interpreter", entry.interpreter),
                ("budget", entry.budget),
                ("require.public", said.public),
                ("require.verified", said.verified),
                ("require.max-age", said.max_age),
            ):
                if value is None:
                    continue
                if named.get(name) not in (None, value.text):
                    raise ConfigError(
                        f"{quote(value.text)} cannot replace the {name} of {id}, whose id names it",
                        where=str(value.position),
                        hint=_narrow(entry),
                    )
                found[name] = _agreed(name, id, found.get(name), (entry, value))
        placed = {name: value for name, (_, value) in found.items()}
        return Overridden(
            base=placed.get("base"),
            interpreter=placed.get("interpreter"),
            budget=placed.get("budget"),
            require=Requirements(
                public=placed.get("require.public"),
                verified=placed.get("require.verified"),
                max_age=placed.get("require.max-age"),
            ),
        )

    def useless(self, ids: Collection[str]) -> list[str]:
        """A warning for each entry that matched nothing."""
        return [
            _with_hint(f"{entry.match.position}: this override matches no cell", nearest_id(entry.match.text, ids))
            for entry, _ in self._rules
            if entry.match.position not in self._useful
        ]


def _agreed(
    field: str, id: str, first: tuple[Override, Placed] | None, second: tuple[Override, Placed]
) -> tuple[Override, Placed]:
    if first is None:
        return second
    if first[1].text != second[1].text:
        raise ConfigError(
            f"two overrides contradict each other: they set `{field}` of {id} to {quote(first[1].text)} "
            f"(at {first[1].position}) and to {quote(second[1].text)}",
            where=str(second[1].position),
            hint=f"{_narrow(second[0])} or {quote(first[0].match.text)}, so that one of them matches",
        )
    return first


def _narrow(entry: Override) -> str:
    return f"narrow the glob {quote(entry.match.text)}"


def _with_hint(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message


def nearest_id(glob: str, ids: Collection[str]) -> str:
    """A hint naming the id most like `glob`; among very many, only those that begin alike are compared."""
    if len(ids) <= _MOST_COMPARED:
        return nearest(glob, ids)
    start = len(glob)
    while start:
        alike = [id for id in ids if id.startswith(glob[:start])]
        if alike:
            return nearest(glob, alike[:_MOST_COMPARED])
        start -= 1
    return ""
