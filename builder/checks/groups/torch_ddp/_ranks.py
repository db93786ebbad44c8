# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each process of torch.distributed does: it computes and writes down, `builder.checks.pair` compares."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

from builder.checks.contract import fail
from builder.checks.pair import numbers

#: In the environment: the process's number, how many there are, the backend, and the device of the tensors.
RANK, SIZE, BACKEND, DEVICE = "IMGBUILD_RANK", "IMGBUILD_SIZE", "IMGBUILD_BACKEND", "IMGBUILD_RANK_DEVICE"
#: A file with the port at which rank 0 keeps the store.
PORT = "port"
TIMEOUT = 60.0
TYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32", "int64")
SECTIONS = ("allreduce", "allgather", "broadcast", "gradients", "accumulate", "weights")


def _store(dist: Any, directory: Path, rank: int, size: int) -> Any:
    """The TCP store over which the ranks find each other; its port is free since the kernel chose it."""
    path, limit = directory / PORT, datetime.timedelta(seconds=TIMEOUT)
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, size, True, limit, wait_for_workers=False)
        fresh = path.with_suffix(".new")
        fresh.write_text(str(store.port), encoding="ascii")
        fresh.replace(path)
        return store
    end = time.monotonic() + TIMEOUT
    while not path.exists():
        if time.monotonic() > end:
            fail(f"rank 0 opened no store within {TIMEOUT:g} s")
        time.sleep(0.02)
    return dist.TCPStore("127.0.0.1", int(path.read_text(encoding="ascii")), size, False, limit)


class Rank:
    """One process: its sections by name, as methods."""

    def __init__(self, torch: Any, directory: Path, device: str) -> None:
        self.torch, self.directory, self.device = torch, directory, device
        self.dist = torch.distributed
        self.rank = int(self.dist.get_rank())

    def _own(self, name: str = "float32", add: int = 0) -> Any:
        given = [number + add for number in numbers(self.rank)]
        return self.torch.tensor(given, dtype=getattr(self.torch, name), device=self.device)

    def allreduce(self) -> dict[str, Any]:
        """Sums, and the largest and smallest, in each type, and the time of reductions as large as the model."""
        from builder.checks import language, rank_training

        found = {}
        for name in TYPES:
            # Half of a type without a sign holds none of these numbers, so they are moved up and the sum down again.
            add = 30 if name == "uint8" else 0
            for operation in ("SUM", "MAX", "MIN"):
                tensor = self._own(name, add)
                self.dist.all_reduce(tensor, op=getattr(self.dist.ReduceOp, operation))
                moved = add * (2 if operation == "SUM" else 1)
                found[f"{name} {operation.lower()}"] = [value - moved for value in tensor.tolist()]
        size = sum(item.numel() for item in language.new_model(0).parameters())
        vector = self.torch.ones(size, device=self.device)
        seconds = []
        for _ in range(rank_training.TIMED):
            began = time.perf_counter()
            self.dist.all_reduce(vector, op=self.dist.ReduceOp.MAX)
            vector[0].item()  # waits for a GPU
            seconds.append(round(time.perf_counter() - began, 6))
        return {"reductions": found, "allreduce_seconds": seconds}

    def allgather(self) -> dict[str, Any]:
        """The numbers of all ranks."""
        own = self._own()
        parts = [self.torch.empty_like(own) for _ in range(self.dist.get_world_size())]
        self.dist.all_gather(parts, own)
        return {"gathered": [part.tolist() for part in parts]}

    def broadcast(self) -> dict[str, Any]:
        """The numbers of either rank."""
        found = {}
        for root in (0, 1):
            tensor = self._own()
            self.dist.broadcast(tensor, src=root)
            found[f"root {root}"] = tensor.tolist()
        return found

    def _parallel(self, model: Any) -> Any:
        return self.torch.nn.parallel.DistributedDataParallel(model)

    def _reduced(self, section: str, parts: int) -> dict[str, Any]:
        """The gradient of this rank's half, in so many parts, through DistributedDataParallel."""
        from builder.checks import language, rank_training, training

        half = rank_training.halves(self.directory, self.rank, self.device)
        both = training.new_training(7, self.device)
        parallel = self._parallel(both.model)
        pieces = half.chunk(parts)
        with parallel.no_sync():
            for piece in pieces[:-1]:
                (language.loss_of(parallel(piece[:, :-1]), piece) / parts).backward()
        (language.loss_of(parallel(pieces[-1][:, :-1]), pieces[-1]) / parts).backward()
        rank_training.save(self.directory, f"{section}-reduced-{self.rank}", training.gradient(both.model))
        return rank_training.gradient_report(both.model)

    def gradients(self) -> dict[str, Any]:
        """One pass."""
        return self._reduced("gradients", 1)

    def accumulate(self) -> dict[str, Any]:
        """Two passes, reduced after the second."""
        return self._reduced("accumulate", 2)

    def weights(self) -> dict[str, Any]:
        """Trains in bfloat16 from another seed and on other texts in each rank, once with every optimizer."""
        from builder.checks import rank_training

        found = {name: self._train(name, passes=1) for name in rank_training.OPTIMIZERS}
        found["adamw-accumulated"] = self._train("adamw", passes=2)
        return found

    def _train(self, name: str, passes: int) -> dict[str, Any]:
        from builder.checks import language, rank_training, training

        one = training.new_training(rank_training.seed_of(self.rank), self.device, self.torch.bfloat16)
        label = name if passes == 1 else f"{name}-accumulated"
        watch = rank_training.Watch(self.directory, label, self.rank, one.model)
        parallel = self._parallel(one.model)  # gives every rank the weights of rank 0
        one.optimizer = rank_training.OPTIMIZERS[name](one.model.parameters())
        watch.note(one.model)

        def backward(batch: Any) -> float:
            with training.autocast(self.device, one.dtype):
                logits = parallel(batch[:, :-1])
            loss = language.loss_of(logits, batch)
            (loss / passes).backward()
            return float(loss.item())

        with training.watched(one.model) as seen:
            for step in range(rank_training.STEPS):
                one.optimizer.zero_grad()
                pieces = watch.texts(step, self.device).chunk(passes)
                with parallel.no_sync():
                    for piece in pieces[:-1]:
                        backward(piece)
                watch.report["losses"].append(backward(pieces[-1]))
                one.optimizer.step()
                watch.note(one.model)
        training.expect_mixed(one, seen)
        return watch.done()


