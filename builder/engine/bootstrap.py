"""Base images that are made here from the distribution's packages, for machines that reach no registry.

A base has one layer and a name of ours that says what it is. Its bytes, its configuration and so its id depend on
nothing but the recipe and the packages. Children inherit its labels; what tells it from them is its name and its
single layer.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from builder.engine.apt import mirror_sources
from builder.engine.connection import Engine
from builder.engine.containers import read_from_image
from builder.engine.errors import BaseUnavailable
from builder.engine.images import ImageDetails, inspect, list_images, load_archive
from builder.engine.mmdebstrap import CLEAN_UP, PATH_EXCLUDES, make_root
from builder.engine.reference import Reference

RECIPE_LABEL = "io.imgbuild.base.recipe"
PACKAGES_LABEL = "io.imgbuild.base.packages"

DISTRIBUTIONS = ("debian", "ubuntu")

_FORMAT = 1
"""Raised when the same recipe is to give other bytes for a reason that `sha256` does not see."""

_EPOCH = 1735689600  # 2025-01-01T00:00:00Z
_SUITE = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_CHUNK = 1 << 20
_STATUS_CAP = 32 << 20


@dataclass(frozen=True, kw_only=True)
class BootstrapRecipe:
    """What a base is made of.

    Attributes:
        distribution: `debian` or `ubuntu`.
        suite: such as `bookworm`.
        architecture: such as `amd64`.
        include: packages besides the essential ones and apt.
        epoch: the newest time stamp in the image, in seconds since 1970; also the time at which it was "created".

    Raises:
        ValueError: a part is malformed.
    """

    distribution: str = "debian"
    suite: str
    architecture: str
    include: tuple[str, ...] = ()
    epoch: int = _EPOCH

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"{self.distribution!r} is none of {', '.join(DISTRIBUTIONS)}")
        if not _SUITE.fullmatch(self.suite):
            raise ValueError(f"{self.suite!r} is no name of a suite")
        if not _ARCHITECTURE.fullmatch(self.architecture):
            raise ValueError(f"{self.architecture!r} is no name of an architecture")
        for package in self.include:
            if not _PACKAGE.fullmatch(package):
                raise ValueError(f"{package!r} is no name of a package")

    @property
    def sha256(self) -> str:
        """What identifies the recipe: its fields, and how this module carries it out."""
        parts = {
            "format": _FORMAT,
            "distribution": self.distribution,
            "suite": self.suite,
            "architecture": self.architecture,
            "include": sorted(set(self.include)),
            "epoch": self.epoch,
            "excludes": list(PATH_EXCLUDES),
            "clean_up": CLEAN_UP,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PackageSet:
    """The packages of a base.

    Attributes:
        entries: `name=version=architecture` of every installed package, sorted.
    """

    entries: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """What identifies the set: the hash of its lines."""
        return hashlib.sha256("".join(f"{entry}\n" for entry in self.entries).encode()).hexdigest()

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions by name."""
        return {name: version for name, version, _ in (entry.split("=") for entry in self.entries)}


@dataclass(frozen=True, kw_only=True)
class BootstrappedBase:
    """A base on an engine.

    Attributes:
        image_id: the engine's id of it.
        reference: the name that `FROM` takes.
        recipe_sha256: of the recipe.
        packages_sha256: of the package set.
        packages: the set itself when it has just been made; None when the base was found.
    """

    image_id: str
    reference: str
    recipe_sha256: str
    packages_sha256: str
    packages: PackageSet | None = None


def base_reference(recipe: BootstrapRecipe, packages_sha256: str, repository: str) -> str:
    """The name of the base that `recipe` and the package set give."""
    tag = f"{recipe.distribution}-{recipe.suite}-{recipe.architecture}-{recipe.sha256[:12]}-{packages_sha256[:12]}"
    return str(Reference(repository=repository, tag=tag))


