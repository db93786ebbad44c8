"""How an image was built, as an in-toto statement with the predicate of SLSA v1.

The fields are those of https://slsa.dev/provenance/v1: what a user asked for is in `externalParameters`, what imgbuild
made of it in `internalParameters`, and everything that went into the image, as bytes, in `resolvedDependencies`.
`BUILD_TYPE` names the meaning of the parameters; docs/evidence.md describes it.

Nothing of the site is in it: mirrors, indexes, proxies and certificates decide how a file is reached, and the hashes
which file it is. Credentials in any address are taken out all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from builder.attest.reading import rfc3339
from builder.attest.statement import Resource, Subject, statement
from builder.engine.urls import redact_urls
from builder.matrix import Axes

SLSA = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://imgbuild.io/build/v1"
LOCAL_BUILDER = "https://imgbuild.io/builder/local/v1"
"""The id of a builder that nobody named: somebody's machine, trusted as far as its signing key is."""


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """Something that went into an image.

    Attributes:
        name: such as `base`, or a file's path in the project.
        uri: where it is from, as a package URL or `git+https://…`; empty for a file of the project.
        digest: by algorithm, in hexadecimal digits, such as `{"sha256": …}` or `{"gitCommit": …}`.
        annotations: what else is known of it.
    """

    name: str
    uri: str = ""
    digest: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Built:
    """One build.

    Attributes:
        subjects: the image, as in `Checked`.
        cell: id of the cell.
        axes: the values that the cell has on the axes of the matrix.
        interpreter: where its Python comes from: `distribution`, `uv` or `conda`.
        repository: what its image is called, without a tag.
        key: the content key that it was built for.
        dockerfile: SHA-256 of the rendered Dockerfile.
        base: the base, as what it counts in a key: `registry:sha256:…` or `bootstrap:RECIPE:PACKAGES`.
        base_name: its image's name in the matrix, such as `debian:bookworm-slim`.
        files: matrix, locks, templates and other files of the project that went in, by path and hash.
        source: address of the project's git repository; empty when not known.
        commit: of the project, 40 or 64 hexadecimal digits; empty when not known.
        dirty: whether tracked files had been changed since.
        version: imgbuild's own.
        engine: the Docker engine's version.
        platform: `linux/amd64`.
        builder: a URI that names who built; empty for `LOCAL_BUILDER`.
        invocation: an id of this run, such as the address of a CI job; empty when there is none.
        started, finished: when it was built; None when that is not known, as for an image that was found.
    """

    subjects: tuple[Subject, ...]
    cell: str
    axes: Axes
    interpreter: str
    repository: str
    key: str
    dockerfile: str
    base: str
    base_name: str
    files: tuple[Resource, ...] = ()
    source: str = ""
    commit: str = ""
    dirty: bool = False
    version: str
    engine: str = ""
    platform: str = "linux/amd64"
    builder: str = ""
    invocation: str = ""
    started: datetime | None = None
    finished: datetime | None = None


def provenance(built: Built) -> bytes:
    """The statement on a build, as canonical JSON.

    Raises:
        ValueError: there is no subject, or a hash is none: a defect of the caller.
    """
    metadata: dict[str, object] = {}
    if built.invocation:
        metadata["invocationId"] = redact_urls(built.invocation)
    if built.started is not None:
        metadata["startedOn"] = rfc3339(built.started)
    if built.finished is not None:
        metadata["finishedOn"] = rfc3339(built.finished)
    predicate: dict[str, object] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "cell": built.cell,
                "axes": {
                    "framework": built.axes.framework,
                    "cuda": built.axes.cuda,
                    "python": built.axes.python,
                    "base": built.axes.base,
                    "extras": list(built.axes.extras),
                },
                "interpreter": built.interpreter,
                "repository": redact_urls(built.repository),
            },
            "internalParameters": {
                "key": built.key,
                "dockerfile": {"sha256": built.dockerfile},
                "engine": built.engine,
                "platform": built.platform,
            },
            "resolvedDependencies": [_descriptor(item) for item in _dependencies(built)],
        },
        "runDetails": {
            "builder": {
                "id": redact_urls(built.builder) or LOCAL_BUILDER,
                "version": {"imgbuild": built.version},
            },
            "metadata": metadata,
        },
    }
    return statement(built.subjects, SLSA, predicate)


def _dependencies(built: Built) -> tuple[Dependency, ...]:
    files = tuple(Dependency(name=item.name, digest={"sha256": item.sha256}) for item in built.files)
    source: tuple[Dependency, ...] = ()
    if built.commit:
        source = (
            Dependency(
                name="source",
                uri=f"git+{redact_urls(built.source)}@{built.commit}" if built.source else "",
                # What was changed since is not in the commit, so its hash would claim too much.
                digest={} if built.dirty else {"gitCommit": built.commit},
            ),
        )
    return (_base(built), *(item for item in source if item.uri or item.digest), *files)


def _base(built: Built) -> Dependency:
    kind, _, identity = built.base.partition(":")
    if kind == "registry":
        algorithm, _, digest = identity.partition(":")
        return Dependency(name="base", uri=f"docker-image://{redact_urls(built.base_name)}", digest={algorithm: digest})
    # Made from the distribution's packages: what it is, is the hash over its package set.
    recipe, _, packages = identity.partition(":")
    return Dependency(
        name="base",
        uri=f"https://imgbuild.io/base/bootstrap/v1#{redact_urls(built.base_name)}",
        digest={"sha256": packages},
        annotations={"recipe": recipe},
    )


def _descriptor(item: Dependency) -> dict[str, object]:
    descriptor: dict[str, object] = {"name": item.name}
    if item.uri:
        descriptor["uri"] = item.uri
    if item.digest:
        descriptor["digest"] = dict(item.digest)
    if item.annotations:
        descriptor["annotations"] = dict(item.annotations)
    return descriptor
