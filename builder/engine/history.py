"""By which instruction each layer of an image was made, and how large it is, as an engine's history tells."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused, ImageMissing

_ONLY_CONFIGURATION = frozenset(
    {"ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL"}
    | {"STOPSIGNAL", "USER", "VOLUME"}
)
"""Instructions that never make a layer."""

_SHELL = re.compile(r"^(?:(RUN) )?(?:\|\d+ .*?)?/bin/sh -c (?:#\(nop\)\s*)?", re.DOTALL)
"""How BuildKit (with RUN) and the old builder (without) begin; build arguments stand between, as `|2 A=1 B=2`."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One entry of an image's history.

    Attributes:
        created_by: the instruction, as the engine tells it; see `instruction`.
        size: bytes that it added, unpacked.
    """

    created_by: str
    size: int


def history(engine: Engine, image: str) -> tuple[Step, ...]:
    """The history of an image, the first step first.

    Args:
        image: its id or a name.

    Raises:
        ImageMissing: there is no such image.
        EngineUnavailable: the engine went away.
    """
    path = f"/images/{urllib.parse.quote(image, safe='/:@')}/history"
    try:
        answer = engine.call_json("GET", path, doing=f"read the history of {image}")
    except EngineRefused as refused:
        if refused.status == 404:
            raise ImageMissing(f"the engine has no image {image}") from refused
        raise
    steps = [
        Step(created_by=fields.text(entry.get("CreatedBy")), size=fields.integer(entry.get("Size")))
        for entry in map(fields.mapping, fields.sequence(answer))
    ]
    return tuple(reversed(steps))


def of_layers(steps: tuple[Step, ...], layers: int) -> tuple[Step, ...] | None:
    """The steps that made layers, one for each; None when they cannot be told from the others.

    The engine does not say which steps made one. Those that added bytes did; of the others, instructions that only
    configure did not, and WORKDIR only where its directory was not there before.

    Args:
        steps: of an image, the first first.
        layers: how many layers it has.
    """
    made = [step for step in steps if step.size > 0]
    possible = [step for step in steps if step.size > 0 or _word(step) not in _ONLY_CONFIGURATION]
    fixed = [step for step in possible if step.size > 0 or _word(step) != "WORKDIR"]
    return next((tuple(found) for found in (made, possible, fixed) if len(found) == layers), None)


def instruction(created_by: str) -> str:
    """An entry of a history as one line, in the words of a Dockerfile, without build arguments."""
    text = created_by.removesuffix("# buildkit")
    match = _SHELL.match(text)
    if match:
        rest = text[match.end() :]
        # The old builder says what is not run in a shell as `#(nop) CMD …`.
        text = rest if "#(nop)" in match[0] else f"RUN {rest}"
    return " ".join(text.split())


def _word(step: Step) -> str:
    return instruction(step.created_by).partition(" ")[0].upper()
