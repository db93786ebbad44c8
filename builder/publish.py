"""Moves tags to the image that was checked: to its id, never to a name, and all of them or none."""

from __future__ import annotations

from collections.abc import Iterable

from builder.engine.connection import Engine
from builder.engine.errors import EngineError
from builder.engine.images import inspect, tag, untag


def promote(engine: Engine, image_id: str, references: Iterable[str]) -> tuple[str, ...]:
    """Puts references on an image id and reads each one back.

    When one cannot be put, those already moved go back to where they were, so that no half of a set ever stands.

    Args:
        engine: where the image is.
        image_id: the id that passed its check.
        references: in the order in which they are moved; the strongest claim last.

    Returns:
        the references that did not point to this id before.

    Raises:
        EngineError: a reference could not be put, or does not read back as this id.
    """
    moved: list[tuple[str, str | None]] = []
    try:
        for reference in references:
            before = inspect(engine, reference)
            if before is not None and before.id == image_id:
                continue
            moved.append((reference, before.id if before else None))
            tag(engine, image_id, reference)
    except BaseException:
        for reference, previous in reversed(moved):
            _restore(engine, reference, previous)
        raise
    return tuple(reference for reference, _ in moved)


def _restore(engine: Engine, reference: str, previous: str | None) -> None:
    """Puts a reference back; a failure to do so must not hide why it is necessary."""
    try:
        if previous is None:
            untag(engine, reference)
        else:
            tag(engine, previous, reference)
    except EngineError:
        return


def stale_references(engine: Engine, image_id: str | None, references: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """References of a cell that still point to another image, with that image's id.

    They stay as they are: an earlier verified image is better than none, but it is not this one.
    """
    found: list[tuple[str, str]] = []
    for reference in references:
        held = inspect(engine, reference)
        if held is not None and held.id != image_id:
            found.append((reference, held.id))
    return tuple(found)
