"""From declarations to cells: product of the axes, include, exclude, overrides, facts, validation.

The order of cells is that of the file: the product with its last axis fastest, then the includes.
The work grows linearly with the number of cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from builder.compat.model import Combination, Finding
from builder.errors import ConfigError
from builder.matrix.cells import declared_twice, framework_of, policy_of, require_python
from builder.matrix.declare import Candidate, Declarations, Placed, declare
from builder.matrix.forms import REPOSITORY, size_bytes
from builder.matrix.judge import Asking, Judge, NoJudge, Subject, facts_of, project_hint, refusal, tables
from builder.matrix.model import (
    CPU,
    Axes,
    Cell,
    Excluded,
    Extra,
    Framework,
    Impossible,
    Judged,
    Matrix,
    Unknown,
)
from builder.matrix.names import cell_id, check_references, named_interpreter, render_tags, resolve_aliases, tag_values
from builder.matrix.rules import Exclusions, Overrides, axis_values
from builder.source import load, quote

# Far above any real matrix; a product of long axes must not fill the memory before it is noticed.
MAX_CELLS: Final = 50_000


def load_matrix(
    path: Path, *, repository: str | None = None, judge: Judge | None = None, assume_new: bool = False
) -> Matrix:
    """Reads, validates, expands and judges a `matrix.yaml`.

    Args:
        path: of the file; positions name it as given here.
        repository: takes the place of the file's `repository`.
        judge: says which combinations can work; None for the tables that imgbuild ships.
        assume_new: what the facts do not reach is taken to work.

    Raises:
        ConfigError: the file or `repository` is invalid.
        Impossible: an `include` or an alias names a combination that facts forbid.
        NotKnown: likewise, one that the facts do not reach.
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
    return expand(declarations, path, judge=judge or tables(), assume_new=assume_new)


def expand(declarations: Declarations, path: Path, *, judge: Judge | None = None, assume_new: bool = False) -> Matrix:
    """The cells that the declarations of the file at `path` make.

    Args:
        declarations: what the file says.
        path: of the file.
        judge: says which combinations can work; None for nobody: all of them.
        assume_new: what the judge does not know is taken to work.

    Raises:
        ConfigError: a cell is not valid, or two cells claim the same name.
        Impossible: an `include` or an alias names a combination that facts forbid.
        NotKnown: likewise, one that the facts do not reach.
    """
    expansion = _Expansion(declarations, judge or NoJudge(), assume_new)
    for candidate in _product(declarations):
        expansion.add(candidate)
    for candidate in declarations.include:
        expansion.add(candidate, included=True)
    return expansion.matrix(path)


def _product(declarations: Declarations) -> Iterator[Candidate]:
    axes = declarations.axes
    lengths = (axes.framework, axes.cuda, axes.python, axes.base, axes.extras)
    count = math.prod(len(values) for values in lengths) + len(declarations.include)
    if count > MAX_CELLS:
        raise ConfigError(
            f"the axes make {count:,} cells, more than {MAX_CELLS:,}",
            where=str(axes.position),
            hint="shorten the axes, or split the matrix into several files",
        )
    for framework, cuda, python, base, extras in itertools.product(*lengths[:4], axes.extras):
        yield Candidate(
            framework=framework,
            cuda=cuda,
            python=python,
            base=base,
            extras=extras.names,
            position=extras.position if len(axes.extras) > 1 else framework.position,
        )


