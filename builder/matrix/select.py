"""Which cells are meant: globs over ids, and terms over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from builder.errors import ConfigError
from builder.matrix.fields import AXES
from builder.matrix.model import Cell, Matrix, Selection
from builder.source import nearest, quote

_AXES = tuple(field.name for field in AXES.fields)


@dataclass(frozen=True, kw_only=True)
class _Term:
    """`axis=glob`, as the user wrote it and taken apart."""

    text: str
    axis: str
    glob: str

    def matches(self, cell: Cell) -> bool:
        return any(fnmatchcase(value, self.glob) for value in _values(cell, self.axis))


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
        only: terms `axis=glob`. Terms on one axis are alternatives; every axis that is named must
            match. `extras=horovod` matches a cell that has this extra among others, `cuda` is
            `cpu` or a version, `framework` is `torch`, or `torch==2.*`.
        skip: terms in the same form; a cell that matches any of them is left out.

    Returns:
        The cells, which may be none, and a warning for each pattern or term that matches nothing.

    Raises:
        ConfigError: a term is not of the form `axis=glob`, or names no axis.
    """
    wanted = [_term(text, "only") for text in only]
    unwanted = [_term(text, "skip") for text in skip]
    warnings = [_pattern_warning(matrix, pattern) for pattern in patterns]
    warnings += [_term_warning(matrix, term) for term in (*wanted, *unwanted)]
    by_axis: dict[str, list[_Term]] = {}
    for term in wanted:
        by_axis.setdefault(term.axis, []).append(term)
    cells = tuple(
        cell
        for cell in matrix.cells
        if (not patterns or any(fnmatchcase(cell.id, pattern) for pattern in patterns))
        and all(any(term.matches(cell) for term in terms) for terms in by_axis.values())
        and not any(term.matches(cell) for term in unwanted)
    )
    return Selection(cells=cells, warnings=tuple(warning for warning in warnings if warning))


def _term(text: str, option: str) -> _Term:
    axis, separator, glob = text.partition("=")
    if not separator or not glob:
        raise ConfigError(
            f"{quote(text)} is not of the form `axis=glob`",
            where=option,
            hint="for example `python=3.11`",
        )
    if axis not in _AXES:
        raise ConfigError(f"{quote(axis)} is not an axis", where=option, hint=nearest(axis, _AXES))
    return _Term(text=text, axis=axis, glob=glob)


def _values(cell: Cell, axis: str) -> tuple[str, ...]:
    if axis == "base":
        return (cell.base.name,)
    if axis == "framework":
        return (cell.framework.name, *cell.axes.values(axis))
    return cell.axes.values(axis)


def _pattern_warning(matrix: Matrix, pattern: str) -> str:
    if any(fnmatchcase(cell.id, pattern) for cell in matrix.cells):
        return ""
    for cell in matrix.excluded:
        if fnmatchcase(cell.id, pattern):
            return f"{quote(pattern)} matches only excluded cells: {cell.id} is excluded at {cell.by}: {cell.reason}"
    hint = nearest(pattern, (cell.id for cell in matrix.cells))
    return f"{quote(pattern)} matches no cell" + (f"; {hint}" if hint else "")


def _term_warning(matrix: Matrix, term: _Term) -> str:
    if any(term.matches(cell) for cell in matrix.cells):
        return ""
    values = {value for cell in matrix.cells for value in _values(cell, term.axis)}
    hint = nearest(term.glob, values)
    return f"{quote(term.text)} matches no cell" + (f"; {hint}" if hint else "")
