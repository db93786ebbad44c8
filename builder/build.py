"""Builds recipes, and makes images of what was built: the one place where recipes meet BuildKit.

It takes two builds, since the labels of a Dockerfile cannot say what one of its steps found out: the recipe's own, and,
once that was measured, one that adds the manifest and the labels. Only the second gives an image that counts.

One session carries the context and the Dockerfiles of the whole matrix, so what several cells share is sent once.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.engine.auth import DockerLogins
from builder.engine.build import BuildRequest, build
from builder.engine.connection import Engine
from builder.engine.errors import EngineError, EngineRefused
from builder.engine.images import ImageSummary, list_images, tag, untag
from builder.engine.mutex import held
from builder.engine.owner import HOST_LABEL, PROCESS_LABEL, is_abandoned, owner_labels
from builder.engine.session import Session, shared_key_for
from builder.engine.trace import Event
from builder.engine.tree import FileTree
from builder.errors import ImgbuildError
from builder.lock import BasePin, Bases
from builder.plan import BASE_LABEL, KEY_LABEL, Action, candidate_tag, candidates, next_candidate
from builder.render import Recipe, channel_variable
from builder.site import Site, build_secrets, site_files, site_wheels, supplies

IDLE_TIMEOUT = 3600.0
"""Seconds of silence after which a build counts as stalled. BuildKit says nothing while a quiet step compiles."""

MANIFEST_PATH = "/opt/imgbuild/manifest.json"
"""Where an image has what was measured of it."""

_MANIFEST, _FINISH = "manifest.json", "finish.Dockerfile"
_TEMPORARY = "unfinished-"


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image of one cell on one engine.

    Attributes:
        id: the engine's image id, `sha256:…`.
        key: the content key that it was built for.
        candidate: its immutable reference.
        built: whether this run built it.
    """

    id: str
    key: str
    candidate: str
    built: bool


def context_trees(recipes: Iterable[Recipe], site: Site) -> tuple[FileTree, FileTree]:
    """The build context and the Dockerfiles of a matrix.

    Args:
        recipes: every recipe of the matrix, also those that will not be built now: the context must not depend on
            what was selected, or a selection would spoil the layer cache of the next one.
        site: supplies wheels from local directories.

    Returns:
        the context: each recipe's files, and directories with the site's wheels; and the Dockerfiles by name.
    """
    context, dockerfiles = FileTree(), FileTree()
    added: set[str] = set()
    for recipe in recipes:
        dockerfiles.add_bytes(recipe.name, recipe.dockerfile.encode())
        for file in recipe.files:
            if file.path not in added:
                added.add(file.path)
                context.add_bytes(file.path, file.data, mode=file.mode)
        for directory in recipe.wheels:
            if directory.path in added:
                continue
            added.add(directory.path)
            # An empty directory is not synchronised when nothing asks for it by name; a file in it always is.
            context.add_bytes(f"{directory.path}/.keep", b"")
            locked = directory.packages
            for found in site_wheels(site, recipe.constraints) if locked is None else site_files(site, locked):
                # A link would go as a link, and dangle in the build.
                context.add_file(f"{directory.path}/{found.name}", found.resolve())
    return context, dockerfiles


def channels_of(recipes: Iterable[Recipe], site: Site) -> Mapping[str, str]:
    """What the site makes of the wheel channels: URLs by variable, empty where a channel is not needed.

    A channel is not needed when the site itself supplies the framework's locked file, or a wheel of its pinned
    version. Without this, a machine that cannot reach the channel would wait for it in vain.
    """
    channels = {channel_variable(name): url for name, url in site.channels.items()}
    for recipe in recipes:
        framework = recipe.cell.framework
        if framework.channel is None or framework.channel.name in site.channels:
            continue
        if _supplies_framework(site, recipe):
            channels[channel_variable(framework.channel.name)] = ""
    return channels


def _supplies_framework(site: Site, recipe: Recipe) -> bool:
    from packaging.utils import canonicalize_name, parse_wheel_filename

    name = canonicalize_name(recipe.cell.framework.name)
    if recipe.locked is not None:
        package = recipe.locked.get(name)
        return package is not None and any(supplies(file, package) for file in site_files(site, (package,)))
    return name in {parse_wheel_filename(wheel.name)[0] for wheel in site_wheels(site, recipe.constraints)}


def open_session(engine: Engine, recipes: tuple[Recipe, ...], site: Site, project: Path) -> Session:
    """Opens the one session of a matrix.

    Args:
        engine: where to build.
        recipes: every recipe of the matrix.
        site: becomes the session's secrets.
        project: the project's root; builds of one project reuse what was sent before.
    """
    context, dockerfiles = context_trees(recipes, site)
    return Session.open(
        engine,
        context=context,
        dockerfiles=dockerfiles,
        secrets=build_secrets(site, channels_of(recipes, site)),
        credentials=DockerLogins(),
        shared_key=shared_key_for(project),
    )


