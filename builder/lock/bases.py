"""Which base, as which bytes: every base of a matrix is resolved once, before anything is built.

A base is an image from a registry, pinned by digest, or its equivalent made from the distribution's packages, pinned
by its recipe and its package set. The two give different keys, so the choice is made openly: by `--bases`, or, with
`auto`, once per engine and base declaration. It is remembered and reported, and a network that fails later does not
change it.

Where a base has a lock file, its digest and its package set are those of the lock, and no others are taken. Where it
has none, the digest is the one that the registry gives today, and the packages are those of today's archive.
"""

from __future__ import annotations

import datetime
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from builder.engine.bootstrap import BootstrappedBase, bases_of, packages_of
from builder.engine.connection import Engine
from builder.engine.errors import BaseUnavailable, RegistryError, RegistryUnreachable
from builder.errors import BaseError, ImgbuildError, NotLocked
from builder.lock.base_locks import archive_moved, base_lock, fit_engine, locked_digest, locked_made
from builder.lock.origins import bootstrap_recipe, make_locally, registry_digest_of, registry_reference
from builder.matrix import Base
from builder.records import Records
from builder.site import Site

if TYPE_CHECKING:
    from builder.lock.file import Locks
    from builder.lock.model import BaseLock

CHOICES = "base-choices"
"""The kind of record that remembers what `auto` found out."""

PACKAGES = "base-packages"
"""The kind of record that remembers what is in a made base, by its image id."""


class Bases(Enum):
    """Where bases come from: the value of `--bases`."""

    AUTO = "auto"
    REGISTRY = "registry"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True, kw_only=True)
