"""The directory of a real check, and its event files as TensorBoard itself reads them."""

from __future__ import annotations

import json
import math
import struct
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from builder.check import CheckOutcome, Status, check_image
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run
from builder.engine.images import inspect
from builder.matrix import Level
from builder.runs import event_file, latest, run_of, write_run
from builder.runs.events import single

pytestmark = pytest.mark.engine

# TensorBoard stops without an error at the first record that is damaged; what it has read until then is written down.
_READER = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
accumulator = EventAccumulator("/imgbuild-check/events", size_guidance={"scalars": 0})
accumulator.Reload()
tags = accumulator.Tags()["scalars"]
found = {tag: [[event.step, event.wall_time, event.value] for event in accumulator.Scalars(tag)] for tag in tags}
with open("/imgbuild-check/results/read.json", "w") as stream:
    json.dump({"scalars": found, "version": accumulator.file_version}, stream)
"""


@pytest.fixture(scope="session")
def trained_image(engine: Engine, request: pytest.FixtureRequest) -> str:
    """Id of an image with TensorBoard. Which one does not matter: one that was built here before saves minutes."""
    image = inspect(engine, "imgbuild/pytorch:latest")
    return image.id if image is not None else str(request.getfixturevalue("good_image"))


def read_by_tensorboard(engine: Engine, image: str, name: str, data: bytes) -> dict[str, Any]:
    result = run(
        engine,
        RunRequest(
            image=image,
            command=("python3", "/imgbuild-check/read.py"),
            tmpfs={"/tmp": "rw,mode=1777,size=64m"},
            user="12345:12345",
            files={"read.py": _READER.encode(), f"events/{name}": data},
            output=("read.json",),
            output_cap_bytes=4 << 20,
            deadline=120,
        ),
    )
    assert result.exit_code == 0, result.log_tail
    found: dict[str, Any] = json.loads(result.outputs["read.json"])
    return found


def as_float32(value: float) -> bytes:
    """The 32 bits of a number; equal for nan too."""
    return struct.pack("<f", math.nan if math.isnan(value) else single(value))


STRANGE = (0.0, -0.0, 1.0, 0.1, -2.5e-3, 1e-45, 1.17549435e-38, 3.4028234663852886e38, 1e39, -1e300, math.inf, math.nan)
CHECKS = (
    CheckOutcome(
        name="torch.train.amp",
        level=Level.CPU,
        status=Status.PASSED,
        reason="",
        seconds=6.0,
        measured={},
        series={
            "loss": STRANGE,
            "step_seconds": tuple(0.01 * (step + 1) for step in range(len(STRANGE))),
            "loss_scale": tuple(65536.0 / 2**step for step in range(300)),
        },
    ),
    CheckOutcome(
        name="horovod.weights",
        level=Level.CPU,
        status=Status.FAILED,
        reason="because",
        seconds=2.0,
        measured={},
        series={"allreduce_seconds": (0.25, 0.125)},
    ),
)
STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
NAME = "events.out.tfevents.1795435200.imgbuild"


def test_tensorboard_reads_exactly_the_numbers_that_were_written(engine: Engine, trained_image: str) -> None:
    data = event_file(CHECKS, STARTED)
    assert data is not None
    read = read_by_tensorboard(engine, trained_image, NAME, data)
    assert read["version"] == 2.0
    written = {f"{check.name}/{name}": curve for check in CHECKS for name, curve in check.series.items()}
    assert set(read["scalars"]) == set(written)
    for tag, curve in written.items():
        events = read["scalars"][tag]
        assert [step for step, _, _ in events] == list(range(len(curve)))
        assert [as_float32(value) for _, _, value in events] == [as_float32(value) for value in curve], tag
        times = [time for _, time, _ in events]
        assert times == sorted(times)
        assert STARTED.timestamp() <= times[0] <= times[-1] <= STARTED.timestamp() + 8.0


def test_tensorboard_refuses_a_record_whose_checksum_is_wrong(engine: Engine, trained_image: str) -> None:
    """The twin of the test above: what it read there, it read because the checksums are right."""
    data = event_file(CHECKS[1:], STARTED)
    assert data is not None
    whole = read_by_tensorboard(engine, trained_image, NAME, data)
    assert len(whole["scalars"]["horovod.weights/allreduce_seconds"]) == 2
    damaged = bytearray(data)
    damaged[-5] ^= 1  # the last byte of the last record's data
    cut = read_by_tensorboard(engine, trained_image, NAME, bytes(damaged))
    assert len(cut["scalars"]["horovod.weights/allreduce_seconds"]) == 1


def test_a_real_check_leaves_a_directory_that_says_the_same_everywhere(
    engine: Engine, trained_image: str, tmp_path: Path
) -> None:
    check = check_image(engine, trained_image, None, deadline=600)
    assert check.result is not None, check.log_tail
    path = write_run(tmp_path, run_of(check, name="imgbuild/pytorch:latest", image_id=trained_image), check)
    assert json.loads((path / "result.json").read_bytes())["nonce"] == check.nonce
    (stored,) = latest(tmp_path, image_id=trained_image)
    assert stored.path == path
    assert [found.name for found in stored.run.checks] == [found.name for found in check.verdict.checks]
    assert stored.run.status is check.verdict.status
    suite = ET.parse(path / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("tests") == str(len(check.verdict.checks) + 1)
    assert (path / "summary.md").read_text().count(f"| {check.verdict.status.value} |") >= 1
    curves = {f"{found.name}/{name}": curve for found in check.verdict.checks for name, curve in found.series.items()}
    assert any(tag.startswith("torch.train.") and tag.endswith("/loss") for tag in curves)
    (events,) = (path / "events").iterdir()
    read = read_by_tensorboard(engine, trained_image, events.name, events.read_bytes())
    for tag, curve in curves.items():
        values = [value for _, _, value in read["scalars"].get(tag, [])]
        assert [as_float32(value) for value in values] == [as_float32(value) for value in curve], tag
