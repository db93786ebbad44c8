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

from builder.engine.bootstrap import BootstrapRecipe, find_base, make_base
from builder.engine.connection import Engine
from builder.engine.errors import BaseUnavailable, RegistryError
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


def resolve(
    engine: Engine,
    bases: Iterable[Base],
    mode: Bases,
    site: Site,
    records: Records,
    *,
    repository: str,
    make: bool = True,
    on_line: Callable[[str], None] = lambda line: None,
) -> Pins:
    """Pins each base once.

    Args:
        engine: where bases are looked up and imported.
        bases: the bases that the selected cells use; duplicates count once.
        mode: where bases may come from.
        site: the mirror, proxies and CA with which a base is made.
        records: remembers what `auto` found out.
        repository: the prefix of this matrix's images; a made base is kept as `<repository>/base`.
        make: False for a dry run: a base that would have to be made is pending.
        on_line: receives progress, a line at a time.

    Raises:
        BaseError: a base can be had from nowhere that `mode` allows.
    """
    pins: dict[str, BasePin] = {}
    pending: list[str] = []
    for base in {base.name: base for base in bases}.values():
        pin = _resolve_one(
            engine, base, mode, site, records, repository=f"{repository}/base", make=make, on_line=on_line
        )
        if pin is None:
            pending.append(base.name)
        else:
            pins[base.name] = pin
    return Pins(bases=pins, pending=tuple(pending))


def _resolve_one(
    engine: Engine,
    base: Base,
    mode: Bases,
    site: Site,
    records: Records,
    *,
    repository: str,
    make: bool,
    on_line: Callable[[str], None],
) -> BasePin | None:
    if mode is Bases.REGISTRY:
        return _from_registry(engine, base, "asked for with --bases registry")
    if mode is Bases.BOOTSTRAP:
        return _bootstrapped(
            engine, base, site, repository, "asked for with --bases bootstrap", make=make, on_line=on_line
        )
    choice_key = _choice_key(engine, base)
    remembered = records.get(CHOICES, choice_key) or {}
    if remembered.get("source") == Bases.BOOTSTRAP.value and base.bootstrap is not None:
        recipe = _recipe(engine, base)
        if find_base(engine, recipe, repository) is not None:
            why = f"auto chose it earlier: {remembered.get('why', 'no reason was recorded')}"
            return _bootstrapped(engine, base, site, repository, why, make=make, on_line=on_line)
    try:
        pin = _from_registry(engine, base, "auto: the registry answered")
    except BaseError as error:
        if base.bootstrap is None:
            raise
        reason = error.message
    else:
        records.put(CHOICES, choice_key, {"source": Bases.REGISTRY.value, "why": "the registry answered"})
        return pin
    if make:
        on_line(f"base {base.name}: {reason}; using its equivalent from the distribution's packages")
    made = _bootstrapped(engine, base, site, repository, f"auto: {reason}", make=make, on_line=on_line)
    if made is not None:
        records.put(CHOICES, choice_key, {"source": Bases.BOOTSTRAP.value, "why": reason})
    return made


def _choice_key(engine: Engine, base: Base) -> str:
    return hashlib.sha256(f"{engine.info().id}\n{base!r}".encode()).hexdigest()


def _from_registry(engine: Engine, base: Base, why: str) -> BasePin:
    digest = base.digest
    if digest is None:
        try:
            digest = registry_digest(engine, base.image)
        except RegistryError as error:
            raise BaseError(
                f"no digest for {base.image}: {error.message}",
                where=f"base {base.name}",
                hint="pin it with `digest:` in matrix.yaml, or build with --bases bootstrap",
            ) from None
        why += f"; {base.image} has no digest in matrix.yaml, and is {digest} today"
    repository = base.image.rsplit(":", 1)[0] if ":" in base.image.rsplit("/", 1)[-1] else base.image
    return BasePin(
        name=base.name,
        source=Bases.REGISTRY,
        reference=f"{repository}@{digest}",
        identity=f"registry:{digest}",
        why=why,
    )


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


def _bootstrapped(
    engine: Engine,
    base: Base,
    site: Site,
    repository: str,
    why: str,
    *,
    make: bool,
    on_line: Callable[[str], None],
) -> BasePin | None:
    recipe = _recipe(engine, base)
    found = find_base(engine, recipe, repository)
    if found is None:
        if not make:
            return None
        on_line(f"base {base.name}: making {recipe.distribution} {recipe.suite} from its packages")
        try:
            found = make_base(
                engine,
                recipe,
                repository=repository,
                mirror=site.apt_mirror,
                security_mirror=site.apt_security_mirror,
                proxies=site.proxies,
                ca_bundle=site.ca_bundle,
                on_line=on_line,
            )
        except BaseUnavailable as error:
            raise BaseError(error.message, where=f"base {base.name}", hint=error.hint) from None
    return BasePin(
        name=base.name,
        source=Bases.BOOTSTRAP,
        reference=found.reference,
        identity=f"bootstrap:{found.recipe_sha256}:{found.packages_sha256}",
        why=why,
    )
