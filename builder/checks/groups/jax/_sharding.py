# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Meshes of devices, and the name under which a release has `shard_map`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy
from jax.sharding import Mesh, PartitionSpec


def mesh_of(devices: Any, axis: str) -> Mesh:
    """One axis over these devices."""
    return Mesh(numpy.array(devices), (axis,))


def shard_map(function: Callable[..., Any], mesh: Mesh, inputs: Any, outputs: Any) -> Callable[..., Any]:
    """`jax.shard_map`, which releases before 0.6 have as an experiment."""
    made = getattr(jax, "shard_map", None)
    if made is None:
        made = importlib.import_module("jax.experimental.shard_map").shard_map
    return made(function, mesh=mesh, in_specs=inputs, out_specs=outputs)


def summed(mesh: Mesh, axis: str) -> Callable[..., Any]:
    """A compiled function that adds up the parts of its argument over an axis; each device keeps the sum."""
    part = PartitionSpec(axis)
    return jax.jit(shard_map(lambda values: jax.lax.psum(values, axis), mesh, part, part))
