# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Several nodes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from builder.checks import pair
from builder.checks.contract import Measured, NotRun, check, expect, fail
from builder.checks.groups.torch_ddp import LAUNCH_DEADLINE, _nodes


@check(
    "torch.ddp.nodes",
    level="multi-node",
    deadline=300,
    catches="Nodes that do not find each other, or whose weights drift apart while they train.",
)
def run(launch: pair.Launch) -> Measured:
    given = _nodes.peers()
    lacking = [name for name in _nodes.VARIABLES if name not in given]
    if lacking:
        raise NotRun(f"no other node was named: {', '.join(lacking)} not set (as torchrun sets them, one rank a node)")
    if not given["RANK"].isdecimal() or not given["WORLD_SIZE"].isdecimal():
        fail(f"RANK={given['RANK']} and WORLD_SIZE={given['WORLD_SIZE']} are no numbers")
    rank, size = int(given["RANK"]), int(given["WORLD_SIZE"])
    if size < 2:
        raise NotRun(f"no other node was named: WORLD_SIZE is {size}")
    directory = Path(tempfile.mkdtemp(prefix="nodes-", dir=Path.cwd()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "NCCL_DEBUG": "INFO"}
    command = pair.Command(f"rank {rank}", pair.program("torch_ddp._nodes", directory), environment)
    made = pair.launch([command], directory, 1, LAUNCH_DEADLINE)
    # One report, of this node's rank: the launch has a single process.
    total = made.section("total")[0]
    report = made.reports[0]
    expect(
        (report["rank"], report["size"]) == (rank, size),
        f"this node is rank {report['rank']} of {report['size']}, {rank} of {size} was asked for",
    )
    expected = size * (size + 1) / 2
    expect(total["sum"] == expected, f"the ranks' numbers add up to {total['sum']}, expected {expected}")
    weights = made.section("weights")[0]
    expect(len(set(weights["seeded"])) == size, "the nodes had one seed: nothing was compared")
    for step, hashes in enumerate(weights["steps"]):
        expect(len(set(hashes)) == 1, f"after step {step} the weights differ across the nodes")
    firsts = [hashes[0] for hashes in weights["steps"]]
    expect(len(set(firsts)) == len(firsts), "a step changed no weight")
    if made.code != 0:
        fail(f"the rank did its work, but {made.how}", detail=made.output)
    return {
        "nodes": size,
        "backend": report["backend"],
        "steps": len(firsts) - 1,
        "transport": made.transport() if report["backend"] == "gloo" else pair.nccl_paths(made),
        "series": {"loss": weights["losses"]},
    }
