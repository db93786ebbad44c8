# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The compiler of torch against its interpreter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from builder.checks import language, training
from builder.checks.contract import NotRun, expect

#: Per device, the variable that names a compiler and the compilers that are looked for without it.
COMPILERS = {"cpu": ("CXX", ("g++", "c++", "clang++")), "cuda": ("CC", ("cc", "gcc", "clang"))}
#: Terms of the longest sum in the model: the inputs of `Block.down`.
LONGEST = 4 * language.WIDTH


def bound() -> float:
    """How far a compiled gradient may be from the eager one, relative to its norm.

    Both compute in float32 and differ in the order of sums and in what is fused. A gradient is a product of 3K
    results as in `training.gradient_bound`, each a sum of at most `LONGEST` terms and so off by at most that many
    roundings; the sum over the batch adds one rounding per prediction. Two results make twice the error.
    """
    roundings = 3 * language.ROUNDINGS * LONGEST + training.BATCH * language.PREDICTIONS
    return 2 * roundings * training.UNIT_ROUNDOFF[torch.float32]


def compiler(device: str) -> str:
    """The compiler that torch will use; NotRun where there is none, since then nothing was promised."""
    variable, names = COMPILERS[device]
    named = os.environ.get(variable)
    for name in (named,) if named else names:
        found = shutil.which(name)
        if found:
            return found
    raise NotRun(f"no C compiler ({', '.join((named,) if named else names)}): the image does not promise torch.compile")


@contextmanager
def _fresh_cache() -> Iterator[Path]:
    """An empty directory for everything that torch compiles meanwhile."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            os.environ[name] = str(Path(directory) / name.lower())
        try:
            yield Path(directory)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def compare(device: str) -> dict[str, Any]:
    """Loss and gradient of the compiled model against those of the same model as it is written."""
    path = compiler(device)
    batch = language.texts(training.BATCH, 13, device)
    eager = training.new_training(10, device)
    eager_loss = eager.loss(batch)
    eager_loss.backward()
    expected = training.gradient(eager.model)

    with _fresh_cache() as cache:
        import torch._inductor.config as inductor

        inductor.compile_threads = 1  # no pool of processes for one small model
        torch._dynamo.reset()
        one = training.new_training(10, device)
        compiled = torch.compile(one.model, fullgraph=True)
        loss = language.loss_of(compiled(batch[:, :-1]), batch)
        loss.backward()
        sources = [found for found in cache.rglob("*") if found.is_file()]
        torch._dynamo.reset()
    expect(bool(sources), "torch.compile compiled nothing: it ran the model as it is written")
    error = training.relative_error(training.gradient(one.model), expected)
    limit = bound()
    expect(error <= limit, f"the compiled gradient differs from the eager one by {error:.2e}, bound {limit:.2e}")
    difference = abs(float(loss.item()) - float(eager_loss.item())) / abs(float(eager_loss.item()))
    expect(difference <= limit, f"the compiled loss differs from the eager one by {difference:.2e}, bound {limit:.2e}")
    return {"compiler": path, "files": len(sources), "gradient_error": error, "loss_error": difference, "bound": limit}