class BasePin:
    """One base, pinned.

    Attributes:
        name: its name in `matrix.yaml`.
        source: where it came from.
        reference: what `FROM` names on the engine.
        identity: what it counts as in a key: `registry:sha256:…`, or `bootstrap:RECIPE:PACKAGES` in SHA-256 hex.
        why: how the choice was made, a sentence for the plan.
    """

    name: str
    source: Bases
    reference: str
    identity: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Pins:
    """The bases of a matrix by name. A base that a dry run would have to make is missing, and named in `pending`."""

    bases: Mapping[str, BasePin]
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Pins bases.

    Attributes:
        engine: where bases are looked up and imported.
        mode: where bases may come from.
        site: the mirror, proxies and CA with which a base is made.
        records: remembers what `auto` found out.
        repository: the prefix of this matrix's images; a made base is kept as `<repository>/base`.
        locks: the lock files; None to do without.
        make: False for a dry run: a base that would have to be made is pending.
        on_line: receives progress, a line at a time.
        cancel: ends the making of a base when set.
    """

    engine: Engine
    mode: Bases
    site: Site
    records: Records
    repository: str
    locks: Locks | None = None
    make: bool = True
    on_line: Callable[[str], None] = lambda line: None
    cancel: threading.Event | None = None

    def pins(self, bases: Iterable[Base], refused: Callable[[Base, ImgbuildError], None] | None = None) -> Pins:
        """Pins each base once, however often it is named.

        Args:
            bases: of the cells.
            refused: is told of each base that is not to be had, and the others follow; None to end there.

        Raises:
            BaseError: a base can be had from nowhere that `mode` allows, and `refused` is None.
            NotLocked: a base has a lock, and cannot be had as it says, and `refused` is None.
        """
        pins: dict[str, BasePin] = {}
        pending: list[str] = []
        for base in {base.name: base for base in bases}.values():
            try:
                lock = base_lock(self.locks, base) if self.locks is not None else None
                if self.locks is not None and lock is not None:
                    fit_engine(self.engine.info().architecture, str(self.locks.base_path(base.name)))
                pin = self._pin(base, lock)
            except (BaseError, NotLocked) as error:
                if refused is None:
                    raise
                refused(base, error)
                continue
            if pin is None:
                pending.append(base.name)
            else:
                pins[base.name] = pin
        return Pins(bases=pins, pending=tuple(pending))

    def _pin(self, base: Base, lock: BaseLock | None) -> BasePin | None:
        if self.mode is Bases.AUTO:
            return self._auto(base, lock)
        why = f"asked for with --bases {self.mode.value}"
        bootstrap = self.mode is Bases.BOOTSTRAP
        pin = self._bootstrapped(base, lock, why) if bootstrap else self._registry(base, lock, why)
        if pin is not None:
            self._remember(base, self.mode, why)
        return pin

    def _auto(self, base: Base, lock: BaseLock | None) -> BasePin | None:
        remembered = self.records.get(CHOICES, self._choice_key(base)) or {}
        chosen, why = remembered.get("source"), f"auto keeps what was chosen: {remembered.get('why')}"
        if chosen == Bases.BOOTSTRAP.value and base.bootstrap is not None:
            return self._bootstrapped(base, lock, why)
        if chosen == Bases.REGISTRY.value and (lock is None or lock.digest is not None):
            return self._registry(base, lock, why, known=True)
        today = datetime.date.today().isoformat()
        source: Bases = Bases.BOOTSTRAP
        if lock is not None and lock.digest is None and base.bootstrap is not None:
            why = f"auto: the lock has no digest, {lock.why}"
            pin = self._bootstrapped(base, lock, why)
        else:
            try:
                pin = self._registry(base, lock, "auto: the registry answered")
            except _NoRegistry as error:
                if base.bootstrap is None:
                    raise
                why = f"auto: no registry answered, {error.cause}, on {today}"
                pin = self._bootstrapped(base, lock, why)
            else:
                why, source = f"the registry answered on {today}", Bases.REGISTRY
        if pin is not None:
            self._remember(base, source, why.removeprefix("auto: "))
        return pin

    def _choice_key(self, base: Base) -> str:
        return hashlib.sha256(f"{self.engine.info().id}\n{base!r}".encode()).hexdigest()

    def _remember(self, base: Base, source: Bases, why: str) -> None:
        if self.make:  # a dry run leaves nothing behind
            self.records.put(CHOICES, self._choice_key(base), {"source": source.value, "why": why})

    def _registry(self, base: Base, lock: BaseLock | None, why: str, *, known: bool = False) -> BasePin | None:
        """The base as an image of its registry.

        One that is pinned needs no question when it is `known` to be there; when the lock pins it and `auto` has not
        to find out first; there the build itself asks for it.
        """
        digest = base.digest
        if lock is not None:
            digest = locked_digest(base, lock)
            if self.mode is Bases.REGISTRY:
                known = True
        if known and digest:
            return _registry_pin(base, digest, why, locked=lock is not None)
        try:
            return _registry_pin(base, registry_digest_of(self.engine, base, digest), why, locked=lock is not None)
        except RegistryUnreachable as error:
            raise _NoRegistry(base, error) from None
        except RegistryError as error:
            # A registry that answers and refuses is no reason to take other bytes in silence.
            raise _no_base(base, error) from None

    @property
    def _own_repository(self) -> str:
        return f"{self.repository}/base"

    def _bootstrapped(self, base: Base, lock: BaseLock | None, why: str) -> BasePin | None:
        recipe = bootstrap_recipe(self.engine, base)
        made = locked_made(base, lock, recipe) if lock is not None else None
        found: BootstrappedBase | None = None
        for candidate in bases_of(self.engine, recipe, self._own_repository):
            if made is None or self._versions(candidate) == dict(made.packages):
                found = candidate
                break
        if found is None:
            if not self.make:
                return None
            found = self._make(base, why)
            if made is not None and (found.packages is None or found.packages.versions != dict(made.packages)):
                raise archive_moved(base, made.packages, self._versions(found))
        return _bootstrap_pin(base, found, why)

    def _versions(self, base: BootstrappedBase) -> Mapping[str, str]:
        """The packages of a made base; read from the image once, for its id says all."""
        if base.packages is not None:
            return base.packages.versions
        remembered = self.records.get(PACKAGES, base.image_id) or {}
        versions = remembered.get("versions")
        if isinstance(versions, dict) and all(isinstance(value, str) for value in versions.values()):
            return versions
        try:
            read = packages_of(self.engine, base).versions
        except BaseUnavailable as error:
            raise BaseError(error.message, where=base.reference, hint=error.hint) from None
        if self.make:
            self.records.put(PACKAGES, base.image_id, {"versions": dict(read)})
        return read

    def _make(self, base: Base, why: str) -> BootstrappedBase:
        return make_locally(
            self.engine,
            base,
            why,
            site=self.site,
            repository=self._own_repository,
            on_line=self.on_line,
            cancel=self.cancel,
        )


def _bootstrap_pin(base: Base, found: BootstrappedBase, why: str) -> BasePin:
    return BasePin(
        name=base.name,
        source=Bases.BOOTSTRAP,
        reference=found.reference,
        identity=f"bootstrap:{found.recipe_sha256}:{found.packages_sha256}",
        why=why,
    )


def _registry_pin(base: Base, digest: str, why: str, *, locked: bool) -> BasePin:
    if base.digest is None and not locked:
        why += f"; {base.image} has no digest in matrix.yaml, and is {digest} today"
    return BasePin(
        name=base.name,
        source=Bases.REGISTRY,
        reference=registry_reference(base, digest),
        identity=f"registry:{digest}",
        why=why,
    )


def _no_base(base: Base, error: RegistryError) -> BaseError:
    hint = "build with --bases bootstrap" if base.bootstrap else "give the base a `bootstrap` in matrix.yaml"
    return BaseError(f"no digest for {base.image}: {error.message}", where=f"base {base.name}", hint=hint)


class _NoRegistry(BaseError):
    """No registry answered: the one failure for which `auto` may choose the base's equivalent."""

    def __init__(self, base: Base, error: RegistryUnreachable) -> None:
        described = _no_base(base, error)
        super().__init__(described.message, where=described.where, hint=described.hint)
        self.cause = error.cause
