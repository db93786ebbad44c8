"""What must be built, checked and tagged, and why: pure decisions from what is wanted and what is there.

An image belongs to a key when it carries the key's label *and* one of the key's candidate tags: children inherit
labels, so a label alone proves nothing, and a tag alone can be moved. Whether an image is verified is never read from
the image, only from this machine's record of a check of that very content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from builder.engine.images import ImageSummary
from builder.lock import BasePin, Pins
from builder.matrix import Cell, Level
from builder.matrix.forms import CANDIDATE_PREFIX, VERIFIED_SUFFIX
from builder.render import Recipe

KEY_LABEL = "io.imgbuild.key"
"""The image label that carries the content key."""

BASE_LABEL = "io.imgbuild.base"
"""The image label that carries what the base counts as in the key."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What the last check of an image's content came to, judged by what the cell expects today.

    Attributes:
        passed: whether it reached what public tags need.
        reason: why it does not count: why it did not pass, or that it is too old.
        expired: whether it passed too long ago.
        reached: the level that it reached; None for none.
        unverified: what it lacks for `-verified` although it passed, one line each.
        image_id: the image that was checked; another one than that which was asked about has the same content.
        when: when that was, UTC, ISO 8601; empty when unknown.
        reused: whether `image_id` is another image.
    """

    passed: bool
    reason: str = ""
    expired: bool = False
    reached: Level | None = None
    unverified: tuple[str, ...] = ()
    image_id: str = ""
    when: str = ""
    reused: bool = False

    @property
    def verified(self) -> bool:
        """Whether it reached what `-verified` needs."""
        return self.passed and not self.unverified

    @property
    def source(self) -> str:
        """When it was checked and, if that was another image, as which; for a reader."""
        as_which = f" as {self.image_id.removeprefix('sha256:')[:12]}" if self.reused else ""
        return f"checked {self.when}{as_which}"


@dataclass(frozen=True, kw_only=True)
class Action:
    """What one cell needs.

    Attributes:
        recipe: what it is built from.
        base: its base; None when a dry run would have to make the base first, and then the key is unknown.
        key: its content key, or None with `base`.
        image_id: the image that the engine holds for the key; None when it must be built.
        candidate: that image's immutable reference; empty when it must be built.
        check: whether that image must be checked.
        tags: references that must be put on the image after its check, public ones before the verified ones.
        why: the reason, one sentence.
        rebuild: whether a new candidate was asked for beside an existing one.
        last: what is remembered of that image's content; None when there is nothing, or no image.
    """

    recipe: Recipe
    base: BasePin | None
    key: str | None
    image_id: str | None
    check: bool
    tags: tuple[str, ...]
    why: str
    candidate: str = ""
    rebuild: bool = False
    last: Remembered | None = None

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.recipe.cell

    @property
    def build(self) -> bool:
        """Whether an image must be built."""
        return self.image_id is None

    @property
    def nothing(self) -> bool:
        """Whether everything is in place."""
        return not (self.build or self.check or self.tags)


def candidate_tag(cell: Cell, key: str, number: int = 1) -> str:
    """The immutable reference of a key's candidate: `repository:candidate-KEY`, or `…-N` for the Nth rebuild."""
    suffix = "" if number == 1 else f"-{number}"
    return f"{cell.repository}:{CANDIDATE_PREFIX}{key}{suffix}"


def public_references(cell: Cell, *, verified: bool = True) -> tuple[str, ...]:
    """The references of a cell that passed: its tags and aliases, and then, if it is verified, the same so named."""
    plain = tuple(f"{cell.repository}:{tag}" for tag in (*cell.tags, *cell.aliases))
    return (*plain, *(reference + VERIFIED_SUFFIX for reference in plain)) if verified else plain


def candidates(cell: Cell, key: str, images: Iterable[ImageSummary]) -> tuple[tuple[int, ImageSummary], ...]:
    """The candidates of a key with their numbers, oldest number first."""
    pattern = re.compile(re.escape(candidate_tag(cell, key)) + r"(?:-([2-9]|[1-9][0-9]+))?")
    found: list[tuple[int, ImageSummary]] = []
    for image in images:
        if image.labels.get(KEY_LABEL) != key:
            continue
        for tag in image.tags:
            match = pattern.fullmatch(tag)
            if match:
                found.append((int(match[1] or 1), image))
    return tuple(sorted(found, key=lambda pair: pair[0]))


