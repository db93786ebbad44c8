"""Which cells are meant: globs over ids, and terms, which are globs over ids or over the values on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from builder.errors import ConfigError
from builder.matrix.fields import AXES
from builder.matrix.model import Cell, Excluded, Matrix, Selection
from builder.source import nearest, quote

_AXES = tuple(field.name for field in AXES.fields)
_ID = "id"
"""Stands where a term's axis does when the term is a glob over cell ids."""


@dataclass(frozen=True, kw_only=True)
class _Term:
    """`axis=glob`, or `glob` over ids, as the user wrote it and taken apart."""

    text: str
    axis: str
    glob: str

    def matches(self, cell: Cell | Excluded) -> bool:
        return any(fnmatchcase(value, self.glob) for value in _values(cell, self.axis))


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """Everything that one command line says about which cells are meant."""

    patterns: tuple[str, ...]
    only: tuple[_Term, ...]
    skip: tuple[_Term, ...]

    def matches(self, cell: Cell | Excluded) -> bool:
        return (
            (not self.patterns or any(fnmatchcase(cell.id, pattern) for pattern in self.patterns))
            and all(
                any(term.matches(cell) for term in self.only if term.axis == axis)
                for axis in {term.axis for term in self.only}
            )
            and not any(term.matches(cell) for term in self.skip)
        )


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
    choice = _choice(patterns, only, skip)
    warnings = [_pattern_warning(matrix, pattern) for pattern in patterns]
    warnings += [_term_warning(matrix, term) for term in (*choice.only, *choice.skip)]
    return Selection(
        cells=tuple(cell for cell in matrix.cells if choice.matches(cell)),
        warnings=tuple(warning for warning in warnings if warning),
    )


def select_excluded(
    matrix: Matrix,
    patterns: Sequence[str],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> tuple[Excluded, ...]:
    """The excluded cells that `select` would choose with the same arguments, had nothing excluded them.

    Raises:
        ConfigError: as `select`.
    """
    choice = _choice(patterns, only, skip)
    return tuple(excluded for excluded in matrix.excluded if choice.matches(excluded))


def _choice(patterns: Sequence[str], only: Sequence[str], skip: Sequence[str]) -> _Choice:
    return _Choice(
        patterns=tuple(patterns),
        only=tuple(_term(text, "only") for text in only),
        skip=tuple(_term(text, "skip") for text in skip),
    )


def _term(text: str, option: str) -> _Term:
    axis, separator, glob = text.partition("=")
    if text and not separator:
        return _Term(text=text, axis=_ID, glob=text)
    if not glob:
        raise ConfigError(
            f"{quote(text)} is neither a glob over cell ids nor of the form `axis=glob`",
            where=option,
            hint="for example `*-horovod` or `python=3.11`",
        )
    if axis not in _AXES:
        raise ConfigError(f"{quote(axis)} is not an axis", where=option, hint=nearest(axis, _AXES))
    return _Term(text=text, axis=axis, glob=glob)


def _values(cell: Cell | Excluded, axis: str) -> tuple[str, ...]:
    if axis == _ID:
        return (cell.id,)
    if axis == "base" and isinstance(cell, Cell):
        return (cell.base.name,)
    values = cell.axes.values(axis)
    if axis == "framework":
        return (*(value.partition("==")[0] for value in values), *values)
    return values


def _pattern_warning(matrix: Matrix, pattern: str) -> str:
    if any(fnmatchcase(cell.id, pattern) for cell in matrix.cells):
        return ""
    for cell in matrix.excluded:
        if fnmatchcase(cell.id, pattern):
            return f"{quote(pattern)} matches only excluded cells: {cell.id} is excluded at {cell.by}: {cell.reason}"
    hint = nearest(pattern, (cell.id for cell in matrix.cells))
    return f"{quote(pattern)} matches no cell" + (f"; {hint}" if hint else "")


def _term_warning(matrix: Matrix, term: _Term) -> str:
    if term.axis == _ID:
        return _pattern_warning(matrix, term.glob)
    if any(term.matches(cell) for cell in matrix.cells):
        return ""
    values = {value for cell in matrix.cells for value in _values(cell, term.axis)}
    hint = nearest(term.glob, values)
    return f"{quote(term.text)} matches no cell" + (f"; {hint}" if hint else "")
