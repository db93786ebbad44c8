"""Finds the image for a key, or builds it: the one place where recipes meet BuildKit.

One session carries the context and the Dockerfiles of the whole matrix, so what several cells share is sent once.
"""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.builds import REVISION_LABEL
from builder.engine.auth import DockerLogins
from builder.engine.build import BuildRequest, build
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused
from builder.engine.images import list_images, remove, tag
from builder.engine.mutex import held
from builder.engine.session import Session, shared_key_for
from builder.engine.trace import Event
from builder.engine.tree import FileTree
from builder.errors import ImgbuildError
from builder.lock import BasePin, Bases
from builder.plan import BASE_LABEL, KEY_LABEL, Action, candidate_tag, candidates, next_candidate
from builder.project import Project
from builder.render import Recipe, channel_variable
from builder.site import Site, build_secrets, site_files, site_wheels, supplies

IDLE_TIMEOUT = 3600.0
"""Seconds of silence after which a build counts as stalled. BuildKit says nothing while a quiet step compiles."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image of one cell on one engine.

    Attributes:
        id: the engine's image id, `sha256:…`.
        key: the content key that it was built for.
        candidate: its immutable reference.
        built: whether this run built it.
        seconds: how long that took; 0 when it was found.
    """

    id: str
    key: str
    candidate: str
    built: bool
    seconds: float


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


def source_labels(project: Project) -> Mapping[str, str]:
    """Labels outside the key: when an image was made, and from which commit, where the project is a checkout.

    The revision is `git describe`'s: 40 hexadecimal digits, with `-dirty` when tracked files were changed since. There
    is none for the matrix that imgbuild ships, or for one that git does not track.
    """
    created = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    labels = {"org.opencontainers.image.created": created.isoformat().replace("+00:00", "Z")}
    if not project.shipped and _git(project.root, "ls-files", "--error-unmatch", project.matrix.name):
        revision = _git(project.root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        if revision:
            labels[REVISION_LABEL] = revision
    return labels


def _git(directory: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git or no repository."""
    command = ["git", "-C", str(directory), *arguments]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _base_labels(base: BasePin) -> Mapping[str, str]:
    """What the image is made from: the OCI labels for an image of a registry, and always what the key counts."""
    labels = {BASE_LABEL: base.identity}
    if base.source is Bases.REGISTRY:
        name, _, digest = base.reference.partition("@")
        labels |= {"org.opencontainers.image.base.name": name, "org.opencontainers.image.base.digest": digest}
    return labels


def build_image(
    engine: Engine,
    session: Session,
    action: Action,
    *,
    labels: Mapping[str, str],
    on_event: Callable[[Event], None],
    cancel: threading.Event | None = None,
) -> Image:
    """Builds the image of an action, and gives it a candidate reference that no image holds.

    The build itself puts no tag, so it overwrites none. Should an imgbuild that does not share this machine's state
    have made a candidate for the same key meanwhile, that one is adopted.

    Args:
        engine: where to build.
        session: the matrix's session.
        action: what to build; its base is known.
        labels: labels outside the key, such as the revision.
        on_event: receives the build's progress.
        cancel: stops the build on the engine when set.

    Raises:
        EngineError: the build failed, stalled, was cancelled, or the disk is full.
    """
    if action.base is None or action.key is None:
        raise ImgbuildError(f"base {action.cell.base.name} is not known yet", where=action.cell.id)
    result = build(
        engine,
        session,
        BuildRequest(
            dockerfile=action.recipe.name,
            build_args={"BASE": action.base.reference},
            labels={**labels, **_base_labels(action.base), KEY_LABEL: action.key},
            no_cache=action.rebuild,
        ),
        on_event=on_event,
        cancel=cancel,
        idle_timeout=IDLE_TIMEOUT,
    )
    # Locks of this machine's state say nothing to an imgbuild elsewhere that uses the same engine.
    with held(engine, f"imgbuild-candidate-{action.key}", result.image_id):
        images = list_images(engine)
        known = candidates(action.cell, action.key, images)
        if not known or action.rebuild:
            candidate = next_candidate(action.cell, action.key, images)
            tag(engine, result.image_id, candidate)
            return Image(id=result.image_id, key=action.key, candidate=candidate, built=True, seconds=result.seconds)
    number, image = known[-1]
    if image.id != result.image_id:
        with contextlib.suppress(EngineRefused):  # somebody has begun to use it: then it stays
            remove(engine, result.image_id)
    candidate = candidate_tag(action.cell, action.key, number)
    return Image(id=image.id, key=action.key, candidate=candidate, built=False, seconds=0.0)