class _Expansion:
    """One pass over the candidates; what is kept of each is the cell, or why there is none."""

    def __init__(self, declarations: Declarations, judge: Judge, assume_new: bool) -> None:
        self._declarations = declarations
        self._judge = judge
        self._asking = Asking(judge)
        self._assume_new = assume_new
        self._exclusions = Exclusions(declarations.exclude)
        self._overrides = Overrides(declarations.overrides, declarations.default_base.text)
        self._cells: list[Cell] = []
        self._excluded: list[Excluded] = []
        self._impossible: list[Impossible] = []
        self._unknown: list[Unknown] = []
        self._first: dict[str, Candidate] = {}
        self._frameworks: dict[tuple[str, str, str], Framework] = {}
        self._extras: dict[tuple[str, ...], tuple[Extra, ...]] = {}
        self._facts = {name: facts_of(rule, judge) for name, rule in declarations.frameworks.items()}

    def add(self, candidate: Candidate, *, included: bool = False) -> None:
        """Makes the cell of a candidate, unless something is against it.

        Args:
            candidate: an item of the product, or an entry of `include`.
            included: whether it is the latter, and so must be possible.
        """
        declarations = self._declarations
        named = named_interpreter(candidate, declarations.default_interpreter)
        id = cell_id(candidate, declarations.extras, declarations.default_base.text, declarations.default_interpreter)
        axes = Axes(
            framework=candidate.framework.text,
            cuda=candidate.cuda.text,
            python=candidate.python.text,
            base=candidate.base.text,
            extras=candidate.extras,
        )
        exclusion = self._exclusions.first(id, axes)
        if exclusion is not None:
            self._excluded.append(Excluded(id=id, axes=axes, reason=exclusion.reason, by=exclusion.position))
            return
        other = self._first.setdefault(id, candidate)
        if other is not candidate:
            raise declared_twice(id, candidate, other)
        overridden = self._overrides.of(id, axes, named)
        base = declarations.bases[(overridden.base or candidate.base).text]
        chosen = overridden.interpreter or candidate.interpreter
        interpreter = chosen.text if chosen is not None else declarations.default_interpreter
        framework = self._framework(candidate)
        extras = self._extras_of(candidate)
        combination = self._asking.combination(
            Subject(
                facts=self._facts[framework.name],
                framework=framework,
                cuda=axes.cuda,
                python=axes.python,
                base=base,
                extras=extras,
            )
        )
        finding = self._judge.examine(combination)
        kind = Impossible if finding.forbidden else Unknown if finding.unknown and not self._assume_new else None
        if kind is not None:
            reasons = finding.forbidden or finding.unknown
            position = candidate.position
            cell = kind(id=id, axes=axes, reasons=reasons, position=position, combination=combination)
            self._leave_out(cell, included)
            return
        require_python(id, interpreter, candidate.python, base, declarations.bases)
        budget = overridden.budget or declarations.default_budget
        self._cells.append(
            Cell(
                id=id,
                framework=framework,
                cuda=axes.cuda,
                python=axes.python,
                base=base,
                extras=extras,
                policy=policy_of(id, axes.cuda, overridden.require, declarations.default_require),
                repository=f"{declarations.repository}/{framework.image}",
                tags=render_tags(declarations.tags, tag_values(candidate, base.name, interpreter, extras), id),
                aliases=(),
                axes=axes,
                position=candidate.position,
                cautions=finding.unknown + finding.warnings,
                combination=combination,
                budget=size_bytes(budget.text) if budget is not None else None,
                interpreter=interpreter,
            )
        )

    def matrix(self, path: Path) -> Matrix:
        """What all candidates together make."""
        declarations = self._declarations
        none: list[Excluded | Judged] = [*self._excluded, *self._impossible, *self._unknown]
        aliases = resolve_aliases(declarations.aliases, [cell.id for cell in self._cells], none, self._judge)
        cells = tuple(replace(cell, aliases=aliases[cell.id]) if cell.id in aliases else cell for cell in self._cells)
        check_references(cells, declarations.tags, declarations.aliases)
        return Matrix(
            version=declarations.version,
            path=path,
            repository=declarations.repository,
            cells=cells,
            excluded=tuple(self._excluded),
            impossible=tuple(self._impossible),
            unknown=tuple(self._unknown),
            warnings=tuple(self._warnings()),
        )

    def _framework(self, candidate: Candidate) -> Framework:
        key = (candidate.framework.text, candidate.cuda.text, candidate.python.text)
        found = self._frameworks.get(key)
        if found is None:
            found = self._frameworks[key] = framework_of(self._declarations, candidate)
        return found

    def _extras_of(self, candidate: Candidate) -> tuple[Extra, ...]:
        found = self._extras.get(candidate.extras)
        if found is None:
            found = tuple(self._declarations.extras[name] for name in candidate.extras)
            self._extras[candidate.extras] = found
        return found

    def _leave_out(self, cell: Impossible | Unknown, included: bool) -> None:
        if included:
            raise refusal(cell, self._judge, what="the included cell")
        if isinstance(cell, Impossible):
            self._impossible.append(cell)
        else:
            self._unknown.append(cell)

    def _warnings(self) -> Iterator[str]:
        declarations = self._declarations
        axes = declarations.axes
        ids = [*self._first]
        every = [*ids, *(cell.id for cell in self._excluded)]
        yield from self._exclusions.useless(every, axis_values(declarations))
        yield from self._overrides.useless(ids)
        alone = [(value, self._release(value.text)) for value in axes.framework]
        alone += [(value, Combination(package="cuda", cuda=value.text)) for value in axes.cuda if value.text != CPU]
        alone += [(value, Combination(package="cuda", python=value.text)) for value in axes.python]
        yield from self._never_was(alone)
        if not self._cells:
            yield f"{axes.position}: the matrix has no cells"

    def _release(self, requirement: str) -> Combination | None:
        name, _, version = requirement.partition("==")
        return self._asking.release(self._facts[name], version)

    def _never_was(self, alone: Iterable[tuple[Placed, Combination | None]]) -> Iterator[str]:
        """A number that never was a release is a mistake in the file, not a corner of the product."""
        said = set[str]()
        for value, combination in alone:
            finding = self._judge.examine(combination) if combination is not None else Finding()
            unknown = () if self._assume_new else finding.unknown
            for reason in (*finding.forbidden, *unknown)[:1]:
                # Of a project that there are no facts about, the same is said of every version.
                if reason.message not in said:
                    said.add(reason.message)
                    hint = project_hint(combination, self._judge) if combination is not None else ""
                    yield f"{value.position}: {reason.message}" + (f"; {hint}" if hint else "")
