"""From declarations to cells: product of the axes, include, exclude, overrides, validation.

The order of cells is that of the file: the product with its last axis fastest, then the includes.
The work grows linearly with the number of cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from builder.errors import ConfigError
from builder.matrix.declare import (
    Candidate,
    Declarations,
    Exclusion,
    Placed,
    declare,
)
from builder.matrix.forms import REPOSITORY
from builder.matrix.model import (
    CPU,
    Axes,
    Base,
    Cell,
    Channel,
    Excluded,
    Framework,
    Level,
    Matrix,
)
from builder.matrix.names import (
    cell_id,
    check_references,
    fill,
    render_tags,
    resolve_aliases,
    tag_values,
)
from builder.source import Position, load, nearest, quote

# Far above any real matrix; a product of long axes must not fill the memory before it is noticed.
MAX_CELLS: Final = 20_000


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A candidate that was not excluded."""

    id: str
    candidate: Candidate
    axes: Axes
    base: Placed
    verify: Placed | None


def load_matrix(path: Path, *, repository: str | None = None) -> Matrix:
    """Reads, validates and expands a `matrix.yaml`.

    Args:
        path: of the file; positions name it as given here.
        repository: takes the place of the file's `repository`.

    Raises:
        ConfigError: the file or `repository` is invalid.
    """
    declarations = declare(load(path))
    if repository is not None:
        if not REPOSITORY.matches(repository):
            raise ConfigError(
                f"{quote(repository)} is not {REPOSITORY.noun}",
                where="repository",
                hint=f"for example `{REPOSITORY.example}`",
            )
        declarations = replace(declarations, repository=repository)
    return expand(declarations, path)


def expand(declarations: Declarations, path: Path) -> Matrix:
    """The cells that the declarations of the file at `path` make.

    Raises:
        ConfigError: a cell is impossible, or two cells claim the same name.
    """
    warnings: list[str] = []
    drafts, excluded = _exclude(declarations, _candidates(declarations), warnings)
    _check_distinct(drafts)
    drafts = _override(declarations, drafts, warnings)
    cells = tuple(_cell(declarations, draft) for draft in drafts)
    ids = [cell.id for cell in cells]
    aliases = resolve_aliases(declarations.aliases, ids, excluded)
    cells = tuple(replace(cell, aliases=aliases.get(cell.id, ())) for cell in cells)
    check_references(cells, declarations.tags, declarations.aliases)
    if not cells:
        warnings.append(f"{declarations.axes.position}: the matrix has no cells")
    return Matrix(
        version=declarations.version,
        path=path,
        repository=declarations.repository,
        cells=cells,
        excluded=excluded,
        warnings=tuple(warnings),
    )


def _candidates(declarations: Declarations) -> list[Candidate]:
    axes = declarations.axes
    lengths = (axes.framework, axes.cuda, axes.python, axes.base, axes.extras)
    count = math.prod(len(values) for values in lengths) + len(declarations.include)
    if count > MAX_CELLS:
        raise ConfigError(
            f"the axes make {count:,} cells, more than {MAX_CELLS:,}",
            where=str(axes.position),
            hint="shorten the axes, or split the matrix into several files",
        )
    product = itertools.product(axes.framework, axes.cuda, axes.python, axes.base, axes.extras)
    candidates = [
        Candidate(
            framework=framework,
            cuda=cuda,
            python=python,
            base=base,
            extras=extras.names,
            position=extras.position if len(axes.extras) > 1 else framework.position,
        )
        for framework, cuda, python, base, extras in product
    ]
    return [*candidates, *declarations.include]


def _exclude(
    declarations: Declarations, candidates: Sequence[Candidate], warnings: list[str]
) -> tuple[list[_Draft], tuple[Excluded, ...]]:
    drafts: list[_Draft] = []
    excluded: list[Excluded] = []
    useful: set[Position] = set()
    default_base = declarations.default_base.text
    for candidate in candidates:
        id = cell_id(candidate, declarations.extras, default_base)
        axes = Axes(
            framework=candidate.framework.text,
            cuda=candidate.cuda.text,
            python=candidate.python.text,
            base=candidate.base.text,
            extras=candidate.extras,
        )
        matching = [rule for rule in declarations.exclude if _matches(rule, id, axes)]
        useful.update(rule.position for rule in matching)
        if matching:
            rule = matching[0]
            excluded.append(Excluded(id=id, axes=axes, reason=rule.reason, by=rule.position))
        else:
            drafts.append(
                _Draft(
                    id=id,
                    candidate=candidate,
                    axes=axes,
                    base=candidate.base,
                    verify=declarations.default_verify,
                )
            )
    every: list[_Draft | Excluded] = [*drafts, *excluded]
    for rule in declarations.exclude:
        if rule.position not in useful:
            warnings.append(_useless_exclusion(rule, every))
    return drafts, tuple(excluded)


def _matches(rule: Exclusion, id: str, axes: Axes) -> bool:
    if rule.glob is not None:
        return fnmatchcase(id, rule.glob)
    return all(any(fnmatchcase(value, glob) for value in axes.values(axis)) for axis, glob in rule.axes)


