"""What the suite said of images on this machine, so that nothing unchanged is checked twice.

A run is remembered by image id, suite, level and user. The suite's own result is kept, not a verdict: the verdict is
made again from it with what the cell expects today.
"""

from __future__ import annotations

from builder.check import (
    DEFAULT_USER,
    CheckRun,
    Expectation,
    NoResult,
    VerdictStatus,
    judge,
    parse_result,
    required_checks,
    suite,
)
from builder.matrix import Cell
from builder.plan import Remembered
from builder.records import Records
from builder.render import Recipe

CHECKS = "checks"
"""The kind of record that remembers runs of the suite."""


def expectation(recipe: Recipe) -> Expectation:
    """What an image must be to pass as this cell: the pins, what must be installed, and the checks that must run."""
    cell = recipe.cell
    packages = (package for extra in cell.extras for package in extra.packages)
    promised = frozenset({cell.framework.name, "pip", *packages})
    return Expectation(
        packages=recipe.constraints,
        promised=promised,
        python=cell.python,
        cuda=cell.cuda,
        level=cell.verify,
        required=required_checks(promised),
    )


class CheckMemory:
    """Remembers runs of the suite on this machine.

    Args:
        records: where.
        user: who the check runs as. A check as another user, such as root, says nothing about this one.
    """

    def __init__(self, records: Records, user: str = DEFAULT_USER) -> None:
        self._records = records
        self._user = user
        self._suite = suite().sha256

    def _key(self, image_id: str, cell: Cell) -> str:
        return f"{image_id} {self._suite} {cell.verify.value} {self._user}"

    def put(self, image_id: str, cell: Cell, run: CheckRun) -> None:
        """Remembers one run of the suite.

        Raises:
            StateError: it cannot be written.
        """
        document = {
            "image_id": image_id,
            "suite": self._suite,
            "level": cell.verify.value,
            "user": self._user,
            "nonce": run.nonce,
            "result": run.raw.decode("utf-8") if run.result is not None else None,
            "reasons": list(run.verdict.reasons),
        }
        self._records.put(CHECKS, self._key(image_id, cell), document)

    def get(self, recipe: Recipe, image_id: str) -> Remembered | None:
        """What the last run on this image comes to, judged by what the cell expects today; None when there was none."""
        document = self._records.get(CHECKS, self._key(image_id, recipe.cell))
        if document is None or document.get("image_id") != image_id:
            return None
        raw, nonce = document.get("result"), document.get("nonce")
        if not isinstance(raw, str) or not isinstance(nonce, str):
            reasons = document.get("reasons")
            reason = str(reasons[0]) if isinstance(reasons, list) and reasons else "it gave no result"
            return Remembered(passed=False, reason=reason)
        try:
            verdict = judge(expectation(recipe), parse_result(raw.encode(), nonce, suite().checks))
        except NoResult as error:
            return Remembered(passed=False, reason=error.message)
        if verdict.status is VerdictStatus.PASSED:
            return Remembered(passed=True)
        return Remembered(passed=False, reason=verdict.reasons[0] if verdict.reasons else verdict.status.value)
