# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What one of two ranks computes with torch, and writes down for `pair` to compare.

Nothing that is compared between the ranks travels through what reduces.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from builder.checks import language, training
from builder.checks.rank_report import Section as Section
from builder.checks.rank_report import run_sections as run_sections

#: Sequences of the joined batch; each rank gets its half.
JOINED = 32
#: Steps of each training; the weights are compared after every one.
STEPS = 4
#: Reductions of a vector as large as the model that are timed.
TIMED = 20

#: What a rank makes its optimizers with: with and without momentum, moments and decay.
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=training.RATE),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=training.RATE, weight_decay=0.01),
}


def save(directory: Path, name: str, vector: torch.Tensor) -> str:
    """Writes a vector as raw float32 and returns its hash. Needs no NumPy, which an image may lack."""
    plain = vector.detach().to("cpu", torch.float32).contiguous().reshape(-1)
    data = ctypes.string_at(plain.data_ptr(), plain.numel() * 4)
    (directory / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def halves(directory: Path, rank: int, device: str) -> torch.Tensor:
    """This rank's half of the joined batch; writes its gradient, and in rank 0 that of the joined batch."""
    joined = language.texts(JOINED, 11, device)
    half = joined.chunk(2)[rank]
    alone = training.new_training(7, device)
    alone.loss(half).backward()
    save(directory, f"gradient-alone-{rank}", training.gradient(alone.model))
    if rank == 0:
        whole = training.new_training(7, device)
        whole.loss(joined).backward()
        save(directory, "gradient-joined-0", training.gradient(whole.model))
    return half


def gradient_report(model: torch.nn.Module) -> dict[str, Any]:
    """What the parent needs to know of a reduced gradient beside its file."""
    return {
        "parameters": sum(item.numel() for item in model.parameters()),
        "bound": training.summation_bound(JOINED, condition=1.0),
    }


class Watch:
    """Keeps the hash of a model's weights before a training and after each of its steps."""

    def __init__(self, directory: Path, name: str, rank: int, seeded: torch.nn.Module) -> None:
        self.directory, self.name, self.rank = directory, name, rank
        self.report: dict[str, Any] = {"seeded": self._save("seeded", seeded), "steps": [], "losses": []}
        self.data = hashlib.sha256()

    def _save(self, when: str, model: torch.nn.Module) -> str:
        return save(self.directory, f"weights-{self.name}-{when}-{self.rank}", training.weights(model))

    def note(self, model: torch.nn.Module) -> None:
        """Takes the weights as they are now, the first time for those that all ranks begin with."""
        self.report["steps"].append(self._save("last" if self.report["steps"] else "first", model))

    def texts(self, step: int, device: str) -> torch.Tensor:
        """The batch of this rank and step, other ones in every rank."""
        batch = language.texts(training.BATCH, 1000 * (self.rank + 1) + step, device)
        self.data.update(repr(batch.tolist()).encode())
        return batch

    def done(self) -> dict[str, Any]:
        """The report, as `pair.expect_weights` reads it."""
        return {**self.report, "data": self.data.hexdigest()}


def seed_of(rank: int) -> int:
    """Another one in each rank, so that equal weights can only come from a broadcast."""
    return 20 + rank
