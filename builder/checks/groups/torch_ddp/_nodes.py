# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What one rank of several nodes does; unlike `_ranks` it meets its peers where the environment says."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

#: How a launcher (torchrun, Kubeflow, Slurm's scripts) tells a process who it is and where rank 0 listens.
VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
TIMEOUT = 120.0
STEPS = 4


def main(directory: Path) -> int:
    """Trains with all nodes; hashes of the weights go to the others through the store, which reduces nothing."""
    import torch
    import torch.distributed as dist

    from builder.checks import language, rank_training, training

    limit = datetime.timedelta(seconds=TIMEOUT)
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    device = "cuda" if cuda else "cpu"
    dist.init_process_group("nccl" if cuda else "gloo", init_method="env://", timeout=limit)
    rank, size = dist.get_rank(), dist.get_world_size()
    report: dict[str, Any] = {"rank": rank, "size": size, "backend": dist.get_backend()}
    # The default store: every process has it, and it is a table at rank 0.
    store = dist.distributed_c10d._get_default_store()

    def everyone(key: str, value: str) -> list[str]:
        store.set(f"imgbuild-{key}-{rank}", value)
        return [store.get(f"imgbuild-{key}-{other}").decode() for other in range(size)]

    def total() -> dict[str, Any]:
        tensor = torch.tensor([float(rank + 1)], device=device)
        dist.all_reduce(tensor)
        return {"sum": tensor.item()}

    def weights() -> dict[str, Any]:
        one = training.new_training(rank_training.seed_of(rank), device, torch.bfloat16)
        watch = rank_training.Watch(directory, "nodes", rank, one.model)
        seeded = everyone("seeded", watch.report["seeded"])
        parallel = torch.nn.parallel.DistributedDataParallel(one.model)
        watch.note(one.model)
        for step in range(STEPS):
            batch = watch.texts(step, device)
            one.optimizer.zero_grad()
            with training.autocast(device, one.dtype):
                logits = parallel(batch[:, :-1])
            loss = language.loss_of(logits, batch)
            loss.backward()
            one.optimizer.step()
            watch.report["losses"].append(float(loss.item()))
            watch.note(one.model)
        steps = [everyone(f"step-{step}", value) for step, value in enumerate(watch.report["steps"])]
        return {"seeded": seeded, "steps": steps, "losses": watch.report["losses"]}

    good = rank_training.run_sections(directory, 0, report, {"total": total, "weights": weights})
    if not good:
        return 1
    # Rank 0 keeps the table until all others have read it.
    if rank == 0:
        store.wait([f"imgbuild-read-{other}" for other in range(1, size)], limit)
    else:
        store.set(f"imgbuild-read-{rank}", "1")
    dist.destroy_process_group()
    return 0


def peers() -> dict[str, str]:
    """The variables as this process has them; those that are not set are missing."""
    return {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
