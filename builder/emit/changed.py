"""Cells that differ between the work tree and a commit: rendered on both sides and compared by fingerprint.

What is compared is what decides the image and its names: the Dockerfile, the files in its context with what lock files
put there, the base as declared and as locked, how far the image is checked, and its references. Comments in a matrix,
another order of its lines or a new template that no cell uses change nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from builder.errors import ConfigError, ImgbuildError
from builder.lock.bases import BasePin, Bases
from builder.lock.file import Locks, locks_of
from builder.matrix import Cell, load_matrix
from builder.project import DOCKERFILES, Project, find_project
from builder.render import iter_recipes

_OPTION = "--changed-since"
_GITS_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_INDEX_FILE")
"""What git sets for its hooks, which means another directory than the one that it is asked for here."""

_FETCH = "fetch it first; a shallow clone has only its newest commits (actions/checkout takes `fetch-depth: 0`)"


def fingerprints(cells: Iterable[Cell], project: Project) -> Iterator[tuple[Cell, str]]:
    """Each cell with SHA-256 over what decides its image and its names.

    Raises:
        RenderError, NotLocked, ConfigError: a cell does not render.
    """
    locks = locks_of(project)
    for recipe in iter_recipes(cells, project):
        cell = recipe.cell
        key = recipe.key(_pin(cell, locks))
        policy = cell.policy
        required = [policy.public.value, policy.verified.value, str(policy.max_age_days), str(cell.budget)]
        names = [cell.repository, *cell.tags, "", *cell.aliases]
        yield cell, hashlib.sha256("\n".join([key, *required, *names]).encode()).hexdigest()


def changed_cells(
    cells: tuple[Cell, ...], project: Project, ref: str, *, repository: str | None, warn: Callable[[str], None]
) -> tuple[Cell, ...]:
    """The cells that the commit has not, or has with another fingerprint.

    Where the commit has no matrix, or one that is not valid or does not render, every cell counts as changed, with a
    warning: a mistake that was mended must not stop what comes after it.

    Args:
        cells: what to choose from.
        project: the work tree's.
        ref: names a commit.
        repository: replaces the matrix's own on both sides.
        warn: receives warnings.

    Raises:
        ConfigError: the project is in no checkout, or git knows no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="imgbuild-changed-") as directory:
        there = _project_at(project, ref, Path(directory))
        if there is None:
            warn(f"{ref} has no {project.matrix.name}: every cell counts as changed")
            return cells
        wanted = {cell.id for cell in cells}
        try:
            # What the facts did not reach then may well be a cell now.
            matrix = load_matrix(there.matrix, repository=repository, assume_new=True)
            before = {
                cell.id: fingerprint
                for cell, fingerprint in fingerprints((c for c in matrix.cells if c.id in wanted), there)
            }
        except ImgbuildError as error:
            said = str(error).splitlines()[0].replace(f"{there.root}{os.sep}", "")
            warn(f"{ref} does not render, so every cell counts as changed: {said}")
            return cells
    return tuple(cell for cell, fingerprint in fingerprints(cells, project) if before.get(cell.id) != fingerprint)


def _pin(cell: Cell, locks: Locks) -> BasePin:
    """The base as declared and as locked, which needs neither engine nor registry."""
    lock = locks.base(cell.base.name)
    identity = repr((cell.base, lock and (lock.image, lock.digest, lock.made)))
    return BasePin(
        name=cell.base.name, source=Bases.REGISTRY, reference=cell.base.image, identity=identity, why="as declared"
    )


def _project_at(project: Project, ref: str, directory: Path) -> Project | None:
    """Writes the commit's matrix, templates and lock files into a directory; None when it has no matrix."""
    if project.shipped:
        raise ConfigError(
            "there is no project here to compare: the matrix is the one that imgbuild ships",
            where=_OPTION,
            hint="`imgbuild init` writes it out, to be committed",
        )
    if not ref or ref.startswith("-"):
        raise ConfigError(f"{ref!r} names no commit", where=_OPTION, hint="for example origin/main or HEAD~1")
    root = project.root.resolve()
    top = Path(os.fsdecode(_git(root, "rev-parse", "--show-toplevel").rstrip(b"\n")))
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", missing=ref)
    index = {"GIT_INDEX_FILE": str(directory / "index")}
    _git(top, "read-tree", commit.decode().strip(), environment=index)
    within = root.relative_to(top)
    matrix, templates = within / project.matrix.name, within / DOCKERFILES
    # As a checkout would write them, with the same conversion of line ends; nothing of the work tree is touched.
    paths = _git(top, "ls-files", "-z", "--", f":(literal){matrix}", f":(literal){templates}", environment=index)
    prefix = f"--prefix={directory / 'tree'}{os.sep}"
    _git(top, "checkout-index", "--quiet", prefix, "-z", "--stdin", environment=index, stdin=paths)
    written = directory / "tree" / matrix
    return find_project(written, written.parent) if written.is_file() else None


def _git(
    where: Path,
    *arguments: str,
    missing: str = "",
    environment: dict[str, str] | None = None,
    stdin: bytes = b"",
) -> bytes:
    """What git says; `missing` is the commit that it may not know."""
    try:
        ran = subprocess.run(
            ["git", "-C", str(where), *arguments],
            env={**{k: v for k, v in os.environ.items() if k not in _GITS_OWN}, **(environment or {})},
            input=stdin,
            capture_output=True,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"git cannot be run: {error}", where=_OPTION, hint="install git") from None
    if ran.returncode == 0:
        return ran.stdout
    if missing:
        raise ConfigError(f"git knows no commit {missing!r}", where=_OPTION, hint=_FETCH)
    said = ran.stderr.decode(errors="replace").strip().splitlines()
    raise ConfigError(
        f"git {arguments[0]} failed: {said[-1] if said else f'exit code {ran.returncode}'}",
        where=_OPTION,
        hint="the project must be in a git checkout",
    )
