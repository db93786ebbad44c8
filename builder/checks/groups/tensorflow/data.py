# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Input pipelines."""

from __future__ import annotations

import tempfile
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.tensorflow import on_cpu

ITEMS = 1000
BATCH = 96
#: A batch of 72 MB: more than the shared memory that a container has by default.
LARGE = (18, 1000, 1000)


@check(
    "tensorflow.data",
    level="cpu",
    deadline=60,
    catches="Input pipelines that lose, double or damage items, or that cannot pass large batches.",
)
@on_cpu
def run(tensorflow: Any) -> Measured:
    import numpy

    def square(value: Any) -> Any:
        return value * value

    numbers = tensorflow.data.Dataset.range(ITEMS).shuffle(ITEMS, seed=1)
    batches = list(numbers.map(square, num_parallel_calls=4).batch(BATCH).prefetch(2).as_numpy_iterator())
    found = numpy.concatenate(batches)
    expect(
        [len(batch) for batch in batches[:-1]] == [BATCH] * (len(batches) - 1), "batches have other sizes than asked"
    )
    expect(sorted(found.tolist()) == [number * number for number in range(ITEMS)], "a pipeline lost or damaged items")
    expect(found.tolist() != sorted(found.tolist()), "a pipeline that was to shuffle did not")

    records = [bytes([number % 256]) * number for number in range(0, 3000, 100)]
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/items.tfrecord.gz"
        with tensorflow.io.TFRecordWriter(path, "GZIP") as writer:
            for record in records:
                writer.write(record)
        read = list(tensorflow.data.TFRecordDataset(path, "GZIP").as_numpy_iterator())
    expect(read == records, "a file of records is not read back as it was written")

    large = tensorflow.data.Dataset.range(2).map(
        lambda number: tensorflow.fill(LARGE, tensorflow.cast(number, "float32")), num_parallel_calls=2
    )
    seen = [(float(batch.min()), float(batch.max()), batch.nbytes) for batch in large.prefetch(1).as_numpy_iterator()]
    size = 4 * int(numpy.prod(LARGE))
    expect(seen == [(0.0, 0.0, size), (1.0, 1.0, size)], f"batches of {size} bytes came as {seen}")
    return {"items": ITEMS, "records": len(records), "largest_batch": size}
