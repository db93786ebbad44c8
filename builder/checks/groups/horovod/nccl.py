# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two GPUs."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, NotRun, check
from builder.checks.groups.horovod import _ranks, launch_ranks


@check(
    "horovod.nccl",
    level="multi-gpu",
    deadline=240,
    catches="Two GPUs that do not train as one under Horovod: an NCCL that does not start, hangs, or adds up wrong.",
)
def run(launch: pair.Launch) -> Measured:
    built = launch.reports[0]["built"] if 0 in launch.reports else {}
    if not built.get("nccl"):
        raise NotRun("Horovod is built without NCCL")
    made = launch_ranks(**{_ranks.DEVICE: "cuda", "NCCL_DEBUG": "INFO"})
    if 0 in made.reports and made.reports[0]["gpus"] < 2:
        raise NotRun(f"two GPUs are needed, torch sees {made.reports[0]['gpus']}: docker run --gpus all")
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
