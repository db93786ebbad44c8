# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A computation on a cluster of worker processes."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect

NUMBERS = 200


@check(
    "dask.compute",
    level="cpu",
    deadline=90,
    catches="Worker processes that do not start, do not find the scheduler or compute something else.",
)
def run(distributed: Any) -> Measured:
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(Path.cwd()),
        ) as cluster,
        distributed.Client(cluster, timeout=60) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        # Functions of the standard library only: the workers need not import this program.
        pids = client.run(os.getpid)
        squares = client.map(pow, range(NUMBERS), [2] * NUMBERS)
        halves = [client.submit(sum, part) for part in (squares[::2], squares[1::2])]
        total = client.submit(operator.add, *halves).result(timeout=60)
    distinct = set(pids.values()) | {os.getpid()}
    expect(len(distinct) == 3, f"two workers and their client have {len(distinct)} processes, not 3")
    # 0² + 1² + … + (n - 1)²
    expected = (NUMBERS - 1) * NUMBERS * (2 * NUMBERS - 1) // 6
    expect(total == expected, f"the cluster computed {total}, expected {expected}")
    return {"workers": len(pids), "total": total}
