"""An image as a command line names it, found in its registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from builder.engine.auth import DockerLogins
from builder.engine.errors import NotInRegistry
from builder.engine.reference import InvalidReference, Reference
from builder.errors import ConfigError
from builder.registry.client import Repository
from builder.registry.proxies import Proxies
from builder.site import Site


def open_repository(name: str, site: Site) -> Repository:
    """A repository, reached as this machine reaches what is outside: with its proxies, certificates and logins.

    Raises:
        ConfigError: `name` is malformed, has a tag or a digest, or names a host that cannot be.
    """
    try:
        return Repository(name, DockerLogins(), site.ca_bundle, proxies=Proxies.of(site.proxies))
    except InvalidReference as error:
        raise ConfigError(str(error), hint="write HOST[:PORT]/PATH, such as registry.example.com/team/image") from None


@dataclass(frozen=True, kw_only=True)
class Remote:
    """An image in a registry.

    Attributes:
        repository: that holds it; open for as long as `find` says.
        digest: `sha256:…` of its manifest.
    """

    repository: Repository
    digest: str

    @property
    def reference(self) -> str:
        """The repository, with the digest."""
        return f"{self.repository.name}@{self.digest}"


@contextmanager
def find(reference: str, site: Site, *, by_digest: bool = False) -> Iterator[Remote]:
    """Finds an image in its registry, by its digest or by a tag. A tag is looked up once; what it moves to later does
    not matter any more.

    Args:
        reference: `REPOSITORY@sha256:…` or `REPOSITORY:TAG`.
        site: this machine's settings.
        by_digest: refuse a tag.

    Raises:
        InvalidReference: `reference` is malformed.
        ConfigError: it has a tag where a digest is needed, or names a host that cannot be.
        NotInRegistry: the registry has no such image.
        RegistryError: the registry refused, or is unreachable.
    """
    parsed = Reference.parse(reference)
    digest = parsed.digest
    if by_digest and not digest:
        raise ConfigError(
            f"{reference} is a name, which can be moved at any time",
            hint="name the image by its digest: REPOSITORY@sha256:…; `imgbuild evidence` prints it",
        )
    with open_repository(parsed.repository, site) as repository:
        # Evidence can lie beside an image that is gone.
        found = repository.digest(digest or parsed.tag or "latest")
        if found is None:
            raise NotInRegistry(f"there is no {reference} in its registry")
        yield Remote(repository=repository, digest=digest or found)
