# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two GPUs."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, NotRun, check
from builder.checks.groups.torch_ddp import _ranks, expect_built, launch_ranks


@check(
    "torch.ddp.nccl",
    level="multi-gpu",
    deadline=240,
    catches="Two GPUs that do not train as one: an NCCL that does not start, hangs, or adds up something else.",
)
def run(launch: pair.Launch) -> Measured:
    made = launch_ranks("nccl", "cuda", NCCL_DEBUG="INFO")
    if 0 in made.reports:
        built, gpus = made.reports[0]["built"], made.reports[0]["gpus"]
        if not built["nccl"] and not gpus:
            raise NotRun("torch is built without NCCL, and no GPU was given to the check")
        if gpus < 2:
            raise NotRun(f"two GPUs are needed, torch sees {gpus}: docker run --gpus all")
        expect_built(made, "nccl")
    pair.expect_ranks(made, _ranks.SECTIONS)
    reduced = pair.expect_reduced(made)
    pair.expect_broadcast(made)
    gradients = pair.expect_gradients(made)
    pair.expect_gradients(made, "accumulate")
    weights = pair.expect_weights(made)
    return {
        **gradients,
        "reductions": reduced["reductions"],
        "optimizers": weights["optimizers"],
        "transport": pair.nccl_paths(made),
        "series": {**reduced["series"], **weights["series"]},
    }
