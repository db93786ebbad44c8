# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two workers of a MultiWorkerMirroredStrategy does: it computes and writes down, the group compares."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy
import tensorflow

from builder.checks.groups.tensorflow import _model as model
from builder.checks.groups.tensorflow import _pair as ranks
from builder.checks.groups.tensorflow import one_thread
from builder.checks.rank_report import run_sections


def _step(strategy: Any, net: Any, optimizer: Any, loss_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step of this worker on its part of a batch; the strategy adds up what `apply` is given by all workers."""

    def one(batch: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            loss = loss_of(batch) / strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
        return loss

    return tensorflow.function(lambda batch: strategy.run(one, args=(batch,)))


def _weights(net: Any) -> Any:
    return numpy.concatenate([numpy.asarray(value, numpy.float64).reshape(-1) for value in net.get_weights()])


def gradients(strategy: Any, rank: int, directory: Path) -> dict[str, Any]:
    """Gradients of the transformer: alone, of the joined batch, and of both workers through plain SGD with rate 1."""
    half = ranks.halves(directory, rank)
    with strategy.scope():
        net, optimizer = model.new_model(7), keras.optimizers.SGD(1.0)
        optimizer.build(net.trainable_variables)
    before = _weights(net)
    step = _step(strategy, net, optimizer, lambda batch: model.loss_of(net(batch[:, :-1]), batch))
    step(tensorflow.constant(half))
    found = before - _weights(net)
    ranks.save(directory, f"gradients-reduced-{rank}", found)
    return ranks.gradient_report(net, found, before)


def weights(strategy: Any, rank: int, directory: Path) -> dict[str, Any]:
    """Trains the smallest network with each optimizer. A strategy gives all workers the values of the first."""
    trained = {}
    for name, make in ranks.OPTIMIZERS.items():
        seeded = ranks.small_net(keras, ranks.seed_of(rank))
        watch = ranks.Watch(directory, name, rank, lambda net=seeded: _weights(net))
        with strategy.scope():
            net, optimizer = ranks.small_net(keras, ranks.seed_of(rank)), make()
            optimizer.build(net.trainable_variables)
        watch.follow(lambda net=net: _weights(net))
        watch.note()

        def error(batch: Any, net: Any = net) -> Any:
            return tensorflow.reduce_mean((net(batch[:, :-1]) - batch[:, -1:]) ** 2)

        step = _step(strategy, net, optimizer, error)
        points = numpy.hstack(ranks.points(16 * ranks.STEPS, 1000 * (rank + 1)))
        for batch in numpy.split(points, ranks.STEPS):
            watch.report["losses"].append(float(step(tensorflow.constant(watch.fed(batch)))))
            watch.note()
        trained[name] = watch.done()
    return trained


def main(directory: Path) -> int:
    """Runs as one worker."""
    one_thread(tensorflow)
    tensorflow.get_logger().setLevel("ERROR")
    rank = int(json.loads(os.environ["TF_CONFIG"])["task"]["index"])
    kind = tensorflow.distribute.experimental.CommunicationImplementation[os.environ["IMGBUILD_COLLECTIVES"]]
    options = tensorflow.distribute.experimental.CommunicationOptions(implementation=kind)
    strategy = tensorflow.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    report = {"rank": strategy.cluster_resolver.task_id, "size": strategy.num_replicas_in_sync}
    sections = {
        "gradients": lambda: gradients(strategy, rank, directory),
        "weights": lambda: weights(strategy, rank, directory),
    }
    return 0 if run_sections(directory, rank, report, sections) else 1
