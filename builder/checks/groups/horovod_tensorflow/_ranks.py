# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two Horovod processes does with Keras 3: it computes and writes down, the group compares."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.tensorflow.keras as hvd
import keras
import numpy
import tensorflow
from horovod.tensorflow import allreduce as hvd_allreduce
from horovod.tensorflow import alltoall, broadcast_variables

from builder.checks import pair
from builder.checks.contract import one_line
from builder.checks.groups.tensorflow import _model as model
from builder.checks.groups.tensorflow import _pair as ranks
from builder.checks.groups.tensorflow import one_thread
from builder.checks.rank_report import horovod_ways, process_number, run_sections

#: Types that must be reduced, and types that may be refused.
REQUIRED = ("float16", "float32", "float64", "int32", "int64")
OPTIONAL = ("bfloat16", "int8")
TIMED = 20


def reduced(gradients: Any) -> list[Any]:
    """The way for every loop of one's own (docs/tensorflow.md): each gradient by itself, averaged."""
    return [
        hvd_allreduce(gradient, name=f"gradient.{index}", op=hvd.Average) if gradient is not None else None
        for index, gradient in enumerate(gradients)
    ]


def from_root(variables: Any) -> None:
    """Gives all ranks the root's values: a Keras variable holds that of TensorFlow in `value`."""
    broadcast_variables([variable.value for variable in variables], root_rank=0)


