# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two Horovod processes does: it computes and writes down, `builder.checks.pair` compares."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from builder.checks.pair import numbers

#: In the environment: `cuda` gives each rank a GPU of its own.
DEVICE = "IMGBUILD_RANK_DEVICE"
#: Types that Horovod reduces; it refuses the last one on the CPU, which is no wrong number.
TYPES = ("float16", "float32", "float64", "int32", "int64", "bfloat16")
REFUSED = "bfloat16"
SECTIONS = ("allreduce", "allgather", "alltoall", "broadcast", "gradients", "accumulate", "compression", "weights")


class Rank:
    """One process: its sections by name, as methods."""

    def __init__(self, hvd: Any, torch: Any, directory: Path, device: str) -> None:
        self.hvd, self.torch, self.directory, self.device = hvd, torch, directory, device
        self.rank = int(hvd.rank())

    def _own(self, name: str = "float32") -> Any:
        return self.torch.tensor(numbers(self.rank), dtype=getattr(self.torch, name), device=self.device)

    def allreduce(self) -> dict[str, Any]:
        """Sums and averages in each type, and the time of reductions of a vector as large as the model."""
        from builder.checks import language, rank_training

        hvd, found, refused = self.hvd, {}, []
        for name in TYPES:
            tensor = self._own(name)
            try:
                found[f"{name} sum"] = hvd.allreduce(tensor, op=hvd.Sum, name=f"sum.{name}").tolist()
            except (ValueError, AttributeError, RuntimeError):
                if name != REFUSED:
                    raise
                refused.append(name)
                continue
            if tensor.dtype.is_floating_point:
                found[f"{name} average"] = hvd.allreduce(tensor, op=hvd.Average, name=f"average.{name}").tolist()
        size = sum(item.numel() for item in language.new_model(0).parameters())
        vector = self.torch.ones(size, device=self.device)
        seconds = []
        for index in range(rank_training.TIMED):
            began = time.perf_counter()
            hvd.allreduce(vector, op=hvd.Sum, name=f"timed.{index}")[0].item()  # waits for a GPU
            seconds.append(round(time.perf_counter() - began, 6))
        return {"reductions": found, "refused": refused, "allreduce_seconds": seconds}

    def allgather(self) -> dict[str, Any]:
        """The numbers of both ranks, a few less from the second."""
        own = self._own()[: 257 - 40 * self.rank]
        return {"gathered": self.hvd.allgather(own, name="gathered").tolist()}

    def alltoall(self) -> dict[str, Any]:
        """100 of this rank's numbers for rank 0 and the others for rank 1."""
        splits = self.torch.tensor([100, 157], dtype=self.torch.int32)
        received, _ = self.hvd.alltoall(self._own(), splits=splits, name="alltoall")
        return {"received": received.tolist()}

    def broadcast(self) -> dict[str, Any]:
        """The numbers of either rank."""
        hvd = self.hvd
        return {
            f"root {root}": hvd.broadcast(self._own(), root_rank=root, name=f"root.{root}").tolist() for root in (0, 1)
        }

    def _reduced(self, section: str, parts: int = 1, **options: Any) -> dict[str, Any]:
        """The gradient of this rank's half, in so many parts, through a DistributedOptimizer with these options."""
        from builder.checks import rank_training, training

        half = rank_training.halves(self.directory, self.rank, self.device)
        both = training.new_training(7, self.device)
        optimizer = self.hvd.DistributedOptimizer(
            self.torch.optim.SGD(both.model.parameters(), lr=0.0),
            named_parameters=both.model.named_parameters(),
            **options,
        )
        for part in half.chunk(parts):
            # Horovod adds the gradients of several passes up; their mean is what one batch gives.
            (both.loss(part) / parts).backward()
        optimizer.synchronize()
        rank_training.save(self.directory, f"{section}-reduced-{self.rank}", training.gradient(both.model))
        with optimizer.skip_synchronize():
            optimizer.step()
        return rank_training.gradient_report(both.model)

    def gradients(self) -> dict[str, Any]:
        """One pass."""
        return self._reduced("gradients")

    def accumulate(self) -> dict[str, Any]:
        """Two passes, reduced after the second."""
        return self._reduced("accumulate", parts=2, backward_passes_per_step=2)

    def compression(self) -> dict[str, Any]:
        """Gradients that travel in float16."""
        return self._reduced("compression", compression=self.hvd.Compression.fp16)

    def weights(self) -> dict[str, Any]:
        """Trains in bfloat16 from another seed and on other texts in each rank, once with every optimizer."""
        from builder.checks import rank_training

        found = {name: self._train(name, passes=1) for name in rank_training.OPTIMIZERS}
        found["adamw-accumulated"] = self._train("adamw", passes=2)
        return found

    def _train(self, name: str, passes: int) -> dict[str, Any]:
        from builder.checks import rank_training, training

        hvd = self.hvd
        one = training.new_training(rank_training.seed_of(self.rank), self.device, self.torch.bfloat16)
        label = name if passes == 1 else f"{name}-accumulated"
        watch = rank_training.Watch(self.directory, label, self.rank, one.model)
        hvd.broadcast_parameters(one.model.state_dict(), root_rank=0)
        one.optimizer = hvd.DistributedOptimizer(
            rank_training.OPTIMIZERS[name](one.model.parameters()),
            named_parameters=one.model.named_parameters(),
            backward_passes_per_step=passes,
        )
        hvd.broadcast_optimizer_state(one.optimizer, root_rank=0)
        watch.note(one.model)
        with training.watched(one.model) as seen:
            for step in range(rank_training.STEPS):
                one.optimizer.zero_grad()
                for part in watch.texts(step, self.device).chunk(passes):
                    loss = one.loss(part) / passes
                    loss.backward()
                one.optimizer.step()
                watch.report["losses"].append(float(loss.item()) * passes)
                watch.note(one.model)
        training.expect_mixed(one, seen)
        return watch.done()


def main(directory: Path) -> int:
    """Runs as one rank."""
    import horovod.torch as hvd
    import torch

    from builder.checks import rank_training
    from builder.checks.rank_report import horovod_ways, process_number

    torch.set_num_threads(1)
    hvd.init()
    device = os.environ.get(DEVICE, "cpu")
    report = {"rank": hvd.rank(), "size": hvd.size(), "local_size": hvd.local_size(), **horovod_ways(hvd)}
    report["gpus"] = torch.cuda.device_count()
    own = Rank(hvd, torch, directory, device)
    sections = {name: getattr(own, name) for name in SECTIONS}
    if device == "cuda":
        if report["gpus"] < hvd.local_size() or not report["built"]["nccl"]:
            sections = {}  # the parent reads in the report why
        else:
            torch.cuda.set_device(hvd.local_rank())
    if not rank_training.run_sections(directory, process_number(hvd.rank()), report, sections):
        return 1
    with contextlib.suppress(AttributeError):
        hvd.barrier()  # so that no rank ends while the other still writes
    hvd.shutdown()
    return 0
