# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two Horovod processes does with Keras 2; TF_USE_LEGACY_KERAS is set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.tensorflow.keras as hvd
import numpy
import tensorflow
from horovod.tensorflow import DistributedGradientTape

from builder.checks import grammar
from builder.checks.contract import expect
from builder.checks.groups.tensorflow import _pair as ranks
from builder.checks.groups.tensorflow import one_thread
from builder.checks.rank_report import run_sections

keras: Any = tensorflow.keras


def _vector(values: Any) -> Any:
    return numpy.concatenate([numpy.asarray(value, numpy.float64).reshape(-1) for value in values])


def gradients(rank: int, directory: Path) -> dict[str, Any]:
    """Gradients of the smallest network: alone, of the joined batch, and with Horovod's tape."""
    where = keras.Model.__module__
    expect(where.startswith("tf_keras."), f"tensorflow.keras is {where} in spite of TF_USE_LEGACY_KERAS=1")
    net = ranks.small_net(keras, 7)
    inputs, targets = ranks.points(ranks.JOINED, 11)

    def found(place: slice, *, together: bool) -> Any:
        with tensorflow.GradientTape() as tape:
            loss = tensorflow.reduce_mean((net(inputs[place]) - targets[place]) ** 2)
        if together:
            tape = DistributedGradientTape(tape)
        return _vector(tape.gradient(loss, net.trainable_variables))

    half = ranks.JOINED // 2
    own = slice(rank * half, (rank + 1) * half)
    ranks.save(directory, f"gradient-alone-{rank}", found(own, together=False))
    ranks.save(directory, f"gradients-reduced-{rank}", found(own, together=True))
    if rank == 0:
        ranks.save(directory, "gradient-joined-0", found(slice(None), together=False))
    # As `grammar.summation_bound`: the terms are the points of the batch and the widths of the layers.
    terms = ranks.JOINED + sum(int(numpy.prod(item.shape)) for item in net.trainable_variables)
    return {
        "parameters": sum(int(numpy.prod(item.shape)) for item in net.trainable_variables),
        "bound": 2 * terms * grammar.UNIT_ROUNDOFF["float32"],
    }


class _Note(keras.callbacks.Callback):
    """Notes the weights after every step of `fit`."""

    def __init__(self, watch: ranks.Watch) -> None:
        super().__init__()
        self._watch = watch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._watch.note()
        self._watch.report["losses"].append(float(logs["loss"]))


def weights(rank: int, directory: Path) -> dict[str, Any]:
    """Trains with `hvd.DistributedOptimizer`, `fit` and Horovod's callback, which acts after the first step."""
    makers: dict[str, Callable[[], Any]] = {
        "tf-keras-sgd-momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        "tf-keras-adam": lambda: keras.optimizers.Adam(0.01),
    }
    trained = {}
    for name, make in makers.items():
        net = ranks.small_net(keras, ranks.seed_of(rank))
        net.compile(hvd.DistributedOptimizer(make()), "mse")
        watch = ranks.Watch(directory, name, rank, lambda net=net: _vector(net.get_weights()))
        inputs, targets = ranks.points(16 * ranks.STEPS, 1000 * (rank + 1))
        callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0), _Note(watch)]
        net.fit(watch.fed(inputs), targets, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
        trained[name] = watch.done()
    return trained


def main(directory: Path) -> int:
    """Runs as one rank."""
    one_thread(tensorflow)
    tensorflow.get_logger().setLevel("ERROR")  # it warns of functions that are compiled anew
    hvd.init()
    rank = hvd.rank()
    report = {"rank": rank, "size": hvd.size()}
    sections = {"gradients": lambda: gradients(rank, directory), "weights": lambda: weights(rank, directory)}
    good = run_sections(directory, int(os.environ.get("HOROVOD_RANK", rank)), report, sections)
    if good:
        hvd.shutdown()
    return 0 if good else 1
