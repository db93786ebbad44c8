# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Batches that worker processes put into shared memory.

One batch is larger than the 64 MB of /dev/shm that a container has by default: with those, a worker dies of a bus
error, which `docker run --shm-size` mends. The check demands that the image *and* how it is run are enough.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from builder.checks.contract import fail

#: Numbers of 4 bytes in a sample, samples in a batch (72 MiB) and in all, and worker processes.
WIDTH = 1 << 20
BATCH = 18
SAMPLES = 3 * BATCH
WORKERS = 2
#: What shared memory must hold at once: one batch that each worker has ready, one in use, and one for what else
#: the image keeps there.
NEEDED = (WORKERS + 2) * BATCH * WIDTH * 4
SHM = "/dev/shm"


class Ramps(torch.utils.data.Dataset):
    """Sample i counts up from i, modulo 2^24, so that float32 holds every number; and who made it."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return ramp(index), os.getpid()


def ramp(index: int) -> torch.Tensor:
    """What sample `index` must be."""
    return torch.arange(index, index + WIDTH, dtype=torch.float32)


def load(device: str) -> dict[str, Any]:
    """Loads every batch once through worker processes, in a shuffled order, and compares each number."""
    order = torch.Generator().manual_seed(3)
    expected = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(4)).tolist()
    sampler = torch.utils.data.BatchSampler(expected, BATCH, drop_last=False)
    loader = torch.utils.data.DataLoader(
        Ramps(),
        batch_sampler=sampler,
        num_workers=WORKERS,
        prefetch_factor=1,
        generator=order,
        pin_memory=device != "cpu",
        timeout=60,
    )
    seen: list[int] = []
    makers: set[int] = set()
    shared = True
    try:
        for samples, pids in loader:
            here = samples.to(device, non_blocking=True)
            shared = shared and (samples.is_shared() or device != "cpu")
            for row in here:
                index = int(row[0].item())
                if not torch.equal(row, ramp(index).to(device)):
                    fail(f"sample {index} has other numbers than its worker made")
                seen.append(index)
            makers.update(pids.tolist())
    except RuntimeError as error:
        _explain(str(error))
        raise
    if seen != expected:
        fail(f"the loader gave the samples {seen[:8]}…, asked for were {expected[:8]}…")
    if len(makers) != WORKERS or os.getpid() in makers:
        fail(f"{WORKERS} workers were asked for, {len(makers - {os.getpid()})} made the samples")
    if not shared:
        fail("a batch of a worker is not in shared memory")
    return {
        "workers": WORKERS,
        "batches": SAMPLES // BATCH,
        "batch_bytes": BATCH * WIDTH * 4,
        "shm_bytes": _shm_bytes(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "numpy": _numpy(),
    }


def _shm_bytes() -> int | None:
    """The size of the file system of shared memory; None without one."""
    try:
        found = os.statvfs(SHM)
    except OSError:
        return None
    return found.f_frsize * found.f_blocks


def _explain(error: str) -> None:
    """Fails with how to run the container when shared memory is what was lacking."""
    size = _shm_bytes()
    if size is None:
        fail(f"there is no {SHM}, where the workers of a DataLoader put their batches", detail=error)
    if size < NEEDED:
        fail(
            f"the workers of a DataLoader need {NEEDED >> 20} MiB of shared memory, {SHM} has {size >> 20} MiB: "
            "docker run --shm-size=1g (or --ipc=host)",
            detail=error,
        )


def _numpy() -> str:
    """NumPy's version, after an array went through torch and back; a word where it is not installed."""
    try:
        import numpy
    except ImportError:
        return "not installed"
    values = numpy.arange(7, dtype=numpy.float32)
    there = torch.from_numpy(values)
    if there.tolist() != values.tolist() or (there + 1).numpy().tolist() != (values + 1).tolist():
        fail(f"arrays of NumPy {numpy.__version__} come back from torch with other numbers")
    return str(numpy.__version__)
