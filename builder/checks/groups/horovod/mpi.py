# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two ranks over MPI."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check
from builder.checks.groups.horovod import LAUNCH_DEADLINE, _ranks, expect_mpi, launch_over_mpi, need_mpi


@check(
    "horovod.mpi",
    level="cpu",
    deadline=200,
    controller="mpi",
    catches="Ranks that mpirun starts and that are each alone, hang, or do not train as one.",
)
def run(launch: pair.Launch) -> Measured:
    need_mpi(launch)
    made = launch_over_mpi("horovod._ranks", LAUNCH_DEADLINE, **{_ranks.DEVICE: "cpu"})
    return expect_mpi(made, _ranks.SECTIONS)
