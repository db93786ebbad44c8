"""Which base, as which bytes: every base of a matrix is resolved once, before anything is built.

A base is an image from a registry, pinned by digest, or its equivalent made from the distribution's packages, pinned
by its recipe and its package set. The two give different keys, so the choice is made openly: by `--bases`, or, with
`auto`, once per engine and base declaration, and then remembered and reported.
"""

from __future__ import annotations

import hashlib
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
    """

    engine: Engine
    mode: Bases
    site: Site
    records: Records
    repository: str
    make: bool = True
    on_line: Callable[[str], None] = lambda line: None

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
        if self.mode is Bases.BOOTSTRAP:
            return self._bootstrapped(base, "asked for with --bases bootstrap")
        choice = _choice_key(self.engine, base)
        if self.mode is Bases.AUTO and base.bootstrap is not None:
            remembered = self.records.get(CHOICES, choice)
            found = self._find(base) if remembered is not None else None
            if remembered is not None and found is not None:
                return _bootstrap_pin(base, found, f"auto chose it earlier: {remembered.get('why')}")
        try:
            digest = _digest(self.engine, base)
        except RegistryUnreachable as error:
            if self.mode is Bases.REGISTRY or base.bootstrap is None:
                raise _no_base(base, error) from None
            reason = error.message
        except RegistryError as error:
            # A registry that answers and refuses is no reason to take other bytes in silence.
            raise _no_base(base, error) from None
        else:
            asked = self.mode is Bases.REGISTRY
            return _from_registry(base, digest, "asked for with --bases registry" if asked else "auto: it answered")
        made = self._bootstrapped(base, f"auto: {reason}")
        if made is not None:
            self.records.put(CHOICES, choice, {"source": Bases.BOOTSTRAP.value, "why": reason})
        return made

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


def _choice_key(engine: Engine, base: Base) -> str:
    return hashlib.sha256(f"{engine.info().id}\n{base!r}".encode()).hexdigest()


def _repository(image: str) -> str:
    """An image's name without its tag."""
    return image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image


def _digest(engine: Engine, base: Base) -> str:
    """The digest that `matrix.yaml` pins, once the registry has it, or else the one that the tag has today."""
    name = f"{_repository(base.image)}@{base.digest}" if base.digest else base.image
    return registry_digest(engine, name, DockerLogins())


def _from_registry(base: Base, digest: str, why: str) -> BasePin:
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
