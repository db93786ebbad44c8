"""Matrices of any size for the tests of what is emitted; judged by nobody."""

from __future__ import annotations

import json
from pathlib import Path

from builder.matrix import Cell
from builder.matrix.declare import declare
from builder.matrix.expand import expand
from builder.source import parse

REPOSITORY = "registry.example/secret-owner"


def some_cells(versions: int, cudas: tuple[str, ...], pythons: tuple[str, ...], extras: int) -> tuple[Cell, ...]:
    """The product of so many values; the number of extras is 0 to `extras` - 1 of them in a cell."""
    names = [f"extra{number}" for number in range(extras)]
    document = {
        "version": 1,
        "repository": REPOSITORY,
        "axes": {
            "framework": [f"torch==2.{minor}.0" for minor in range(versions)],
            "cuda": list(cudas),
            "python": list(pythons),
            "extras": [[name] for name in names],
        },
        "bases": {
            "slim": {"image": "debian:bookworm-slim", "python": list(pythons)},
            "devel": {"image": "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04", "python": list(pythons)},
        },
        "frameworks": {"torch": {"image": "pytorch", "template": "t.j2", "channels": dict.fromkeys(cudas, "any")}},
        "channels": {"any": "https://wheels.example/simple"},
        "extras": {name: {"packages": [name], "named": True} for name in names},
        "defaults": {"base": "slim"},
        "overrides": [{"match": "*-cuda13*", "set": {"base": "devel"}}] if "13.0" in cudas else [],
        "tags": ["{version}-{cuda}-py{python}{extras}"],
    }
    matrix = expand(declare(parse(json.dumps(document), "m.yaml")), Path("m.yaml"))
    return matrix.cells


def six_hundred() -> tuple[Cell, ...]:
    """600 cells in 120 environments on CPUs."""
    found = some_cells(40, ("cpu",), ("3.10", "3.11", "3.12"), 5)
    assert len(found) == 600
    return found
