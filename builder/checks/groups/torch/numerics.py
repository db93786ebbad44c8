# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The numeric libraries on the CPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "torch.numerics",
    level="cpu",
    deadline=120,
    catches="A numeric library that is shadowed by another file or version, or that computes wrong numbers.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _libraries, _numerics

    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # so that OpenMP has to share the work out
    try:
        measured = _numerics.examine("cpu")
    finally:
        torch.set_num_threads(threads)
    # Afterwards: some libraries are loaded when they are first needed.
    return {**measured, **_libraries.numeric_libraries(torch)}