def _base_labels(base: BasePin) -> Mapping[str, str]:
    """What the image is made from: the OCI labels for an image of a registry, and always what the key counts."""
    labels = {BASE_LABEL: base.identity}
    if base.source is Bases.REGISTRY:
        name, _, digest = base.reference.partition("@")
        labels |= {"org.opencontainers.image.base.name": name, "org.opencontainers.image.base.digest": digest}
    return labels


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What a recipe was built into: to be measured, and then to become an image.

    Attributes:
        id: the engine's image id.
        name: the temporary reference that it has; `FROM` needs one.
        seconds: how long the build took.
    """

    id: str
    name: str
    seconds: float


@contextlib.contextmanager
def built_recipe(
    engine: Engine,
    session: Session,
    action: Action,
    *,
    on_event: Callable[[Event], None],
    cancel: threading.Event | None = None,
) -> Iterator[Unfinished]:
    """Builds the recipe of an action; what comes of it has a temporary name for the time of a `with` block.

    It has neither the key's label nor a candidate's name, so it counts as no image of its key. Nothing in it depends on
    when it was built: built again from the layer cache, it has the same id.

    Args:
        engine: where to build.
        session: the matrix's session.
        action: what to build; its base is known.
        on_event: receives the build's progress.
        cancel: stops the build on the engine when set.

    Raises:
        EngineError: the build failed, stalled, was cancelled, or the disk is full.
    """
    base, key = _known(action)
    name = temporary_name(action.cell.repository, key)
    try:
        result = build(
            engine,
            session,
            BuildRequest(
                dockerfile=action.recipe.name,
                build_args={"BASE": base.reference},
                tags=(name,),
                no_cache=action.rebuild,
            ),
            on_event=on_event,
            cancel=cancel,
            idle_timeout=IDLE_TIMEOUT,
        )
        yield Unfinished(id=result.image_id, name=name, seconds=result.seconds)
    finally:
        # What keeps this from succeeding is what ended the build, or is seen by whoever goes on.
        with contextlib.suppress(EngineError):
            untag(engine, name)


def finish_image(
    engine: Engine,
    action: Action,
    unfinished: Unfinished,
    *,
    manifest: bytes,
    labels: Mapping[str, str],
    on_event: Callable[[Event], None],
    cancel: threading.Event | None = None,
) -> Image:
    """Makes the image of what was built: with its manifest, its labels, and a candidate reference that no image holds.

    The build itself puts no tag, so it overwrites none. Should an imgbuild that does not share this machine's state
    have made a candidate for the same key meanwhile, that one is adopted.

    Args:
        engine: where to build.
        action: what was built.
        unfinished: what came of it.
        manifest: the file that it gets as `/opt/imgbuild/manifest.json`.
        labels: labels outside the key, such as the revision.
        on_event: receives the build's progress.
        cancel: stops the build on the engine when set.

    Raises:
        EngineError: the build failed, was cancelled, or the disk is full.
    """
    base, key = _known(action)
    context, dockerfiles = FileTree(), FileTree()
    # Its time is derived from its bytes: the same manifest on the same layers is the same layer.
    context.add_bytes(_MANIFEST, manifest)
    dockerfiles.add_bytes(_FINISH, f"FROM {unfinished.name}\nCOPY {_MANIFEST} {MANIFEST_PATH}\n".encode())
    _forget(engine, list_images(engine))
    # Until it is a candidate it needs a name: without one it would be pruned, or stay for ever.
    name = temporary_name(action.cell.repository, key)
    try:
        # A session of its own: the context of the matrix was complete before anything was measured.
        with Session.open(
            engine,
            context=context,
            dockerfiles=dockerfiles,
            shared_key=hashlib.sha256(f"{action.cell.repository} {key} manifest".encode()).hexdigest(),
        ) as session:
            result = build(
                engine,
                session,
                BuildRequest(dockerfile=_FINISH, labels={**labels, **_base_labels(base), KEY_LABEL: key}, tags=(name,)),
                on_event=on_event,
                cancel=cancel,
                idle_timeout=IDLE_TIMEOUT,
            )
        # Locks of this machine's state say nothing to an imgbuild elsewhere that uses the same engine.
        with held(engine, f"imgbuild-candidate-{key}", result.image_id):
            images = list_images(engine)
            known = candidates(action.cell, key, images)
            if not known or action.rebuild:
                candidate = next_candidate(action.cell, key, images)
                tag(engine, result.image_id, candidate)
                return Image(id=result.image_id, key=key, candidate=candidate, built=True)
    finally:
        # Takes the image with it where it became no candidate, unless somebody has begun to use it.
        with contextlib.suppress(EngineError):
            untag(engine, name)
    number, image = known[-1]
    return Image(id=image.id, key=key, candidate=candidate_tag(action.cell, key, number), built=False)


def _known(action: Action) -> tuple[BasePin, str]:
    if action.base is None or action.key is None:
        raise ImgbuildError(f"base {action.cell.base.name} is not known yet", where=action.cell.id)
    return action.base, action.key


def temporary_name(repository: str, key: str) -> str:
    """A name for what is built and not yet an image: no other process and no other build has it, and it names its
    process, so that a later run can remove what a killed one leaves.
    """
    owner = owner_labels()
    process = owner[PROCESS_LABEL].replace("/", ".")
    return f"{repository}:{_TEMPORARY}{key[:12]}.{secrets.token_hex(4)}.{owner[HOST_LABEL]}.{process}"


def is_left(reference: str) -> bool:
    """Whether a reference is a temporary name whose process is known to be gone."""
    name, *owner = reference.rpartition(":")[2].split(".")
    if not name.startswith(_TEMPORARY) or len(owner) != 5:
        return False
    _, host, *process = owner
    return is_abandoned({HOST_LABEL: host, PROCESS_LABEL: "/".join(process)}) is True


def _forget(engine: Engine, images: Iterable[ImageSummary]) -> None:
    """Removes the temporary names that killed runs left, and what nothing else needs of their images."""
    for reference in [reference for image in images for reference in image.tags if is_left(reference)]:
        with contextlib.suppress(EngineRefused):  # another run removes it, or a container is made of it
            untag(engine, reference)
