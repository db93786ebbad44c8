"""A matrix as text and as JSON, one line after the other: ten thousand cells are never one text in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.compat.model import Reason
    from builder.matrix import Axes, Cell, Excluded, Judged, LeftOut


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What `imgbuild matrix` says.

    Attributes:
        cells: those that are selected.
        left_out: what would be selected, and is no cell.
        warnings: about the file.
        explain: whether everything is said of everything.
    """

    cells: tuple[Cell, ...]
    left_out: LeftOut
    warnings: tuple[str, ...]
    explain: bool

    @property
    def count(self) -> int:
        """Of all combinations."""
        return len(self.cells) + sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Of what is no cell, by kind."""
        left_out = self.left_out
        return {
            "excluded": len(left_out.excluded),
            "impossible": len(left_out.impossible),
            "unknown": len(left_out.unknown),
        }

    def by_rule(self) -> dict[str, dict[str, int]]:
        """By kind, how many combinations each rule speaks of, most first. Several may speak of one."""
        return {
            "impossible": _by_rule(cell.reasons for cell in self.left_out.impossible),
            "unknown": _by_rule(cell.reasons for cell in self.left_out.unknown),
            "warning": _by_rule(cell.cautions for cell in self.cells),
        }


def _by_rule(found: Iterable[tuple[Reason, ...]]) -> dict[str, int]:
    counts = Counter(rule for reasons in found for rule in {reason.rule for reason in reasons})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class _Sources:
    """The sources that were named, in order. One stands behind hundreds of lines: these have its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def note(self, reason: Reason) -> str:
        """The message of a reason, its rule, and the number of its source."""
        number = self._numbers.setdefault(reason.source, len(self._numbers) + 1)
        return f"{reason.message} [{reason.rule}, source {number}]"

    def lines(self) -> Iterator[str]:
        if self._numbers:
            yield "sources:"
        for source, number in self._numbers.items():
            yield f"    {number:>3}  {source}"


def text_lines(listing: Listing) -> Iterator[str]:
    """For people."""
    sources = _Sources()
    for cell in listing.cells:
        kept = "  kept" if listing.explain else ""
        policy = cell.policy
        yield f"{cell.id}{kept}  public={policy.public.value}  verified={policy.verified.value}  base={cell.base.name}"
        if not listing.explain:
            for tag in (*cell.tags, *cell.aliases):
                yield f"    {cell.repository}:{tag}"
            continue
        for reason in cell.cautions:
            yield f"    warning: {sources.note(reason)}"
    for excluded in listing.left_out.excluded:
        yield f"{excluded.id}  excluded: {excluded.reason} ({excluded.by})"
    if listing.explain:
        for impossible in listing.left_out.impossible:
            yield from _judged_text(impossible, "impossible", sources)
        for unknown in listing.left_out.unknown:
            yield from _judged_text(unknown, "unknown", sources)
        yield from sources.lines()
    yield ", ".join(
        [
            f"{len(listing.cells)} cells",
            *(f"{n} {kind}" for kind, n in listing.counts().items() if n or kind == "excluded"),
        ]
    )
    if listing.explain:
        for kind, rules in listing.by_rule().items():
            for rule, number in rules.items():
                yield f"    {number:>6}  {kind}  {rule}"


def _judged_text(cell: Judged, kind: str, sources: _Sources) -> Iterator[str]:
    from builder.matrix.judge import nearest_in_words, tables

    for number, reason in enumerate(cell.reasons):
        what = "    also" if number else f"{cell.id}  {kind}"
        yield f"{what}: {sources.note(reason)}"
    if close := nearest_in_words(cell.combination, tables()):
        yield f"    nearest: {close}"


def json_lines(listing: Listing) -> Iterator[str]:
    """For programs: one JSON document, with a line for each combination."""
    left_out = listing.left_out
    yield '{"schema": "imgbuild.matrix/1",'
    yield from _array("cells", (_cell(cell) for cell in listing.cells))
    yield from _array("excluded", (_excluded(cell) for cell in left_out.excluded))
    yield from _array("impossible", (_judged(cell, listing.explain) for cell in left_out.impossible))
    yield from _array("unknown", (_judged(cell, listing.explain) for cell in left_out.unknown))
    if listing.explain:
        counts = {"kept": len(listing.cells), **listing.counts(), "by_rule": listing.by_rule()}
        yield f' "counts": {json.dumps(counts)},'
    yield f' "warnings": {json.dumps(list(listing.warnings))}}}'


def _array(name: str, items: Iterator[dict[str, object]]) -> Iterator[str]:
    line = ""
    for item in items:
        yield f"{line}," if line else f' "{name}": ['
        line = f"  {json.dumps(item)}"
    if line:
        yield line
        yield " ],"
    else:
        yield f' "{name}": [],'


def _cell(cell: Cell) -> dict[str, object]:
    document: dict[str, object] = {
        "cell": cell.id,
        "framework": cell.framework.name,
        "version": cell.framework.version,
        "cuda": cell.cuda,
        "python": cell.python,
        "interpreter": cell.interpreter,
        "base": cell.base.name,
        "extras": [extra.name for extra in cell.extras],
        "verify": cell.policy.verified.value,
        "require": {
            "public": cell.policy.public.value,
            "verified": cell.policy.verified.value,
            "max_age_days": cell.policy.max_age_days,
        },
        "repository": cell.repository,
        "tags": list(cell.tags),
        "aliases": list(cell.aliases),
    }
    if cell.cautions:
        document["warnings"] = [_reason(reason) for reason in cell.cautions]
    return document


def _excluded(cell: Excluded) -> dict[str, object]:
    return {"cell": cell.id, "axes": _axes(cell.axes), "reason": cell.reason, "by": str(cell.by)}


def _judged(cell: Judged, explain: bool) -> dict[str, object]:
    document: dict[str, object] = {
        "cell": cell.id,
        "axes": _axes(cell.axes),
        "reasons": [_reason(reason) for reason in cell.reasons],
        "at": str(cell.position),
    }
    if explain:
        from builder.compat import Answer, Finding, as_json
        from builder.matrix.judge import tables

        near = tables().nearest(cell.combination)
        document["nearest"] = as_json(Answer(combination=cell.combination, finding=Finding(), nearest=near))["nearest"]
    return document


def _axes(axes: Axes) -> dict[str, object]:
    return {
        "framework": axes.framework,
        "cuda": axes.cuda,
        "python": axes.python,
        "base": axes.base,
        "extras": list(axes.extras),
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {"rule": reason.rule, "message": reason.message, "source": reason.source}
