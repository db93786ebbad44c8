# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two Horovod processes does with MXNet: it computes and writes down, the group compares."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import horovod.mxnet as hvd
import mxnet

from builder.checks import arrays, grammar, pair
from builder.checks.groups.mxnet import _model as model
from builder.checks.rank_report import horovod_ways, process_number, run_sections

TYPES = ("float16", "float32", "float64", "int32", "int64")
TIMED = 20
#: What a rank trains with: plain, with momentum, with moments.
OPTIMIZERS = {
    "sgd": {"learning_rate": 0.05},
    "nag": {"learning_rate": 0.05, "momentum": 0.9},
    "adam": {"learning_rate": grammar.RATE, "wd": 0.01},
}


def allreduce(rank: int) -> dict[str, Any]:
    """Sums and averages in each type, and the time of sums of a vector as large as the model."""
    found = {}
    for name in TYPES:
        own = mxnet.nd.array(pair.numbers(rank), dtype=name)
        found[f"{name} sum"] = hvd.allreduce(own, average=False, name=f"sum.{name}").asnumpy().tolist()
        if name.startswith("float"):
            found[f"{name} average"] = hvd.allreduce(own, average=True, name=f"average.{name}").asnumpy().tolist()
    large, seconds = mxnet.nd.ones(60_000), []
    for number in range(TIMED):
        began = time.perf_counter()
        hvd.allreduce(large, average=False, name=f"timed.{number}").wait_to_read()
        seconds.append(round(time.perf_counter() - began, 6))
    return {"reductions": found, "refused": [], "allreduce_seconds": seconds}


def broadcast(rank: int) -> dict[str, Any]:
    """The numbers of either rank."""
    found = {}
    for root in (0, 1):
        own = mxnet.nd.array(pair.numbers(rank))
        found[f"root {root}"] = hvd.broadcast(own, root_rank=root, name=f"root.{root}").asnumpy().tolist()
    return found


def exchange(rank: int) -> dict[str, Any]:
    """Numbers gathered from both ranks, one more from the second, and sent from each to each."""
    gathered = hvd.allgather(mxnet.nd.array(pair.numbers(rank)[: 3 + rank]), name="gathered")
    given, splits = mxnet.nd.arange(10) + 10 * rank, mxnet.nd.array([4, 6], dtype="int32")
    parts = hvd.alltoall(given, splits=splits, name="exchanged")
    parts = parts[0] if isinstance(parts, (list, tuple)) else parts
    return {"allgather": gathered.asnumpy().tolist(), "alltoall": parts.asnumpy().tolist()}


def gradients(rank: int, directory: Path) -> dict[str, Any]:
    """Gradients of the transformer: of the halves, of the joined batch, and of both through a DistributedTrainer."""
    joined = arrays.texts(arrays.JOINED, 11)
    half = arrays.half_of(joined, rank)
    arrays.save(directory, f"gradient-alone-{rank}", model.gradients(model.new_model(7), half))
    if rank == 0:
        arrays.save(directory, "gradient-joined-0", model.gradients(model.new_model(7), joined))
    # Plain SGD with rate 1 subtracts the gradient, so that the weights show it.
    net = model.new_model(7)
    trainer = hvd.DistributedTrainer(net.collect_params(), "sgd", {"learning_rate": 1.0})
    before = model.weights(net)
    with mxnet.autograd.record():
        loss = model.loss_of(net, half)
    loss.backward()
    trainer.step(1)  # the loss is a mean already
    after = model.weights(net)
    found = before - after
    arrays.save(directory, f"gradients-reduced-{rank}", found)
    bound = grammar.summation_bound(arrays.JOINED, model.ROUNDINGS, condition=1.0)
    bound += arrays.update_error(before, after) / float((found**2).sum() ** 0.5)
    return {"parameters": len(found), "bound": bound}


def weights(rank: int, directory: Path) -> dict[str, Any]:
    """Trains from another seed and on other texts in each rank, once with every optimizer."""
    trained = {}
    for name, options in OPTIMIZERS.items():
        net = model.new_model(arrays.seed_of(rank))
        watch = arrays.Watch(directory, name, rank, model.weights(net))
        hvd.broadcast_parameters(net.collect_params(), root_rank=0)
        trainer = hvd.DistributedTrainer(net.collect_params(), name, options)
        watch.note(model.weights(net))
        for step in range(arrays.STEPS):
            batch = watch.fed(arrays.texts(grammar.BATCH, 1000 * (rank + 1) + step))
            with mxnet.autograd.record():
                loss = model.loss_of(net, batch)
            loss.backward()
            trainer.step(1)
            watch.report["losses"].append(float(loss.asscalar()))
            watch.note(model.weights(net))
        trained[name] = watch.done()
    return trained


def main(directory: Path) -> int:
    """Runs as one rank."""
    hvd.init()
    rank = hvd.rank()
    report = {
        "rank": rank,
        "size": hvd.size(),
        "local_size": hvd.local_size(),
        **horovod_ways(hvd),
    }
    sections = {
        "allreduce": lambda: allreduce(rank),
        "broadcast": lambda: broadcast(rank),
        "exchange": lambda: exchange(rank),
        "gradients": lambda: gradients(rank, directory),
        "weights": lambda: weights(rank, directory),
    }
    good = run_sections(directory, process_number(rank), report, sections)
    if good:
        mxnet.nd.waitall()
        hvd.shutdown()
    return 0 if good else 1