def bases_of(engine: Engine, recipe: BootstrapRecipe, repository: str) -> tuple[BootstrappedBase, ...]:
    """The bases that were made by `recipe` and kept in `repository`, the last made first."""
    found: list[tuple[datetime, BootstrappedBase]] = []
    for image in list_images(engine, label=f"{RECIPE_LABEL}={recipe.sha256}"):
        packages = image.labels.get(PACKAGES_LABEL, "")
        if not re.fullmatch(r"[0-9a-f]{64}", packages):
            continue
        reference = base_reference(recipe, packages, repository)
        if reference not in image.tags:
            continue
        details = inspect(engine, reference)
        if details is not None and details.id == image.id and len(details.layers) == 1:
            base = BootstrappedBase(
                image_id=image.id, reference=reference, recipe_sha256=recipe.sha256, packages_sha256=packages
            )
            found.append((details.tagged or details.created, base))
    found.sort(key=lambda pair: (pair[0], pair[1].reference), reverse=True)
    return tuple(base for _, base in found)


def find_base(engine: Engine, recipe: BootstrapRecipe, repository: str) -> BootstrappedBase | None:
    """The base that was last made by `recipe` and kept in `repository`; None when there is none."""
    return next(iter(bases_of(engine, recipe, repository)), None)


def packages_of(engine: Engine, base: BootstrappedBase) -> PackageSet:
    """The packages of a base on the engine.

    Raises:
        BaseUnavailable: it has no dpkg database.
    """
    if base.packages is not None:
        return base.packages
    status = read_from_image(engine, base.image_id, "/var/lib/dpkg/status", cap=_STATUS_CAP)
    if status is None:
        raise BaseUnavailable(f"the base {base.reference} has no dpkg database")
    return parse_packages(status.decode("utf-8", "replace"))


def make_base(
    engine: Engine,
    recipe: BootstrapRecipe,
    *,
    repository: str,
    mirror: str | None = None,
    security_mirror: str | None = None,
    proxies: Mapping[str, str] | None = None,
    ca_bundle: Path | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    cancel: threading.Event | None = None,
) -> BootstrappedBase:
    """Makes a base on this machine, and loads it into the engine.

    Args:
        engine: where it goes; it may be another machine's.
        recipe: what it is made of.
        repository: what its name begins with.
        mirror: the URL of a mirror of the main archive; None for the distribution's own. It leaves no trace.
        security_mirror: the same for the security archive; None for the one that is usually beside `mirror`.
        proxies: `http`, `https` and `no`, those that are to be used.
        ca_bundle: certificates for a mirror that is spoken to in HTTPS.
        on_line: receives progress, a line at a time.
        cancel: ends it when set.

    Raises:
        BaseUnavailable: mmdebstrap is not installed or failed, or the engine made something else of it.
        BuildCancelled: `cancel` was set.
        DiskFull: the engine's disk, or this machine's, is full.
    """
    with tempfile.TemporaryDirectory(prefix="imgbuild-base-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        work = directory / "work"
        work.mkdir()
        # Without root, mmdebstrap works as another user of this process's user name space.
        directory.chmod(0o755)
        work.chmod(0o1777)
        layer = directory / "layer.tar"
        make_root(
            layer,
            work,
            suite=recipe.suite,
            architecture=_debian_architecture(recipe.architecture),
            include=sorted(set(recipe.include)),
            epoch=recipe.epoch,
            sources=mirror_sources(mirror, security_mirror, recipe.suite) if mirror else "",
            proxies=proxies or {},
            ca_bundle=ca_bundle,
            on_line=on_line,
            cancel=cancel,
        )
        packages = installed_packages(layer)
        archive = ImageArchive(
            layer=layer,
            architecture=recipe.architecture,
            created=recipe.epoch,
            labels={
                RECIPE_LABEL: recipe.sha256,
                PACKAGES_LABEL: packages.sha256,
            },
            reference=base_reference(recipe, packages.sha256, repository),
        )
        on_line(f"loading {archive.reference} with {len(packages.entries)} packages")
        load_archive(engine, archive.pieces())
        image = inspect(engine, archive.reference)
        if not _is_what_was_sent(image, archive):
            raise BaseUnavailable(f"the engine made something else of {archive.reference} than what it was sent")
    return BootstrappedBase(
        image_id=image.id if image else "",
        reference=archive.reference,
        recipe_sha256=recipe.sha256,
        packages_sha256=packages.sha256,
        packages=packages,
    )


def _is_what_was_sent(image: ImageDetails | None, archive: ImageArchive) -> bool:
    return image is not None and image.layers == (archive.diff_id,) and dict(image.labels) == dict(archive.labels)


def _debian_architecture(architecture: str) -> str:
    return {"ppc64le": "ppc64el", "386": "i386", "arm": "armhf"}.get(architecture, architecture)


def installed_packages(root: Path) -> PackageSet:
    """Reads dpkg's database from a root file system's tar archive.

    Raises:
        BaseUnavailable: there is none in it.
    """
    with tarfile.open(root) as archive:
        for member in archive:
            if member.name.removeprefix("./") == "var/lib/dpkg/status" and (stream := archive.extractfile(member)):
                return parse_packages(stream.read().decode("utf-8", "replace"))
    raise BaseUnavailable("what mmdebstrap made has no dpkg database")


def parse_packages(status: str) -> PackageSet:
    """The installed packages of a dpkg status file."""
    entries = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version|Architecture): (.*)$", paragraph, re.M))
        if fields.get("Status", "").endswith(" installed"):
            entries.append(f"{fields['Package']}={fields['Version']}={fields['Architecture']}")
    return PackageSet(entries=tuple(sorted(entries)))


