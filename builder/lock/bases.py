"""Which base, as which bytes: every base of a matrix is resolved once, before anything is built.

A base is an image from a registry, pinned by digest, or its equivalent made from the distribution's packages, pinned
by its recipe and its package set. The two give different keys, so the choice is made openly: by `--bases`, or, with
`auto`, once per engine and base declaration. It is remembered and reported, and a network that fails later does not
change it.
"""

from __future__ import annotations

import datetime
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from builder.engine.auth import DockerLogins
from builder.engine.bootstrap import BootstrappedBase, BootstrapRecipe, find_base, make_base
from builder.engine.connection import Engine
from builder.engine.errors import BaseUnavailable, RegistryError, RegistryUnreachable
from builder.engine.images import registry_digest
from builder.errors import BaseError
from builder.matrix import Base
from builder.records import Records
from builder.site import Site

_PAUSE = 2.0
"""Seconds before a registry that may only have been disturbed is asked again."""

CHOICES = "base-choices"
"""The kind of record that remembers what `auto` found out."""


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
        make: False for a dry run: a base that would have to be made is pending.
        on_line: receives progress, a line at a time.
        cancel: ends the making of a base when set.
    """

    engine: Engine
    mode: Bases
    site: Site
    records: Records
    repository: str
    make: bool = True
    on_line: Callable[[str], None] = lambda line: None
    cancel: threading.Event | None = None

    def pins(self, bases: Iterable[Base]) -> Pins:
        """Pins each base once, however often it is named.

        Raises:
            BaseError: a base can be had from nowhere that `mode` allows.
        """
        pins: dict[str, BasePin] = {}
        pending: list[str] = []
        for base in {base.name: base for base in bases}.values():
            pin = self._pin(base)
            if pin is None:
                pending.append(base.name)
            else:
                pins[base.name] = pin
        return Pins(bases=pins, pending=tuple(pending))

    def _pin(self, base: Base) -> BasePin | None:
        if self.mode is Bases.AUTO:
            return self._auto(base)
        why = f"asked for with --bases {self.mode.value}"
        pin = self._bootstrapped(base, why) if self.mode is Bases.BOOTSTRAP else self._registry(base, why)
        if pin is not None:
            self._remember(base, self.mode, why)
        return pin

    def _auto(self, base: Base) -> BasePin | None:
        remembered = self.records.get(CHOICES, self._choice_key(base)) or {}
        chosen, why = remembered.get("source"), f"auto keeps what was chosen: {remembered.get('why')}"
        if chosen == Bases.BOOTSTRAP.value and base.bootstrap is not None:
            return self._bootstrapped(base, why)
        if chosen == Bases.REGISTRY.value:
            return self._registry(base, why, known=True)
        try:
            pin: BasePin | None = self._registry(base, "auto: the registry answered")
        except _NoRegistry as error:
            if base.bootstrap is None:
                raise
            why = f"auto: no registry answered, {error.cause}, on {datetime.date.today().isoformat()}"
            pin = self._bootstrapped(base, why)
            source = Bases.BOOTSTRAP
        else:
            why, source = f"the registry answered on {datetime.date.today().isoformat()}", Bases.REGISTRY
        if pin is not None:
            self._remember(base, source, why.removeprefix("auto: "))
        return pin

    def _choice_key(self, base: Base) -> str:
        return hashlib.sha256(f"{self.engine.info().id}\n{base!r}".encode()).hexdigest()

    def _remember(self, base: Base, source: Bases, why: str) -> None:
        if self.make:  # a dry run leaves nothing behind
            self.records.put(CHOICES, self._choice_key(base), {"source": source.value, "why": why})

    def _registry(self, base: Base, why: str, *, known: bool = False) -> BasePin:
        """The base as an image of its registry; one that is pinned and `known` to be there needs no question."""
        if known and base.digest:
            return _registry_pin(base, base.digest, why)
        try:
            return _registry_pin(base, _digest(self.engine, base), why)
        except RegistryUnreachable as error:
            raise _NoRegistry(base, error) from None
        except RegistryError as error:
            # A registry that answers and refuses is no reason to take other bytes in silence.
            raise _no_base(base, error) from None

    def _find(self, base: Base) -> BootstrappedBase | None:
        return find_base(self.engine, _recipe(self.engine, base), self._own_repository)

    @property
    def _own_repository(self) -> str:
        return f"{self.repository}/base"

    def _bootstrapped(self, base: Base, why: str) -> BasePin | None:
        found = self._find(base)
        if found is None:
            if not self.make:
                return None
            found = self._make(base, why)
        return _bootstrap_pin(base, found, why)

    def _make(self, base: Base, why: str) -> BootstrappedBase:
        recipe = _recipe(self.engine, base)
        self.on_line(f"base {base.name}: making {recipe.distribution} {recipe.suite} from its packages ({why})")
        try:
            return make_base(
                self.engine,
                recipe,
                repository=self._own_repository,
                mirror=self.site.apt_mirror,
                security_mirror=self.site.apt_security_mirror,
                proxies=self.site.proxies,
                ca_bundle=self.site.ca_bundle,
                on_line=self.on_line,
                cancel=self.cancel,
            )
        except BaseUnavailable as error:
            raise BaseError(error.message, where=f"base {base.name}", hint=error.hint) from None


def _bootstrap_pin(base: Base, found: BootstrappedBase, why: str) -> BasePin:
    return BasePin(
        name=base.name,
        source=Bases.BOOTSTRAP,
        reference=found.reference,
        identity=f"bootstrap:{found.recipe_sha256}:{found.packages_sha256}",
        why=why,
    )


def _repository(image: str) -> str:
    """An image's name without its tag."""
    return image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image


def _digest(engine: Engine, base: Base) -> str:
    """The digest that `matrix.yaml` pins, once the registry has it, or else the one that the tag has today."""
    name = f"{_repository(base.image)}@{base.digest}" if base.digest else base.image
    try:
        return registry_digest(engine, name, DockerLogins())
    except RegistryUnreachable as error:
        if error.cause in ("no such host", "connection refused"):
            raise
        # A choice that lasts should not hang on one lost packet.
        time.sleep(_PAUSE)
        return registry_digest(engine, name, DockerLogins())


def _registry_pin(base: Base, digest: str, why: str) -> BasePin:
    if base.digest is None:
        why += f"; {base.image} has no digest in matrix.yaml, and is {digest} today"
    return BasePin(
        name=base.name,
        source=Bases.REGISTRY,
        reference=f"{_repository(base.image)}@{digest}",
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


def _recipe(engine: Engine, base: Base) -> BootstrapRecipe:
    if base.bootstrap is None:
        raise BaseError(
            f"base {base.name} has no `bootstrap` in matrix.yaml",
            where=f"base {base.name}",
            hint="add `bootstrap: {distribution: debian, suite: …}`, or build with --bases registry",
        )
    return BootstrapRecipe(
        distribution=base.bootstrap.distribution,
        suite=base.bootstrap.suite,
        include=base.bootstrap.include,
        architecture=engine.info().architecture,
    )
