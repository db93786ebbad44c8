"""Cells into jobs: each in exactly one, together with those that it shares layers with, and shards that stay put."""

from __future__ import annotations

import itertools
import random

import pytest
from emitting import six_hundred, some_cells

from builder.emit.disk import CPU_ENVIRONMENT_MB, GB, cell_mb, environment_mb
from builder.emit.jobs import (
    CELLS_TEXT,
    Job,
    Shard,
    chunks,
    digest_of,
    make_jobs,
    parse_shard,
    sharded,
    short_ids,
    too_large,
)
from builder.errors import ConfigError
from builder.lock.file import environment_name
from builder.matrix import Cell


def cells_of(jobs: tuple[Job, ...]) -> list[str]:
    return [cell for job in jobs for cell in job.cells]


def estimate(run: list[Cell]) -> int:
    """The estimate, said a second time."""
    return sum({environment_name(cell): environment_mb(cell) for cell in run}.values()) + sum(map(cell_mb, run))


def test_without_packing_each_cell_is_a_job_in_the_order_of_the_matrix() -> None:
    cells = six_hundred()
    jobs = make_jobs(cells, max_jobs=None, disk_gb=14)
    assert [job.cells for job in jobs] == [(cell.id,) for cell in cells]
    assert [job.name for job in jobs] == [cell.id for cell in cells]
    assert len({job.id for job in jobs}) == 600
    assert {len(job.id) for job in jobs} == {10}


@pytest.mark.parametrize("max_jobs", [40, 120, 200, 600])
def test_packing_keeps_every_cell_once_below_the_disk_and_in_few_jobs(max_jobs: int) -> None:
    cells = six_hundred()
    jobs = make_jobs(cells, max_jobs=max_jobs, disk_gb=14)
    assert sorted(cells_of(jobs)) == sorted(cell.id for cell in cells)
    assert len(jobs) <= max_jobs
    by_id = {cell.id: cell for cell in cells}
    assert [job.disk_mb for job in jobs] == [estimate([by_id[name] for name in job.cells]) for job in jobs]
    assert max(job.disk_mb for job in jobs) <= 14 * GB
    assert len({job.name for job in jobs}) == len(jobs)


def test_as_many_jobs_as_environments_share_each_environment_in_one_job() -> None:
    by_id = {cell.id: cell for cell in six_hundred()}
    jobs = make_jobs(tuple(by_id.values()), max_jobs=120, disk_gb=14)
    assert len(jobs) == 120
    assert {len({environment_name(by_id[name]) for name in job.cells}) for job in jobs} == {1}


def test_no_other_cutting_has_a_smaller_largest_job() -> None:
    for seed in range(20):
        chosen = random.Random(seed)
        cells = chosen.sample(some_cells(3, ("cpu",), ("3.11",), 4), 7)
        for max_jobs in (1, 2, 3):
            jobs = make_jobs(cells, max_jobs=max_jobs, disk_gb=100)
            by_id = {cell.id: cell for cell in cells}
            ordered = [by_id[name] for name in cells_of(jobs)]
            smallest = min(
                max(estimate(ordered[start:end]) for start, end in itertools.pairwise((0, *cuts, 7)))
                for count in range(max_jobs)
                for cuts in itertools.combinations(range(1, 7), count)
            )
            assert max(job.disk_mb for job in jobs) == smallest


def test_jobs_do_not_depend_on_the_order_of_the_cells() -> None:
    cells = list(six_hundred())
    before = make_jobs(cells, max_jobs=50, disk_gb=14)
    random.Random(1).shuffle(cells)
    assert make_jobs(cells, max_jobs=50, disk_gb=14) == before


def test_too_few_jobs_for_the_disk_are_refused_and_the_number_that_is_named_works() -> None:
    cells = six_hundred()
    with pytest.raises(ConfigError, match=r"600 cells do not fit into 3 jobs of 14 GB") as caught:
        make_jobs(cells, max_jobs=3, disk_gb=14)
    needed = int(caught.value.hint.split()[0])
    assert 3 < len(make_jobs(cells, max_jobs=needed, disk_gb=14)) <= needed
    with pytest.raises(ConfigError):
        make_jobs(cells, max_jobs=needed - 1, disk_gb=14)


