# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What each of two JAX processes does: it computes and writes down, `builder.checks.pair` compares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from builder.checks import arrays, grammar, pair
from builder.checks.groups.jax import _model as model
from builder.checks.groups.jax import _sharding
from builder.checks.groups.jax_workers import ADDRESS, RANK
from builder.checks.rank_report import run_sections

#: Types that must be reduced. JAX has no 64-bit types unless they are switched on.
TYPES = ("float16", "bfloat16", "float32", "int32")
SECTIONS = ("allreduce", "broadcast", "gradients", "weights")
TIMED = 20
FLOAT32 = jnp.dtype("float32")


class Rank:
    """One process: its sections by name, as methods."""

    def __init__(self, rank: int, directory: Path) -> None:
        self.rank, self.directory = rank, directory
        self.mesh = _sharding.mesh_of(jax.devices(), "rank")

    def _spread(self, own: Any) -> Any:
        """An array over both processes, of which this one holds `own`."""
        return jax.make_array_from_process_local_data(NamedSharding(self.mesh, PartitionSpec("rank")), own)

    def _copied(self, tree: Any) -> Any:
        """An array that both processes hold whole."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(whole, numpy.asarray(leaf)), tree)

    def _everywhere(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Runs a function of this process's part in both processes; the result is again in parts."""
        part = PartitionSpec("rank")
        made = jax.jit(_sharding.shard_map(function, self.mesh, part, part))
        return lambda own: numpy.asarray(made(self._spread(own)).addressable_shards[0].data)

    def allreduce(self) -> dict[str, Any]:
        """Sums, averages and extremes in each type, and the time of sums of a vector as large as the model."""
        found: dict[str, Any] = {}
        numbers = pair.numbers(self.rank)
        for name in TYPES:
            operations = {"sum": jax.lax.psum, "max": jax.lax.pmax, "min": jax.lax.pmin}
            if name != "int32":
                operations["average"] = jax.lax.pmean
            own = numpy.asarray(numbers, jnp.dtype(name))[None]
            for word, operation in operations.items():
                reduce = self._everywhere(lambda part, operation=operation: operation(part, "rank"))
                found[f"{name} {word}"] = reduce(own)[0].astype("float64").tolist()
        large, seconds = numpy.ones((1, len(model.vector(model.new_model(0)))), "float32"), []
        total = _sharding.summed(self.mesh, "rank")
        for number in range(TIMED + 1):
            spread = self._spread(large)
            began = time.perf_counter()
            total(spread).block_until_ready()
            if number:  # the first one compiles
                seconds.append(round(time.perf_counter() - began, 6))
        return {"reductions": found, "refused": [], "allreduce_seconds": seconds}

    def broadcast(self) -> dict[str, Any]:
        """The numbers of either process."""
        found = {}
        for root in (0, 1):
            gather = self._everywhere(lambda part, root=root: jax.lax.all_gather(part, "rank")[root])
            found[f"root {root}"] = gather(numpy.asarray(pair.numbers(self.rank), "float32")[None])[0].tolist()
        return found

    def gradients(self) -> dict[str, Any]:
        """The gradient of a batch of which each process has its half, beside those of the halves and of the whole."""
        weights, joined = model.new_model(7), arrays.texts(arrays.JOINED, 11)
        half = arrays.half_of(joined, self.rank)

        def alone(batch: Any) -> Any:
            return model.vector(model.gradient_of(weights, batch, dtype=FLOAT32))

        arrays.save(self.directory, f"gradient-alone-{self.rank}", alone(half))
        if self.rank == 0:
            arrays.save(self.directory, "gradient-joined-0", alone(joined))
        reduced = jax.jit(jax.grad(model.loss_of))(self._copied(weights), self._spread(half))
        vector = model.vector(jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, reduced))
        arrays.save(self.directory, f"gradients-reduced-{self.rank}", vector)
        bound = grammar.summation_bound(arrays.JOINED, model.ROUNDINGS, condition=1.0)
        return {"parameters": len(vector), "bound": bound}

    def weights(self) -> dict[str, Any]:
        """Trains from the first process's weights and on other texts in each, in float32 and in bfloat16."""
        from jax.experimental import multihost_utils

        trained = {}
        for name in ("float32", "bfloat16"):
            seeded = model.new_model(arrays.seed_of(self.rank))
            watch = arrays.Watch(self.directory, f"adamw-{name}", self.rank, model.vector(seeded))
            copied = self._copied(multihost_utils.broadcast_one_to_all(seeded))
            state = self._copied(model.new_state(seeded))
            watch.note(self._vector(copied))
            for step in range(arrays.STEPS):
                batch = watch.fed(arrays.texts(grammar.BATCH, 1000 * (self.rank + 1) + step))
                spread = self._spread(batch)
                loss, copied, state = model.compiled_step(copied, state, spread, dtype=jnp.dtype(name))
                watch.report["losses"].append(float(loss.addressable_shards[0].data))
                watch.note(self._vector(copied))
            trained[f"adamw-{name}"] = watch.done()
        return trained

    def _vector(self, tree: Any) -> Any:
        return model.vector(jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree))


def main(directory: Path) -> int:
    """Runs as one process."""
    rank = int(os.environ[RANK])
    jax.distributed.initialize(os.environ[ADDRESS], num_processes=2, process_id=rank)
    report = {"rank": jax.process_index(), "size": jax.process_count()}
    own = Rank(rank, directory)
    good = run_sections(directory, rank, report, {name: getattr(own, name) for name in SECTIONS})
    if good:
        jax.distributed.shutdown()
    return 0 if good else 1
