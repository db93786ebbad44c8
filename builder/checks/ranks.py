# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two Horovod processes does: it computes and writes down, the group `horovod` compares.

Numbers go to `rank-N.json` section by section, vectors to files of raw float32. Nothing that is compared between the
ranks travels through Horovod, so that a Horovod which reduces nothing cannot hide it.
"""

from __future__ import annotations

import array
import hashlib
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.checks.contract import one_line, short, write_json

#: Sequences of the joined batch; each rank gets its half.
JOINED = 32
#: Steps after which the weights of the ranks are compared.
STEPS = 8


def numbers(rank: int, length: int = 257) -> list[int]:
    """Rank-dependent integers, small enough to be exact in every type that is reduced; an odd length splits badly."""
    return [(rank + 1) * (index % 31 - 15) + 7 * rank for index in range(length)]


def _save(directory: Path, name: str, vector: Any) -> str:
    """Writes a float32 vector raw, so that it can be compared without torch; returns its hash."""
    data = array.array("f", vector.detach().float().cpu().reshape(-1).tolist()).tobytes()
    (directory / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _allreduce(hvd: Any, torch: Any, rank: int, directory: Path) -> dict[str, Any]:
    found = {}
    for name in ("float32", "float64", "int32", "int64"):
        tensor = torch.tensor(numbers(rank), dtype=getattr(torch, name))
        found[f"{name} sum"] = hvd.allreduce(tensor, op=hvd.Sum, name=f"sum.{name}").tolist()
        if tensor.dtype.is_floating_point:
            mean = hvd.allreduce(tensor, op=hvd.Average, name=f"average.{name}")
            found[f"{name} average"] = mean.tolist()
    return found


def _broadcast(hvd: Any, torch: Any, rank: int, directory: Path) -> dict[str, Any]:
    tensor = torch.tensor(numbers(rank), dtype=torch.float32)
    return {f"root {root}": hvd.broadcast(tensor, root_rank=root, name=f"root.{root}").tolist() for root in (0, 1)}


def _gradients(hvd: Any, torch: Any, rank: int, directory: Path) -> dict[str, Any]:
    """Gradients of this rank's half alone, of both halves through Horovod, and of the joined batch in one process."""
    from builder.checks import language, training

    joined = language.texts(JOINED, 11)
    half = joined.chunk(2)[rank]

    alone = training.new_training(7)
    alone.loss(half).backward()
    _save(directory, f"gradient-alone-{rank}", training.gradient(alone.model))

    whole = training.new_training(7)
    whole.loss(joined).backward()
    _save(directory, f"gradient-joined-{rank}", training.gradient(whole.model))

    both = training.new_training(7)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(both.model.parameters(), lr=0.0),
        named_parameters=both.model.named_parameters(),
    )
    both.loss(half).backward()
    optimizer.synchronize()
    _save(directory, f"gradient-reduced-{rank}", training.gradient(both.model))
    with optimizer.skip_synchronize():
        optimizer.step()
    return {
        "parameters": sum(item.numel() for item in both.model.parameters()),
        "bound": training.summation_bound(JOINED, condition=1.0),
    }


def _weights(hvd: Any, torch: Any, rank: int, directory: Path) -> dict[str, Any]:
    """Trains in bfloat16 from another seed and on other texts in each rank."""
    from builder.checks import language, training

    dtype = torch.bfloat16
    one = training.new_training(20 + rank, dtype=dtype)
    seeded = _save(directory, f"weights-seeded-{rank}", training.weights(one.model))
    hvd.broadcast_parameters(one.model.state_dict(), root_rank=0)
    _save(directory, f"weights-first-{rank}", training.weights(one.model))
    one.optimizer = hvd.DistributedOptimizer(one.optimizer, named_parameters=one.model.named_parameters())
    hvd.broadcast_optimizer_state(one.optimizer, root_rank=0)
    data = hashlib.sha256()
    losses = []
    with training.watched(one.model) as seen:
        for step in range(STEPS):
            seed = 1000 * (rank + 1) + step
            data.update(repr(language.texts(training.BATCH, seed).tolist()).encode())
            losses.append(one.step(seed))
    _save(directory, f"weights-last-{rank}", training.weights(one.model))
    training.expect_mixed(one.model, seen, dtype)
    return {"seeded": seeded, "data": data.hexdigest(), "losses": losses}


SECTIONS: dict[str, Callable[[Any, Any, int, Path], dict[str, Any]]] = {
    "allreduce": _allreduce,
    "broadcast": _broadcast,
    "gradients": _gradients,
    "weights": _weights,
}


def main(directory: Path) -> int:
    """Runs as one rank. Stops at the first section that fails: the other rank is waiting in its own."""
    import horovod.torch as hvd
    import torch

    torch.set_num_threads(1)
    hvd.init()
    rank = hvd.rank()
    report: dict[str, Any] = {
        "rank": rank,
        "size": hvd.size(),
        "local_size": hvd.local_size(),
        "pid": os.getpid(),
        "built": {name: bool(getattr(hvd, f"{name}_built")()) for name in ("gloo", "mpi", "nccl")},
        "sections": {},
        "error": None,
    }
    # Its name is the launcher's rank, not Horovod's: with a broken Horovod both might claim to be rank 0.
    path = directory / f"rank-{os.environ.get('HOROVOD_RANK', rank)}.json"
    write_json(path, report)
    for name, section in SECTIONS.items():
        try:
            report["sections"][name] = section(hvd, torch, rank, directory)
        except Exception as error:  # noqa: BLE001 - whatever a broken image raises is the finding
            detail = short(traceback.format_exc())
            report["error"] = {"section": name, "reason": one_line(error), "detail": detail}
        write_json(path, report)
        if report["error"] is not None:
            return 1
    hvd.shutdown()
    return 0
