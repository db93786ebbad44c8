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
from command import Built

from builder.check import CheckOutcome, Status
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run
from builder.matrix import Level
from builder.runs import event_file, latest
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


def test_tensorboard_reads_exactly_the_numbers_that_were_written(engine: Engine, good_image: str) -> None:
    data = event_file(CHECKS, STARTED)
    assert data is not None
    read = read_by_tensorboard(engine, good_image, NAME, data)
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


def test_tensorboard_refuses_a_record_whose_checksum_is_wrong(engine: Engine, good_image: str) -> None:
    """The twin of the test above: what it read there, it read because the checksums are right."""
    data = event_file(CHECKS[1:], STARTED)
    assert data is not None
    whole = read_by_tensorboard(engine, good_image, NAME, data)
    assert len(whole["scalars"]["horovod.weights/allreduce_seconds"]) == 2
    damaged = bytearray(data)
    damaged[-5] ^= 1  # the last byte of the last record's data
    cut = read_by_tensorboard(engine, good_image, NAME, bytes(damaged))
    assert len(cut["scalars"]["horovod.weights/allreduce_seconds"]) == 1


def test_a_real_check_leaves_a_directory_that_says_the_same_everywhere(engine: Engine, built: Built) -> None:
    """The one that ran when the image was built."""
    outcome = built.cell("torch-2.13.0-cpu-py3.11-horovod")
    runs = Path(built.environment["IMGBUILD_STATE_DIR"]) / "runs"
    stored = latest(runs, image_id=outcome["image_id"])[-1]
    run, path = stored.run, stored.path
    assert json.loads((path / "result.json").read_bytes())["nonce"] == run.nonce
    assert [found.name for found in run.checks] == [check["name"] for check in outcome["checks"]]
    assert (run.status.value, run.reached) == ("passed", Level.CPU)
    suite = ET.parse(path / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("tests") == str(len(run.checks) + 1)
    assert (path / "summary.md").read_text().count("| passed |") >= 1
    assert json.loads((path / "statement.json").read_bytes())["_type"] == "https://in-toto.io/Statement/v1"
    curves = {f"{found.name}/{name}": curve for found in run.checks for name, curve in found.series.items()}
    assert any(tag.startswith("torch.train.") and tag.endswith("/loss") for tag in curves)
    (events,) = (path / "events").iterdir()
    read = read_by_tensorboard(engine, str(outcome["image_id"]), events.name, events.read_bytes())
    for tag, curve in curves.items():
        values = [value for _, _, value in read["scalars"].get(tag, [])]
        assert [as_float32(value) for value in values] == [as_float32(value) for value in curve], tag
