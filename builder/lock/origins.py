"""Where bases come from: a registry, or the packages of their distribution."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from builder.engine.auth import DockerLogins
from builder.engine.bootstrap import BootstrappedBase, BootstrapRecipe, make_base
from builder.engine.connection import Engine
from builder.engine.errors import BaseUnavailable, RegistryUnreachable
from builder.engine.images import registry_digest
from builder.errors import BaseError
from builder.matrix import Base
from builder.site import Site

_PAUSE = 2.0
"""Seconds before a registry that may only have been disturbed is asked again."""


def bootstrap_recipe(engine: Engine, base: Base) -> BootstrapRecipe:
    """How a base is made on an engine. Raises BaseError when `matrix.yaml` does not say."""
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


def make_locally(
    engine: Engine,
    base: Base,
    why: str,
    *,
    site: Site,
    repository: str,
    on_line: Callable[[str], None],
    cancel: threading.Event | None,
) -> BootstrappedBase:
    """Makes a base from today's packages of its distribution.

    Args:
        engine: where it goes.
        base: the base; it has a `bootstrap`.
        why: the reason, for the progress.
        site: the mirror, proxies and CA.
        repository: what its name begins with.
        on_line: receives progress, a line at a time.
        cancel: ends it when set.

    Raises:
        BaseError: it cannot be made.
    """
    recipe = bootstrap_recipe(engine, base)
    on_line(f"base {base.name}: making {recipe.distribution} {recipe.suite} from its packages ({why})")
    try:
        return make_base(
            engine,
            recipe,
            repository=repository,
            mirror=site.apt_mirror,
            security_mirror=site.apt_security_mirror,
            proxies=site.proxies,
            ca_bundle=site.ca_bundle,
            on_line=on_line,
            cancel=cancel,
        )
    except BaseUnavailable as error:
        raise BaseError(error.message, where=f"base {base.name}", hint=error.hint) from None


def registry_reference(base: Base, digest: str) -> str:
    """What `FROM` names: the base's image by its digest."""
    return f"{_repository(base.image)}@{digest}"


def registry_digest_of(engine: Engine, base: Base, digest: str | None = None) -> str:
    """The digest that is pinned, once the registry has it, or else the one that the base's tag has today.

    Raises:
        RegistryUnreachable: no registry answered.
        RegistryError: the registry refused, or has no such image.
    """
    name = f"{_repository(base.image)}@{digest}" if digest else base.image
    try:
        return registry_digest(engine, name, DockerLogins())
    except RegistryUnreachable as error:
        if error.cause in ("no such host", "connection refused"):
            raise
        # A choice that lasts should not hang on one lost packet.
        time.sleep(_PAUSE)
        return registry_digest(engine, name, DockerLogins())


def _repository(image: str) -> str:
    """An image's name without its tag."""
    return image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
