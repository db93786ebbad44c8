"""The corpus as a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from corpus import BROKEN, HEALTHY

_HEAD = """\
# The corpus

Images that the check suite is held against: each of the first table is broken in exactly one way, and fails, by the
check that is to find it; each of the second differs from the usual image in a way that must not matter, and passes.
Every image is a thin layer on one that passes (below 50 MB, most a few hundred bytes). They are declared in
`tests/corpus/`; the tests run the check that must fail in each, and `bench/corpus_table.py` the whole suite, to show
that nothing else fails. It wrote this document.

"""


@dataclass(frozen=True)
class Measured:
    """What the whole suite found in one image.

    Attributes:
        seconds: how long its container ran.
        reason: the one of the check that must fail; empty for a healthy image.
        others: checks that failed or did not run as a consequence.
        wrong: why this is not what must be; empty when it is.
    """

    seconds: float
    reason: str
    others: tuple[str, ...]
    wrong: str


def document(found: Mapping[str, Measured]) -> str:
    """`docs/corpus.md`; what is not in `found` was not measured, and the document says so."""
    kinds = {variant.kind for variant in BROKEN}
    lines = [
        f"## Broken: {len(BROKEN)} images, {len(kinds)} kinds of defects",
        "",
        "The seconds are those of the whole suite, which goes on after a failure.",
        "",
        "| image | kind of defect | what is broken | check that fails | its reason | consequences | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in BROKEN:
        one = found.get(variant.id)
        reason, others = (one.reason, ", ".join(map(_code, one.others))) if one else (variant.reason, "")
        cells = (_code(variant.id), variant.kind, variant.breaks, _code(variant.check), _text(reason), others)
        lines.append(f"| {' | '.join(cells)} | {_seconds(one)} |")
    lines += ["", f"## Healthy: {len(HEALTHY)} images", "", "| image | how it differs | seconds |", "|---|---|---|"]
    lines += [f"| {_code(variant.id)} | {variant.differs} | {_seconds(found.get(variant.id))} |" for variant in HEALTHY]
    return _HEAD + "\n".join(lines) + "\n"


def _seconds(one: Measured | None) -> str:
    if one is None:
        return "not measured"
    return f"{one.seconds:.1f}" + (" (**not as it must be**)" if one.wrong else "")


def _code(text: str) -> str:
    return f"`{text}`"


def _text(reason: str) -> str:
    """A reason in one cell, without what differs from run to run at its end."""
    short = re.sub(r"\s+", " ", reason).replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
    return short if len(short) <= 160 else short[:159].rstrip("\\") + "…"