def allreduce(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    refused = []
    for name in (*REQUIRED, *OPTIONAL):
        values = tensorflow.constant(pair.numbers(rank), name)
        operations = {"sum": hvd.Sum, "average": hvd.Average} if values.dtype.is_floating else {"sum": hvd.Sum}
        try:
            for word, operation in operations.items():
                total = hvd_allreduce(values, op=operation, name=f"{word}.{name}")
                found[f"{name} {word}"] = tensorflow.cast(total, "float64").numpy().tolist()
        except (tensorflow.errors.OpError, TypeError, ValueError):
            if name in REQUIRED:
                raise
            refused.append(name)
    large, seconds = tensorflow.ones(60_000), []
    for number in range(TIMED):
        began = time.perf_counter()
        hvd_allreduce(large, op=hvd.Sum, name=f"timed.{number}").numpy()
        seconds.append(round(time.perf_counter() - began, 6))
    return {"reductions": found, "refused": refused, "allreduce_seconds": seconds}


def broadcast(rank: int) -> dict[str, Any]:
    found = {}
    for root in (0, 1):
        variable = keras.Variable(pair.numbers(rank), dtype="float32")
        broadcast_variables([variable.value], root_rank=root)
        found[f"root {root}"] = variable.numpy().tolist()
    return found


def exchange(rank: int) -> dict[str, Any]:
    gathered = hvd.allgather(tensorflow.constant(pair.numbers(rank)[: 3 + rank]), name="gathered")
    parts = alltoall(tensorflow.range(10) + 10 * rank, splits=[4, 6], name="exchanged")
    parts = parts[0] if isinstance(parts, (list, tuple)) else parts
    return {"allgather": numpy.asarray(gathered).tolist(), "alltoall": parts.numpy().tolist()}


def gradients(rank: int, directory: Path) -> dict[str, Any]:
    """Gradients of the transformer, in a function that TensorFlow compiles, reduced one by one."""
    half = ranks.halves(directory, rank)
    training = model.Training(7)

    def both() -> Any:
        return reduced(training.scaled_gradients(tensorflow.constant(half), 1.0)[1])

    found = model.vector(tensorflow.function(both)())
    ranks.save(directory, f"gradients-reduced-{rank}", found)
    return ranks.gradient_report(training.model, found)


def _taped(net: Any, loss_of: Callable[[Any], Any], optimizer: Any) -> Callable[[Any], Any]:
    """A step with a tape, whose gradients are reduced one by one."""

    def step(batch: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            loss = loss_of(batch)
        optimizer.apply(reduced(tape.gradient(loss, net.trainable_variables)), net.trainable_variables)
        return loss

    compiled: Callable[[Any], Any] = tensorflow.function(step)
    return compiled


def _train(name: str, rank: int, directory: Path, net: Any, step: Any, optimizer: Any, batches: Any) -> dict[str, Any]:
    watch = ranks.Watch(directory, name, rank, lambda: model.weights(net))
    optimizer.build(net.trainable_variables)
    from_root([*net.variables, *optimizer.variables])
    watch.note()
    for batch in batches:
        watch.report["losses"].append(float(step(tensorflow.constant(watch.fed(batch)))))
        watch.note()
    return watch.done()


def weights(rank: int, directory: Path) -> dict[str, Any]:
    """Trains with a tape: the smallest network with each optimizer, and the transformer in bfloat16."""
    found = {}
    for name, make in ranks.OPTIMIZERS.items():
        net, optimizer = ranks.small_net(keras, ranks.seed_of(rank)), make()

        def error(batch: Any, net: Any = net) -> Any:
            return tensorflow.reduce_mean((net(batch[:, :-1]) - batch[:, -1:]) ** 2)

        points = numpy.hstack(ranks.points(16 * ranks.STEPS, 1000 * (rank + 1)))
        step = _taped(net, error, optimizer)
        found[name] = _train(name, rank, directory, net, step, optimizer, numpy.split(points, ranks.STEPS))
    training = model.Training(ranks.seed_of(rank), "mixed_bfloat16")
    step = _taped(training.model, training.loss, training.optimizer)
    batches = numpy.split(model.texts(16 * ranks.STEPS, 1000 * (rank + 1)), ranks.STEPS)
    name = "transformer-bfloat16"
    found[name] = _train(name, rank, directory, training.model, step, training.optimizer, batches)
    model.expect_mixed(training, "bfloat16")
    return found


class _Note(keras.callbacks.Callback):
    """Notes the weights after every step of `fit`."""

    def __init__(self, watch: ranks.Watch) -> None:
        super().__init__()
        self._watch = watch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._watch.note()
        self._watch.report["losses"].append(float(logs["loss"]))


def _fitted(name: str, optimizer: Any, rank: int, directory: Path) -> dict[str, Any]:
    """Trains a small network with an optimizer of `hvd.DistributedOptimizer` and `fit`."""
    net = ranks.small_net(keras, ranks.seed_of(rank))
    watch = ranks.Watch(directory, name, rank, lambda: model.weights(net))
    net.compile(optimizer, "mse", jit_compile=False)  # XLA knows nothing of Horovod, and says so
    from_root(net.variables)  # a new optimizer's own begin alike
    watch.note()
    inputs, targets = ranks.points(16 * ranks.STEPS, 1000 * (rank + 1))
    net.fit(watch.fed(inputs), targets, batch_size=16, shuffle=False, verbose=0, callbacks=[_Note(watch)])
    return watch.done()


def keras3(rank: int, directory: Path, trainings: dict[str, Any]) -> dict[str, Any]:
    """Trains with `hvd.DistributedOptimizer` on each optimizer of Keras 3 that it does not refuse.

    Puts into `trainings` what the section `keras3-weights` is to be.
    """
    makers = {f"keras3-{name}": ranks.OPTIMIZERS[name] for name in ("sgd-momentum", "adam")}
    makers["keras3-scaled"] = lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    makers["keras3"] = lambda: keras.optimizers.SGD(1.0)
    wrapped, refused = {}, {}
    for name, make in makers.items():
        try:
            wrapped[name] = hvd.DistributedOptimizer(make())
        except Exception as error:  # noqa: BLE001 - whatever it raises, the ranks do not train apart in silence
            refused[name] = one_line(error)
    plain = wrapped.pop("keras3", None)
    for name, optimizer in wrapped.items():
        with model.policy("mixed_float16" if name == "keras3-scaled" else "float32"):
            trainings[name] = _fitted(name, optimizer, rank, directory)
    if plain is None:
        return {"refused": refused}
    # Plain SGD with rate 1 subtracts the gradient, so that the weights show it.
    training = model.Training(7, optimizer=plain)
    before = model.weights(training.model)
    training.step(ranks.half_of(model.texts(ranks.JOINED, 11), rank))
    gradient = before - model.weights(training.model)
    ranks.save(directory, f"keras3-reduced-{rank}", gradient)
    return {"refused": refused, **ranks.gradient_report(training.model, gradient, before)}


def main(directory: Path) -> int:
    """Runs as one rank."""
    one_thread(tensorflow)
    tensorflow.get_logger().setLevel("ERROR")  # it warns of functions that are compiled anew
    hvd.init()
    rank = hvd.rank()
    report = {
        "rank": rank,
        "size": hvd.size(),
        "local_size": hvd.local_size(),
        **horovod_ways(hvd),
    }
    trainings: dict[str, Any] = {}
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "allreduce": lambda: allreduce(rank),
        "broadcast": lambda: broadcast(rank),
        "exchange": lambda: exchange(rank),
        "gradients": lambda: gradients(rank, directory),
        "weights": lambda: weights(rank, directory),
        "keras3": lambda: keras3(rank, directory, trainings),
        "keras3-weights": lambda: trainings,
    }
    good = run_sections(directory, process_number(rank), report, sections)
    if good:
        hvd.shutdown()
    return 0 if good else 1
