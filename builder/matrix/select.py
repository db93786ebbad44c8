"""Which cells are meant: globs over ids, and terms, which are globs over ids or over the values on one axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from builder.errors import ConfigError
from builder.matrix.fields import AXES
from builder.matrix.globs import Match, compiled
from builder.matrix.judge import Judge, refusal, tables
from builder.matrix.model import Axes, Cell, Excluded, Impossible, Judged, Matrix, Selection, Unknown
from builder.matrix.rules import nearest_id
from builder.source import nearest, quote

_AXES = tuple(field.name for field in AXES.fields)
_ID = "id"
"""Stands where a term's axis does when the term is a glob over cell ids."""


_Any = Cell | Excluded | Judged


@dataclass(frozen=True, kw_only=True, slots=True)
class _Term:
    """`axis=glob`, or `glob` over ids, as the user wrote it and taken apart."""

    text: str
    axis: str
    glob: str
    match: Match

    @property
    def is_id(self) -> bool:
        """Whether it is one cell's id, and no glob."""
        return self.axis == _ID and not any(sign in self.glob for sign in "*?[")

    def matches(self, cell: _Any) -> bool:
        return any(self.match(value) for value in _values(cell, self.axis))


class _Alternatives:
    """Terms of which any may match. A CI job names its cells one by one: ids are looked up, not compared."""

    def __init__(self, terms: Iterable[_Term]) -> None:
        self._ids: set[str] = set()
        self._globs: list[_Term] = []
        for term in terms:
            if term.is_id:
                self._ids.add(term.glob)
            else:
                self._globs.append(term)

    def match(self, cell: _Any) -> bool:
        return cell.id in self._ids or any(term.matches(cell) for term in self._globs)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """What is no cell among the combinations of a matrix, each kind in the matrix's order."""

    excluded: tuple[Excluded, ...]
    impossible: tuple[Impossible, ...]
    unknown: tuple[Unknown, ...]


class _Choice:
    """Everything that one command line says about which cells are meant."""

    def __init__(self, patterns: Sequence[str], only: Sequence[str], skip: Sequence[str]) -> None:
        self.patterns = tuple(_Term(text=text, axis=_ID, glob=text, match=compiled(text)) for text in patterns)
        self.only = tuple(_term(text, "--only") for text in only)
        self.skip = tuple(_term(text, "--skip") for text in skip)
        by_axis: dict[str, list[_Term]] = {}
        for term in self.only:
            by_axis.setdefault(term.axis, []).append(term)
        demands = [self.patterns, *by_axis.values()] if self.patterns else list(by_axis.values())
        self._demands = [_Alternatives(terms) for terms in demands]
        self._refused = _Alternatives(self.skip)

    def matches(self, cell: _Any) -> bool:
        return all(terms.match(cell) for terms in self._demands) and not self._refused.match(cell)


def select(
    matrix: Matrix,
    patterns: Sequence[str],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> Selection:
    """The cells that match, in the matrix's order.

    Args:
        matrix: where to look.
        patterns: globs over cell ids, any of which may match; none means every cell.
        only: terms `axis=glob`, or `glob` for cell ids. Terms on one axis, and those for ids, are
            alternatives; every axis that is named must match. `extras=horovod` matches a cell that
            has this extra among others, `cuda` is `cpu` or a version, `framework` is `torch`, or
            `torch==2.*`.
        skip: terms in the same form; a cell that matches any of them is left out.

    Returns:
        The cells, which may be none, and a warning for each pattern or term that matches nothing.

    Raises:
        ConfigError: a term is empty, or names no axis.
    """
    choice = _Choice(patterns, only, skip)
    ids = {cell.id for cell in matrix.cells}
    warnings = [_warning(matrix, term, ids) for term in (*choice.patterns, *choice.only, *choice.skip)]
    return Selection(
        cells=tuple(cell for cell in matrix.cells if choice.matches(cell)),
        warnings=tuple(warning for warning in warnings if warning),
    )


def select_left_out(
    matrix: Matrix,
    patterns: Sequence[str],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> LeftOut:
    """What `select` would choose with the same arguments if it were a cell.

    Raises:
        ConfigError: as `select`.
    """
    choice = _Choice(patterns, only, skip)
    return LeftOut(
        excluded=tuple(cell for cell in matrix.excluded if choice.matches(cell)),
        impossible=tuple(cell for cell in matrix.impossible if choice.matches(cell)),
        unknown=tuple(cell for cell in matrix.unknown if choice.matches(cell)),
    )


def refuse_judged(
    matrix: Matrix,
    patterns: Sequence[str],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    judge: Judge | None = None,
) -> None:
    """For arguments that select no cell: raises when facts are why.

    Args:
        matrix: where to look.
        patterns: as for `select`.
        only: likewise.
        skip: likewise.
        judge: knows what is nearest; None for the tables that imgbuild ships.

    Raises:
        Impossible: they choose only combinations that facts forbid, or that are excluded.
        NotKnown: likewise, and some that the facts do not reach.
        ConfigError: as `select`.
    """
    left_out = select_left_out(matrix, patterns, only=only, skip=skip)
    judged = [*left_out.impossible, *left_out.unknown]
    if judged:
        raise refusal(judged, judge or tables())


def _term(text: str, option: str) -> _Term:
    axis, separator, glob = text.partition("=")
    if text and not separator:
        return _Term(text=text, axis=_ID, glob=text, match=compiled(text))
    if not glob:
        raise ConfigError(
            f"{quote(text)} is neither a glob over cell ids nor of the form `axis=glob`",
            where=option,
            hint="for example `*-horovod` or `python=3.11`",
        )
    if axis not in _AXES:
        raise ConfigError(f"{quote(axis)} is not an axis", where=option, hint=nearest(axis, _AXES))
    return _Term(text=text, axis=axis, glob=glob, match=compiled(glob))


def _values(cell: _Any, axis: str) -> tuple[str, ...]:
    if axis == _ID:
        return (cell.id,)
    if axis == "base" and isinstance(cell, Cell):
        return (cell.base.name,)
    axes: Axes = cell.axes
    values = axes.values(axis)
    if axis == "framework":
        return (*(value.partition("==")[0] for value in values), *values)
    return values


def _warning(matrix: Matrix, term: _Term, ids: set[str]) -> str:
    """What is said of a term that matches no cell; empty for one that does."""
    if term.glob in ids if term.is_id else any(term.matches(cell) for cell in matrix.cells):
        return ""
    found: dict[str, str] = {}
    for excluded in matrix.excluded:
        if term.matches(excluded):
            found["excluded"] = f"{excluded.id} is excluded at {excluded.by}: {excluded.reason}"
            break
    for kind, cells in (("impossible", matrix.impossible), ("unknown", matrix.unknown)):
        for cell in cells:
            if term.matches(cell):
                found[kind] = f"{cell.id}: {cell.reasons[0].message}"
                break
    if found:
        return f"{quote(term.text)} matches only {' and '.join(found)} cells: {next(iter(found.values()))}"
    hint = _hint(matrix, term)
    return f"{quote(term.text)} matches no cell" + (f"; {hint}" if hint else "")


def _hint(matrix: Matrix, term: _Term) -> str:
    if term.axis != _ID:
        return nearest(term.glob, {value for cell in matrix.cells for value in _values(cell, term.axis)})
    named = [cell.id for cell in matrix.cells if term.glob in cell.aliases or term.glob in cell.tags]
    if named:
        return f"it is a tag of {', '.join(quote(id) for id in named[:3])}{', …' if len(named) > 3 else ''}"
    return nearest_id(term.glob, [cell.id for cell in matrix.cells])
