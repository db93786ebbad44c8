"""Cells into recipes: Jinja2 templates into Dockerfiles, the files that they use, and the content key."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import NotLocked
from builder.render.recipe import KEY_FORMAT, ContextFile, Recipe, WheelDirectory, parse_constraints
from builder.render.templates import ChannelView, Renderer, channel_variable

if TYPE_CHECKING:
    from builder.lock.model import Requests
    from builder.matrix import Cell
    from builder.project import Project

__all__ = [
    "KEY_FORMAT",
    "ChannelView",
    "ContextFile",
    "Recipe",
    "Renderer",
    "WheelDirectory",
    "channel_variable",
    "collect",
    "iter_recipes",
    "locked_recipes",
    "parse_constraints",
    "render_all",
    "renderer_of",
]


def renderer_of(project: Project) -> Renderer:
    """Renders with a project's own templates and lock files, and behind them the shipped ones."""
    return Renderer(project.dockerfiles, project.shipped_dockerfiles)


def iter_recipes(cells: Iterable[Cell], project: Project) -> Iterator[Recipe]:
    """Renders cells one after the other: memory does not grow with their number.

    Raises:
        RenderError: a cell does not render.
        NotLocked: a lock file is missing, or lacks what a cell asks for.
        ConfigError: a lock file is malformed.
    """
    renderer = renderer_of(project)
    return (renderer.render(cell) for cell in cells)


def locked_recipes(
    cells: Iterable[Cell],
    wanted: Container[str],
    project: Project,
    refused: Callable[[Cell, NotLocked], None] | None = None,
) -> Iterator[Recipe]:
    """Renders the cells of a matrix, apart from those that are not locked and that nobody asked for.

    Args:
        cells: all of the matrix: the build context is made of them, and must not depend on what was asked for.
        wanted: ids of the cells that were asked for.
        project: where templates and locks are.
        refused: is told of each cell that was asked for and is not locked, and the others follow; None to end there.

    Raises:
        NotLocked: a cell that was asked for is not locked, and `refused` is None.
        RenderError, ConfigError: as `iter_recipes`.
    """
    renderer = renderer_of(project)
    for cell in cells:
        try:
            yield renderer.render(cell)
        except NotLocked as error:
            if cell.id in wanted:
                if refused is None:
                    raise
                refused(cell, error)


def collect(cells: Iterable[Cell], project: Project) -> Iterator[tuple[Cell, Requests]]:
    """What the templates of cells ask a lock for.

    Raises:
        RenderError: a cell does not render.
    """
    renderer = renderer_of(project)
    return ((cell, renderer.collect(cell)) for cell in cells)


def render_all(cells: Iterable[Cell], directory: Path, fallback: Path | None = None) -> tuple[Recipe, ...]:
    """Renders cells with one environment, and keeps all that comes of it; see `iter_recipes`.

    Raises:
        RenderError, NotLocked, ConfigError: for the first cell that does not render.
    """
    renderer = Renderer(directory, fallback)
    return tuple(renderer.render(cell) for cell in cells)