def _useless_exclusion(rule: Exclusion, every: Sequence[_Draft | Excluded]) -> str:
    message = f"{rule.position}: this `exclude` matches no cell"
    if rule.glob is not None:
        return _with_hint(message, nearest(rule.glob, (cell.id for cell in every)))
    for axis, glob in rule.axes:
        values = {value for cell in every for value in cell.axes.values(axis)}
        if not any(fnmatchcase(value, glob) for value in values):
            hint = nearest(glob, values)
            return _with_hint(f"{message}: no cell has `{axis}` {quote(glob)}", hint)
    return f"{message}: no cell has all of its values"


def _with_hint(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message


def _check_distinct(drafts: Sequence[_Draft]) -> None:
    first: dict[str, _Draft] = {}
    for draft in drafts:
        other = first.setdefault(draft.id, draft)
        if other is draft:
            continue
        hint = "remove one of them"
        if other.axes != draft.axes:
            hint = "they differ in extras that are not `named: true`, so their names are the same"
        raise ConfigError(
            f"the cell {draft.id} is declared twice, first at {other.candidate.position}",
            where=str(draft.candidate.position),
            hint=hint,
        )


def _override(declarations: Declarations, drafts: Sequence[_Draft], warnings: list[str]) -> list[_Draft]:
    useful: set[Position] = set()
    result: list[_Draft] = []
    default_base = declarations.default_base.text
    for draft in drafts:
        changed = draft
        for rule in declarations.overrides:
            if not fnmatchcase(draft.id, rule.match.text):
                continue
            useful.add(rule.match.position)
            if rule.base is not None:
                if draft.axes.base not in (default_base, rule.base.text):
                    raise ConfigError(
                        f"{quote(rule.base.text)} cannot replace the base of {draft.id}, whose id names it",
                        where=str(rule.base.position),
                        hint=f"narrow the glob {quote(rule.match.text)}",
                    )
                changed = replace(changed, base=rule.base)
            if rule.verify is not None:
                changed = replace(changed, verify=rule.verify)
        result.append(changed)
    for rule in declarations.overrides:
        if rule.match.position not in useful:
            message = f"{rule.match.position}: this override matches no cell"
            hint = nearest(rule.match.text, (draft.id for draft in drafts))
            warnings.append(_with_hint(message, hint))
    return result


def _cell(declarations: Declarations, draft: _Draft) -> Cell:
    """The cell of a draft, without its aliases."""
    candidate = draft.candidate
    base = declarations.bases[draft.base.text]
    if candidate.python.text not in base.pythons:
        raise _python_error(declarations, draft, base)
    extras = tuple(declarations.extras[name] for name in candidate.extras)
    framework = _framework(declarations, candidate)
    values = tag_values(candidate, base.name, extras)
    return Cell(
        id=draft.id,
        framework=framework,
        cuda=candidate.cuda.text,
        python=candidate.python.text,
        base=base,
        extras=extras,
        verify=_verify(draft),
        repository=f"{declarations.repository}/{framework.image}",
        tags=render_tags(declarations.tags, values, draft.id),
        aliases=(),
        axes=draft.axes,
        position=candidate.position,
    )


def _framework(declarations: Declarations, candidate: Candidate) -> Framework:
    name, _, version = candidate.framework.text.partition("==")
    rule = declarations.frameworks[name]
    channel = rule.channels.get(candidate.cuda.text)
    values = {
        "framework": name,
        "version": version,
        "cuda": candidate.cuda.text,
        "python": candidate.python.text,
    }
    return Framework(
        name=name,
        version=version,
        image=rule.image,
        template=rule.template,
        constraints=fill(rule.constraints, values),
        channel=(Channel(name=channel, url=declarations.channels[channel]) if channel is not None else None),
    )


def _python_error(declarations: Declarations, draft: _Draft, base: Base) -> ConfigError:
    python = draft.candidate.python
    carrying = [name for name, each in declarations.bases.items() if python.text in each.pythons]
    hint = (
        f"{quote(carrying[0])} carries it: choose it by `include`, the axis `base` or an override"
        if carrying
        else f"no base carries it, {quote(base.name)} carries {', '.join(base.pythons)}; "
        "add such a base, or exclude the cell"
    )
    return ConfigError(
        f"the base {quote(base.name)} of {draft.id} does not carry Python {python.text}",
        where=str(python.position),
        hint=hint,
    )


def _verify(draft: _Draft) -> Level:
    on_gpu = draft.candidate.cuda.text != CPU
    if draft.verify is None:
        return Level.GPU if on_gpu else Level.CPU
    level = Level(draft.verify.text)
    if on_gpu and level < Level.GPU:
        raise ConfigError(
            f"{draft.id} cannot be verified at {quote(level.value)}: a CUDA cell's `-verified` needs at least `gpu`",
            where=str(draft.verify.position),
            hint='add the override `{match: "*-cuda*", set: {verify: gpu}}`',
        )
    if not on_gpu and level > Level.CPU:
        raise ConfigError(
            f"{draft.id} cannot be verified at {quote(level.value)}: a CPU cell has no GPU to use",
            where=str(draft.verify.position),
            hint='add the override `{match: "*-cpu-*", set: {verify: cpu}}`',
        )
    return level
