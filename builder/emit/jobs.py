"""Cells into jobs: short ids, packing, chunks, shards. Pure, deterministic, and linear in the cells."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from builder.emit.disk import GB, cell_mb, environment_mb
from builder.errors import ConfigError
from builder.lock.file import environment_name
from builder.matrix.model import Cell

T = TypeVar("T")

ID_DIGITS = 10
"""Hexadecimal digits of a short id: among 10,000 cells, two share one with a chance of 1 in 22,000."""

CELLS_TEXT = 100_000
"""The longest list of cells of one job, in bytes: Linux takes 128 KiB for one variable or argument."""

MAX_SHARDS = 1_000

PROMOTION = "imgbuild-promote"
"""The group of which a CI system runs one job at a time: two promotions at once could leave each some of the names."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Cells that one runner builds, one after the other or side by side.

    Attributes:
        id: the first hexadecimal digits of SHA-256 over the sorted cell ids joined by spaces: the same cells have the
            same id in every run, and a report of a job can be held to its id.
        name: for readers, unique among the jobs: the cell's id, or the first one's and how many more.
        cells: ids of its cells.
        environment: what its first cell shares layers with, for example "torch-2.13.0-cpu-py3.11-bookworm".
        disk_mb: how much disk it is expected to fill, in MB.
    """

    id: str
    name: str
    cells: tuple[str, ...]
    environment: str
    disk_mb: int

    @property
    def argument(self) -> str:
        """Its cells, separated by spaces, as arguments of `imgbuild build`."""
        return " ".join(self.cells)


def digest_of(cells: Iterable[str]) -> str:
    """What the id of the job with these cells begins: 64 hexadecimal digits."""
    return hashlib.sha256(" ".join(sorted(cells)).encode()).hexdigest()


def short_ids(digests: Sequence[str], digits: int = ID_DIGITS) -> tuple[str, ...]:
    """Each digest's first digits; more for those, and only those, that would share an id."""
    short = [digest[:digits] for digest in digests]
    while True:
        holders: dict[str, set[str]] = {}
        for found, digest in zip(short, digests, strict=True):
            holders.setdefault(found, set()).add(digest)
        shared = {found for found, whole in holders.items() if len(whole) > 1}
        if not shared:
            return tuple(short)
        short = [
            digest[: len(found) + 2] if found in shared else found for found, digest in zip(short, digests, strict=True)
        ]


def make_jobs(cells: Sequence[Cell], *, max_jobs: int | None, disk_gb: float) -> tuple[Job, ...]:
    """Every cell in exactly one job.

    Without `max_jobs`, each cell is a job of its own, in the matrix's order. With it, cells are put in the order of
    their layers and cut into at most so many runs, so that the largest job is as small as it can be: cells that share
    layers stay together, and no job is expected to fill more than the disk. A cell that alone is expected to fill more
    is a job of its own.

    Raises:
        ConfigError: so few jobs do not fit on the disk.
    """
    runs = [[cell] for cell in cells] if max_jobs is None else _packed(cells, max_jobs, int(disk_gb * GB))
    ids = short_ids([digest_of(cell.id for cell in run) for run in runs])
    return tuple(
        Job(
            id=job_id,
            name=run[0].id if len(run) == 1 else f"{run[0].id} and {len(run) - 1} more",
            cells=tuple(cell.id for cell in run),
            environment=environment_name(run[0]),
            disk_mb=_disk_mb(run),
        )
        for job_id, run in zip(ids, runs, strict=True)
    )


def too_large(jobs: Iterable[Job], disk_gb: float) -> tuple[Job, ...]:
    """The jobs that are expected to fill more than the disk."""
    return tuple(job for job in jobs if job.disk_mb > disk_gb * GB)


def _disk_mb(run: Iterable[Cell]) -> int:
    environments: dict[str, int] = {}
    own = 0
    for cell in run:
        environments[environment_name(cell)] = environment_mb(cell)
        own += cell_mb(cell)
    return own + sum(environments.values())