def next_candidate(cell: Cell, key: str, images: Iterable[ImageSummary]) -> str:
    """A candidate reference of this key that no image holds yet, so that none is ever overwritten."""
    prefix = candidate_tag(cell, key)
    taken = {tag for image in images for tag in image.tags if tag.startswith(prefix)}
    number = 1
    while candidate_tag(cell, key, number) in taken:
        number += 1
    return candidate_tag(cell, key, number)


def holders(images: Iterable[ImageSummary]) -> Mapping[str, str]:
    """Image ids by the references that point to them."""
    return {tag: image.id for image in images for tag in image.tags}


def plan(
    recipes: Iterable[Recipe],
    pins: Pins,
    images: tuple[ImageSummary, ...],
    remembered: Callable[[Recipe, str], Remembered | None],
    *,
    level: Callable[[Cell], Level] = lambda cell: cell.policy.verified,
    rebuild: bool = False,
    check: bool = True,
    recheck: bool = False,
) -> tuple[Action, ...]:
    """Decides for each recipe what is missing.

    Args:
        recipes: the rendered cells.
        pins: their bases.
        images: every image of the engine, from one call.
        remembered: what the last check of an image id's content with today's suite came to; None when there was none.
        level: up to which a cell's check goes on this engine, and so which names it can earn.
        rebuild: ask for new candidates beside existing ones.
        check: False to stop before the check, and so before any tag.
        recheck: check also what passed before.
    """
    held = holders(images)
    return tuple(
        _decide(
            recipe,
            pins.bases.get(recipe.cell.base.name),
            images,
            held,
            remembered,
            earned=public_references(recipe.cell, verified=recipe.cell.policy.verified <= level(recipe.cell)),
            rebuild=rebuild,
            check=check,
            recheck=recheck,
        )
        for recipe in recipes
    )


def _decide(
    recipe: Recipe,
    base: BasePin | None,
    images: tuple[ImageSummary, ...],
    held: Mapping[str, str],
    remembered: Callable[[Recipe, str], Remembered | None],
    *,
    earned: tuple[str, ...],
    rebuild: bool,
    check: bool,
    recheck: bool,
) -> Action:
    cell = recipe.cell
    wanted = earned if check else ()

    def action(
        image_id: str | None, *, check: bool, tags: tuple[str, ...], why: str, last: Remembered | None = None
    ) -> Action:
        return Action(
            recipe=recipe,
            base=base,
            key=key,
            image_id=image_id,
            candidate=candidate_tag(cell, key, number) if key and image_id else "",
            check=check,
            tags=tags,
            why=why,
            rebuild=rebuild,
            last=last,
        )

    key = recipe.key(base) if base is not None else None
    number = 1
    if key is None:
        return action(None, check=check, tags=wanted, why=f"base {cell.base.name} must be made first")
    known = candidates(cell, key, images)
    if not known:
        return action(None, check=check, tags=wanted, why=f"no image for key {key[:12]}")
    if rebuild:
        return action(None, check=check, tags=wanted, why="a rebuild was asked for")
    # The newest that passed, or else the newest: a rebuild that fails does not hide the candidate before it.
    number, image = next(
        (pair for pair in reversed(known) if (last := remembered(recipe, pair[1].id)) and last.passed), known[-1]
    )
    image_id = image.id
    if not check:
        return action(image_id, check=False, tags=(), why=f"built already, key {key[:12]}")
    last = remembered(recipe, image_id)
    if last is None:
        return action(image_id, check=True, tags=wanted, why="built, but not checked by this suite yet")
    if recheck:
        return action(image_id, check=True, tags=wanted, why=f"{last.source}, and to be checked again", last=last)
    if not last.passed:
        why = last.reason if last.expired else f"its last check did not pass: {last.reason}"
        return action(image_id, check=True, tags=wanted, why=why, last=last)
    missing = tuple(
        reference for reference in public_references(cell, verified=last.verified) if held.get(reference) != image_id
    )
    what = "verified" if last.verified else "passed"
    if last.reused:
        what = f"{what}, {last.source}"
    if missing:
        why = f"{what}, but {missing[0]} does not point to it"
        return action(image_id, check=False, tags=missing, why=why, last=last)
    return action(image_id, check=False, tags=(), why=f"{what}, nothing changed", last=last)