def test_a_cell_that_is_too_large_for_the_disk_is_a_job_of_its_own_and_is_named() -> None:
    cells = some_cells(2, ("cpu", "13.0"), ("3.11",), 2)
    jobs = make_jobs(cells, max_jobs=8, disk_gb=14)
    large = too_large(jobs, 14)
    assert [job.cells for job in large] == [(cell.id,) for cell in cells if cell.cuda == "13.0"]
    assert len(large) == 4
    assert too_large(make_jobs(cells, max_jobs=8, disk_gb=30), 30) == ()


def test_estimates_tell_cpu_from_cuda_and_runtime_from_devel() -> None:
    cells = some_cells(1, ("cpu", "12.4", "13.0"), ("3.11",), 1)
    found = [environment_mb(cell) for cell in cells]
    assert found[0] == CPU_ENVIRONMENT_MB
    assert found == sorted(found)
    assert len(set(found)) == 3
    assert 12 * GB <= found[1] < found[2] <= 20 * GB


def test_one_job_never_gets_more_text_than_a_variable_holds() -> None:
    cells = some_cells(100, ("cpu",), ("3.10", "3.11"), 25)
    jobs = make_jobs(cells, max_jobs=50, disk_gb=10_000)
    assert sorted(cells_of(jobs)) == sorted(cell.id for cell in cells)
    assert len(jobs) > 1
    assert max(len(job.argument) for job in jobs) <= CELLS_TEXT


def test_an_id_says_which_cells_and_nothing_else() -> None:
    assert digest_of(["b", "a"]) == digest_of(["a", "b"]) != digest_of(["a"])
    digests = [digest_of([str(number)]) for number in range(300)]
    short = short_ids(digests, digits=2)
    assert len(set(short)) == 300
    assert all(digest.startswith(found) for found, digest in zip(short, digests, strict=True))
    assert set(map(len, short)) != {2}
    assert short_ids(digests) == tuple(digest[:10] for digest in digests)
    # Only those that would share one are longer.
    assert short_ids([digests[0], digests[1]], digits=10) == (digests[0][:10], digests[1][:10])


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (256, [256]), (257, [128, 129]), (600, [200] * 3)])
def test_chunks_are_few_and_even(count: int, sizes: list[int]) -> None:
    found = chunks(range(count), 256)
    assert [len(chunk) for chunk in found] == sizes
    assert [item for chunk in found for item in chunk] == list(range(count))


def test_shards_are_disjoint_and_together_everything() -> None:
    cells = six_hundred()
    for count in (1, 2, 7):
        parts = [sharded(cells, Shard(number=number, count=count)) for number in range(1, count + 1)]
        assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in cells)
        assert min(len(part) for part in parts) >= 600 / count / 2
        homes = [{environment_name(cell) for cell in part} for part in parts]
        assert sum(map(len, homes)) == 120


def test_other_cells_that_come_and_go_move_nothing() -> None:
    cells = six_hundred()
    for seed in range(30):
        some = random.Random(seed).sample(cells, 200)
        for number in range(1, 6):
            shard = Shard(number=number, count=5)
            whole = {cell.id for cell in sharded(cells, shard)}
            assert {cell.id for cell in sharded(some, shard)} == whole & {cell.id for cell in some}


def test_one_more_shard_takes_from_each_and_moves_nothing_else() -> None:
    cells = six_hundred()

    def homes(count: int) -> dict[str, int]:
        return {
            cell.id: number
            for number in range(1, count + 1)
            for cell in sharded(cells, Shard(number=number, count=count))
        }

    four, five = homes(4), homes(5)
    moved = {name for name in four if four[name] != five[name]}
    assert {five[name] for name in moved} == {5}
    assert moved == {name for name in five if five[name] == 5}


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1/1001", "١/٣", " 1/3"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no part of a whole"):
        parse_shard(text)


def test_what_is_a_shard_is_read() -> None:
    assert parse_shard("2/8") == Shard(number=2, count=8)
    assert parse_shard("1000/1000") == Shard(number=1000, count=1000)