def _layers(cell: Cell) -> tuple[object, ...]:
    """Sorts cells by the layers that they share: the base first, then the framework, then what comes upon it."""
    framework = cell.framework
    extras = sorted(cell.extras, key=lambda extra: extra.controller is None)  # what is compiled lies lowest
    names = tuple(extra.name for extra in extras)
    return (cell.base.name, framework.name, framework.version, cell.cuda, cell.python, names, cell.id)


def _packed(cells: Sequence[Cell], max_jobs: int, disk_mb: int) -> list[list[Cell]]:
    ordered = sorted(cells, key=_layers)
    needed = _count(ordered, disk_mb, stop=len(ordered))
    if needed > max_jobs:
        raise ConfigError(
            f"{len(ordered)} cells do not fit into {max_jobs} jobs of {disk_mb / GB:g} GB each",
            where="--max-jobs",
            hint=f"{needed} jobs would do; or give --disk what your runners have, or split with --shard I/N",
        )
    # The smallest bound that needs no more jobs than there may be.
    low, high = 1, disk_mb
    while low < high:
        middle = (low + high) // 2
        if _count(ordered, middle, stop=max_jobs) <= max_jobs:
            high = middle
        else:
            low = middle + 1
    return list(_runs(ordered, high))


def _count(ordered: Sequence[Cell], bound_mb: int, *, stop: int) -> int:
    """How many runs the bound needs; counts no further than one more than `stop`."""
    count = 0
    for _ in _runs(ordered, bound_mb):
        count += 1
        if count > stop:
            break
    return count


def _runs(ordered: Sequence[Cell], bound_mb: int) -> Iterator[list[Cell]]:
    """Cuts into runs, each as long as the bound allows. For a given bound, no other cutting has fewer runs."""
    run: list[Cell] = []
    filled, length, last = 0, 0, ""
    for cell in ordered:
        where = environment_name(cell)
        shared, own, text = environment_mb(cell), cell_mb(cell), len(cell.id) + 1
        added = own + (0 if where == last else shared)
        if run and (filled + added > bound_mb or length + text > CELLS_TEXT):
            yield run
            run, filled, length, added = [], 0, 0, own + shared
        run.append(cell)
        filled, length, last = filled + added, length + text, where
    if run:
        yield run


def chunks(items: Sequence[T], limit: int) -> tuple[tuple[T, ...], ...]:
    """Cuts into as few pieces as the limit allows, of sizes that differ by one at most."""
    count = -(-len(items) // limit)
    bounds = [len(items) * number // count for number in range(count + 1)] if count else []
    return tuple(tuple(items[start:end]) for start, end in itertools.pairwise(bounds))


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One part of `count`; `number` counts from 1."""

    number: int
    count: int


def parse_shard(text: str) -> Shard:
    """Reads `i/n`.

    Raises:
        ConfigError: it is not of that form, or i is not between 1 and n.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match:
        number, count = int(match[1]), int(match[2])
        if 1 <= number <= count <= MAX_SHARDS:
            return Shard(number=number, count=count)
    raise ConfigError(
        f"{text!r} is no part of a whole",
        where="--shard",
        hint=f"write I/N with I from 1 to N, and N at most {MAX_SHARDS}: 2/8 is the second of eight parts",
    )


def sharded(cells: Iterable[Cell], shard: Shard) -> tuple[Cell, ...]:
    """The cells of one part.

    The part of a cell depends on nothing but its environment and the number of parts (rendezvous hashing): other cells
    may come and go, and with one more part, cells move only to the new one. Cells of one environment are always in the
    same part, so that their common layers are built once.
    """
    home: dict[str, bool] = {}
    found = []
    for cell in cells:
        where = environment_name(cell)
        if where not in home:
            home[where] = _home(where, shard.count) == shard.number
        if home[where]:
            found.append(cell)
    return tuple(found)


def _home(where: str, count: int) -> int:
    return max(range(1, count + 1), key=lambda number: hashlib.sha256(f"{number} {where}".encode()).digest())