@dataclass(frozen=True, kw_only=True)
class ImageArchive:
    """One layer and a configuration as an archive that `docker load` takes. Equal parts give equal bytes.

    Attributes:
        layer: the layer's tar archive.
        architecture: as images spell it.
        created: seconds since 1970.
        labels: the image's labels.
        reference: the image's name.
        diff_id: `sha256:…` of the layer.
    """

    layer: Path
    architecture: str
    created: int
    labels: Mapping[str, str]
    reference: str
    diff_id: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        with self.layer.open("rb") as stream:
            for piece in _read(stream):
                digest.update(piece)
        object.__setattr__(self, "diff_id", f"sha256:{digest.hexdigest()}")

    def pieces(self) -> Iterator[bytes]:
        """The archive's bytes, so that a large layer is never in memory."""
        configuration = self._configuration()
        name = f"{hashlib.sha256(configuration).hexdigest()}.json"
        layer = f"{self.diff_id.removeprefix('sha256:')}/layer.tar"
        manifest = [{"Config": name, "RepoTags": [self.reference], "Layers": [layer]}]
        yield from self._file("manifest.json", json.dumps(manifest).encode())
        yield from self._file(name, configuration)
        yield self._header(layer, self.layer.stat().st_size)
        with self.layer.open("rb") as stream:
            yield from _read(stream)
        yield _padding(self.layer.stat().st_size)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _configuration(self) -> bytes:
        created = datetime.fromtimestamp(self.created, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        document = {
            "architecture": self.architecture,
            "os": "linux",
            "created": created,
            "config": {"Env": [f"PATH={path}"], "Cmd": ["bash"], "Labels": dict(self.labels)},
            "rootfs": {"type": "layers", "diff_ids": [self.diff_id]},
            "history": [{"created": created, "created_by": "imgbuild: made from the distribution's packages"}],
        }
        return json.dumps(document, sort_keys=True).encode()

    def _file(self, name: str, content: bytes) -> Iterator[bytes]:
        yield self._header(name, len(content))
        yield content + _padding(len(content))

    def _header(self, name: str, size: int) -> bytes:
        entry = tarfile.TarInfo(name)
        entry.size = size
        entry.mtime = self.created
        return entry.tobuf(tarfile.GNU_FORMAT)


def _read(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_CHUNK):
        yield piece


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