def main(directory: Path) -> int:
    """Runs as one rank."""
    import torch
    import torch.distributed as dist

    from builder.checks import rank_training

    torch.set_num_threads(1)
    process, size = int(os.environ[RANK]), int(os.environ[SIZE])
    backend, device = os.environ[BACKEND], os.environ[DEVICE]
    report: dict[str, Any] = {
        "rank": process,
        "size": size,
        "backend": backend,
        "gpus": torch.cuda.device_count() if dist.is_available() else 0,
        "built": {"distributed": dist.is_available()},
    }
    if dist.is_available():
        report["built"].update(gloo=dist.is_gloo_available(), nccl=dist.is_nccl_available())
    sections: dict[str, rank_training.Section] = {}
    if not report["built"].get(backend) or (device == "cuda" and report["gpus"] < size):
        rank_training.run_sections(directory, process, report, {})  # the parent reads in it why
        return 0
    if device == "cuda":
        torch.cuda.set_device(process)

    def join() -> dict[str, Any]:
        store = _store(dist, directory, process, size)
        dist.init_process_group(
            backend, store=store, rank=process, world_size=size, timeout=datetime.timedelta(seconds=TIMEOUT)
        )
        report.update(rank=dist.get_rank(), size=dist.get_world_size(), backend=dist.get_backend())
        own = Rank(torch, directory, device)
        sections.update({name: getattr(own, name) for name in SECTIONS})
        return {}

    if not rank_training.run_sections(directory, process, report, {"join": join}):
        return 1
    if not rank_training.run_sections(directory, process, report, sections):
        return 1
    dist.barrier()  # so that no rank ends while the other still waits for it
    dist.destroy_process_group()
    return 0
