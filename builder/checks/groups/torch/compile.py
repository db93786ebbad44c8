# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""torch.compile on the CPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "torch.compile",
    level="cpu",
    deadline=600,
    optional=True,
    catches="A compiler that does not work for torch.compile, or makes of a model something else than was written.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _compiled

    return _compiled.compare("cpu")
