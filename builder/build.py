"""Finds the image for a key, or builds it: the one place where recipes meet BuildKit.

One session carries the context and the Dockerfiles of the whole matrix, so what several cells share is sent once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.engine.auth import DockerLogins
from builder.engine.build import BuildRequest, build
from builder.engine.connection import Engine
from builder.engine.errors import EngineError
from builder.engine.images import inspect, list_images
from builder.engine.session import Session, shared_key_for
from builder.engine.trace import Event
from builder.engine.tree import FileTree
from builder.errors import ImgbuildError
from builder.plan import KEY_LABEL, Action, candidates, next_candidate
from builder.render import Recipe, channel_variable
from builder.site import Site, build_secrets, site_wheels

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
        for directory, _ in recipe.wheels:
            if directory in added:
                continue
            added.add(directory)
            # An empty directory is not synchronised when nothing asks for it by name; a file in it always is.
            context.add_bytes(f"{directory}/.keep", b"")
            for wheel in site_wheels(site, recipe.constraints):
                context.add_file(f"{directory}/{wheel.name}", wheel)
    return context, dockerfiles


def channels_of(recipes: Iterable[Recipe], site: Site) -> Mapping[str, str]:
    """What the site makes of the wheel channels: URLs by variable, empty where a channel is not needed.

    A channel is not needed when the site itself supplies the wheel of the framework's pinned version. Without this,
    a machine that cannot reach the channel would wait for it in vain.
    """
    from packaging.utils import canonicalize_name, parse_wheel_filename

    channels = {channel_variable(name): url for name, url in site.channels.items()}
    for recipe in recipes:
        framework = recipe.cell.framework
        if framework.channel is None or framework.channel.name in site.channels:
            continue
        names = {parse_wheel_filename(wheel.name)[0] for wheel in site_wheels(site, recipe.constraints)}
        if canonicalize_name(framework.name) in names:
            channels[channel_variable(framework.channel.name)] = ""
    return channels


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


def build_image(
    engine: Engine,
    session: Session,
    action: Action,
    *,
    labels: Mapping[str, str],
    on_event: Callable[[Event], None],
    cancel: threading.Event | None = None,
) -> Image:
    """Builds the image of an action, or adopts the candidate that another process made meanwhile.

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
    images = list_images(engine)
    known = candidates(action.cell, action.key, images)
    if known and not action.rebuild:
        found = known[-1]
        return Image(
            id=found[1].id,
            key=action.key,
            candidate=next(tag for tag in found[1].tags if f":candidate-{action.key}" in tag),
            built=False,
            seconds=0.0,
        )
    candidate = next_candidate(action.cell, action.key, images)
    result = build(
        engine,
        session,
        BuildRequest(
            dockerfile=action.recipe.name,
            tags=(candidate,),
            build_args={"BASE": action.base.reference},
            labels={**labels, KEY_LABEL: action.key},
            no_cache=action.rebuild,
        ),
        on_event=on_event,
        cancel=cancel,
        idle_timeout=IDLE_TIMEOUT,
    )
    held = inspect(engine, candidate)
    if held is None or held.id != result.image_id:
        raise EngineError(
            f"{candidate} does not name the image that was just built",
            hint="something else on this engine moves candidate tags; run the build again",
        )
    return Image(id=result.image_id, key=action.key, candidate=candidate, built=True, seconds=result.seconds)
