"""Holds a base to its lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.engine.bootstrap import BootstrapRecipe
from builder.errors import NotLocked
from builder.lock.model import ARCHITECTURE
from builder.matrix import Base, Bootstrap

if TYPE_CHECKING:
    from builder.lock.file import Locks
    from builder.lock.model import BaseLock, MadeBase

UPGRADE = "run `imgbuild lock --upgrade debian`, and commit what it writes"
"""The hint where the distribution's archive has moved on."""


def base_lock(locks: Locks, base: Base) -> BaseLock | None:
    """The lock of a base; None when it has none.

    Raises:
        NotLocked: it is the lock of another image.
        ConfigError: the file cannot be read, or is malformed.
    """
    lock = locks.base(base.name)
    if lock is None:
        return None
    where = str(locks.base_path(base.name))
    if lock.image != base.image:
        raise NotLocked(
            f"locks the image {lock.image}, and the base {base.name} is {base.image}", where=where, hint=UPGRADE
        )
    if base.digest and lock.digest and lock.digest != base.digest:
        raise NotLocked(f"locks {lock.digest}, and the base {base.name} is {base.digest}", where=where, hint=UPGRADE)
    return lock


def misfits(lock: BaseLock, base: Base) -> tuple[str, ...]:
    """What keeps a lock from being one of the base as it is declared now, as sentences; none when it is."""
    found = []
    if lock.image != base.image:
        found.append(f"it is of {lock.image}, and the base is {base.image}")
    if base.digest and lock.digest and lock.digest != base.digest:
        found.append(f"its digest is {lock.digest}, and the base has {base.digest}")
    if lock.digest is None and (lock.made is None or base.bootstrap is None):
        found.append("it has neither a digest nor an equivalent that can be made")
    if lock.made is not None and base.bootstrap is not None and lock.made.recipe != _recipe(base.bootstrap).sha256:
        found.append("the base's equivalent was made by another recipe")
    return tuple(found)


def _recipe(bootstrap: Bootstrap) -> BootstrapRecipe:
    return BootstrapRecipe(
        distribution=bootstrap.distribution,
        suite=bootstrap.suite,
        include=bootstrap.include,
        architecture=ARCHITECTURE,
    )


def fit_engine(architecture: str, where: str) -> None:
    """Refuses an engine that builds for other machines than those that locks are for.

    Raises:
        NotLocked: it does.
    """
    if architecture != ARCHITECTURE:
        raise NotLocked(
            f"is for {ARCHITECTURE}, and the engine builds for {architecture}",
            where=where,
            hint=f"name an engine on {ARCHITECTURE} with DOCKER_HOST or `docker context`",
        )


def locked_digest(base: Base, lock: BaseLock) -> str:
    if lock.digest is None:
        hint = "build with --bases bootstrap, or " if base.bootstrap else ""
        raise NotLocked(
            f"{base.image} is locked without a digest: {lock.why}",
            where=f"base {base.name}",
            hint=f"{hint}lock it where its registry can be reached: {UPGRADE}",
        )
    return lock.digest


def locked_made(base: Base, lock: BaseLock, recipe: BootstrapRecipe) -> MadeBase:
    if lock.made is None or lock.made.recipe != recipe.sha256:
        what = "was not made when it was locked" if lock.made is None else "was made by another recipe"
        raise NotLocked(
            f"the equivalent of {base.image} that is made from packages {what}", where=f"base {base.name}", hint=UPGRADE
        )
    return lock.made


def archive_moved(base: Base, locked: Mapping[str, str], found: Mapping[str, str]) -> NotLocked:
    """The error for a base that cannot be made as it is locked any more."""
    differing = [name for name in sorted({*locked, *found}) if locked.get(name) != found.get(name)]
    shown = [f"{name} is {found.get(name, 'absent')}, the lock says {locked.get(name, 'absent')}" for name in differing]
    more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
    return NotLocked(
        f"the distribution's archive has moved on since {base.name} was locked: {'; '.join(shown[:3])}{more}",
        where=f"base {base.name}",
        hint=UPGRADE,
    )
