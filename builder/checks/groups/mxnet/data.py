# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Loaders with worker processes."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect

ITEMS, BATCH = 300, 32


@check(
    "mxnet.data",
    level="cpu",
    deadline=90,
    catches="DataLoader workers that die or hand on wrong numbers: too little shared memory, another NumPy.",
)
def run(mxnet: Any) -> Measured:
    import numpy

    squares = numpy.arange(ITEMS, dtype="float32") ** 2
    items = mxnet.gluon.data.ArrayDataset(numpy.arange(ITEMS, dtype="float32"), squares)
    for workers in (0, 2):
        loader = mxnet.gluon.data.DataLoader(items, batch_size=BATCH, shuffle=True, num_workers=workers)
        numbers, targets = [], []
        for given, wanted in loader:
            numbers += given.asnumpy().tolist()
            targets += wanted.asnumpy().tolist()
        del loader
        expect(sorted(numbers) == list(range(ITEMS)), f"{workers} workers lost or doubled items")
        expect([number**2 for number in numbers] == targets, f"{workers} workers mixed the items up")
        expect(numbers != sorted(numbers), "a loader that was to shuffle did not")
    return {"items": ITEMS, "workers": 2}
