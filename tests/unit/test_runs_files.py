"""The directory of a run: what is in it, whole or absent, bounded, and read back."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from some_runs import CHECKS, IMAGE, STARTED, a_run, check_run, failed, outcome

from builder.check import Status, VerdictStatus
from builder.errors import StateError
from builder.runs import KEEP, add, event_file, latest, place, read_run, runs_directory, write_run


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs", a_run(), check_run())
    assert path.name == f"20261123T120000Z-torch-2.13.0-cu126-py3.11-{IMAGE[7:19]}"
    assert names(path) == ["events", "junit.xml", "log.txt", "result.json", "run.json", "summary.md"]
    assert (path / "result.json").read_bytes() == check_run().raw
    assert (path / "log.txt").read_text() == "one line\n"
    assert ET.parse(path / "junit.xml").getroot().get("tests") == "5"
    assert (path / "summary.md").read_text().startswith("### imgbuild check\n")
    (events,) = (path / "events").iterdir()
    assert events.read_bytes() == event_file(CHECKS, STARTED)
    document = json.loads((path / "run.json").read_bytes())
    assert document["schema"] == "imgbuild.run/1"
    assert document["nonce"] == "0123456789abcdef"
    assert document["image_id"] == IMAGE
    assert document["content_id"] == "c" * 64
    assert document["cell"] == "torch-2.13.0-cu126-py3.11"
    assert document["suite"] == "5" * 64
    assert (document["level"], document["reached"], document["verdict"]) == ("cpu", "cpu", "passed")
    assert document["required"] == {"public": "cpu", "verified": "gpu", "max_age_days": 30}
    assert document["seconds"] == 4.5
    assert document["environment"]["engine"] == "20.10.24"
    assert [check["name"] for check in document["checks"]] == [check.name for check in CHECKS]


def test_a_refused_result_is_not_called_a_result(tmp_path: Path) -> None:
    checks = (outcome("run.result", Status.FAILED, "the result is no JSON"),)
    refused = check_run(
        checks, status=VerdictStatus.FAILED, reasons=("no",), reached=None, raw=b"\x00forged", readable=False
    )
    path = write_run(tmp_path, a_run(refused), refused)
    assert names(path) == ["junit.xml", "log.txt", "result.refused", "run.json", "summary.md"]
    assert (path / "result.refused").read_bytes() == b"\x00forged"
    nothing = replace(refused, raw=b"", log_tail="")
    assert names(write_run(tmp_path, a_run(nothing), nothing)) == ["junit.xml", "run.json", "summary.md"]


def test_a_log_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    path = write_run(tmp_path, a_run(), check_run(log="\x1b]0;title\x07 red\tcell\nénd\ud800"))
    assert (path / "log.txt").read_bytes().decode() == "\ufffd]0;title\ufffd red\tcell\nénd\ufffd"


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    curve = {"loss": (4.0, math.inf, -math.inf, 0.1), "loss_scale": ()}
    measured = {"text": "a\nb", "number": 3, "real": 0.1, "flag": True, "nothing": None}
    run = a_run(failed(outcome("torch.train.amp", Status.FAILED, "é | <x>", series=curve, measured=measured)))
    assert read_run(write_run(tmp_path, run, failed())) == run
    plain = a_run(policy=None, content_id="", digest="sha256:" + "d" * 64)
    assert read_run(write_run(tmp_path, plain, check_run())) == plain


def test_numbers_that_are_none_stay_so(tmp_path: Path) -> None:
    run = a_run(check_run([outcome("a.b", series={"loss": (math.nan,)}, measured={"worst": math.inf})]))
    path = write_run(tmp_path, run, check_run())
    found = read_run(path)
    assert found is not None
    assert math.isnan(found.checks[0].series["loss"][0])
    assert found.checks[0].measured == {"worst": "inf"}
    # Strict JSON, which other readers want.
    json.loads((path / "run.json").read_bytes(), parse_constant=lambda word: pytest.fail(word))


@pytest.mark.parametrize("name", ["ghcr.io/a/b:tag@sha256:0", "../../etc/passwd", "a b\nc", "é" * 300])
def test_a_name_of_any_kind_stays_in_the_directory(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path, a_run(name=name), check_run())
    assert path.parent == tmp_path
    assert [stored.path for stored in latest(tmp_path, name=name)] == [path]


def test_runs_of_one_second_keep_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, a_run(), check_run()) for _ in range(3)]
    assert len(set(paths)) == 3
    assert paths[1].name == f"{paths[0].name}-2"
    assert [stored.path for stored in latest(tmp_path)] == paths[::-1]


def test_several_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    written: list[Path] = []
    threads = [
        threading.Thread(target=lambda: written.append(write_run(tmp_path, a_run(), check_run(), keep=KEEP)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(written)) == 8
    assert len(latest(tmp_path)) == 8
    assert names(tmp_path) == sorted(path.name for path in written)


def later(days: int) -> dict[str, object]:
    return {"started": STARTED + timedelta(days=days)}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / "20200101T000000Z").mkdir()
    (tmp_path / "notes").mkdir()
    paths = [write_run(tmp_path, a_run(**later(day)), check_run(), keep=3) for day in range(5)]
    assert names(tmp_path) == sorted(["20200101T000000Z", "notes", *(path.name for path in paths[2:])])


def test_in_a_chosen_directory_nothing_is_removed(tmp_path: Path) -> None:
    for day in range(KEEP + 1):
        write_run(tmp_path, a_run(**later(day)), check_run())
    assert len(names(tmp_path)) == KEEP + 1


def test_what_a_link_points_to_is_not_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    runs = tmp_path / "runs"
    write_run(runs, a_run(), check_run())
    (runs / "20200101T000000Z-link").symlink_to(precious)
    write_run(runs, a_run(**later(1)), check_run(), keep=1)
    assert (precious / "file").read_text() == "x"
    assert len(latest(runs)) == 1


_WRITER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from some_runs import a_run, check_run
from builder.runs import write_run
if sys.argv[3] == "kill":
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_run(Path(sys.argv[2]), a_run(), check_run())
"""


@pytest.mark.parametrize(("mode", "status", "found"), [("kill", -signal.SIGKILL, 0), ("live", 0, 1)])
def test_a_killed_writer_leaves_no_run(tmp_path: Path, mode: str, status: int, found: int) -> None:
    here = str(Path(__file__).parent)
    ended = subprocess.run([sys.executable, "-c", _WRITER, here, str(tmp_path), mode], check=False)
    assert ended.returncode == status
    assert len(latest(tmp_path)) == found


def test_what_a_killed_writer_left_is_removed_a_day_later(tmp_path: Path) -> None:
    old, fresh = (tmp_path / f".20261123T120000Z-cell-{name}.tmp" for name in ("old", "fresh"))
    for path in (old, fresh):
        path.mkdir()
        (path / "run.json").write_text("{")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    write_run(tmp_path, a_run(), check_run(), keep=5)
    assert not old.exists()
    assert fresh.exists()


def test_a_failed_write_leaves_nothing_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateError, match=f"cannot be written to {tmp_path}: No space left.*\n.*--runs"):
            write_run(tmp_path, a_run(), check_run())
    assert names(tmp_path) == []
    write_run(tmp_path, a_run(), check_run())
    assert len(names(tmp_path)) == 1


def test_a_place_that_is_no_directory_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        write_run(tmp_path / "file", a_run(), check_run())
    with pytest.raises(StateError, match="cannot be read"):
        latest(tmp_path / "file")


def test_files_are_added_to_a_run(tmp_path: Path) -> None:
    path = write_run(tmp_path, a_run(), check_run())
    for name in ("statement.json", "bundle.json", "sbom.json", "provenance.json"):
        assert add(path, name, name.encode()) == path / name
    assert (path / "bundle.json").read_bytes() == b"bundle.json"
    add(path, "bundle.json", b"again")
    assert (path / "bundle.json").read_bytes() == b"again"


@pytest.mark.parametrize("name", ["run.json", "events", "junit.xml", "../x", "a/b", "", ".hidden", "X.json"])
def test_files_of_other_names_are_not_added(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path, a_run(), check_run())
    with pytest.raises(ValueError, match="is no name"):
        add(path, name, b"x")


def test_nothing_is_added_to_a_run_that_was_removed(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="was removed"):
        add(tmp_path / "gone", "bundle.json", b"x")
    assert names(tmp_path) == []


def test_runs_are_found_by_image_by_content_by_name_and_by_time(tmp_path: Path) -> None:
    other = "sha256:" + "cd" * 32
    first = write_run(tmp_path, a_run(), check_run())
    same_content = write_run(tmp_path, a_run(image_id=other, **later(1)), check_run())
    foreign = write_run(tmp_path, a_run(image_id=other, content_id="d" * 64, name="n", **later(2)), check_run())

    def found(**asked: object) -> list[Path]:
        return [stored.path for stored in latest(tmp_path, **asked)]  # type: ignore[arg-type]

    assert found() == [foreign, same_content, first]
    assert found(image_id=IMAGE) == [first]
    assert found(image_id=other) == [foreign, same_content]
    assert found(content_id="c" * 64) == [same_content, first]
    assert found(image_id=IMAGE, content_id="d" * 64) == [foreign, first]
    assert found(image_id="sha256:0") == []
    assert found(name="n") == [foreign]
    assert found(since=STARTED + timedelta(days=1, seconds=0.7)) == [foreign, same_content]
    assert found(limit=1) == [foreign]


def test_only_in_the_state_directory_runs_are_bounded(tmp_path: Path) -> None:
    assert place(tmp_path, None) == (tmp_path / "runs", KEEP)
    assert place(tmp_path, tmp_path / "mine") == (tmp_path / "mine", None)


def test_without_a_directory_there_are_no_runs(tmp_path: Path) -> None:
    assert latest(runs_directory(tmp_path)) == ()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("schema", "imgbuild.run/9", "of schema 'imgbuild.run/9'"),
        ("image_id", 5, "run.image_id is not a text"),
        ("level", "high", "run.level is none of static, cpu"),
        ("verdict", None, "run.verdict is none of passed, failed, incomplete"),
        ("started", "2026-11-23T12:00:00", "no offset"),
        ("seconds", -1, "run.seconds is not a number from 0"),
        ("checks", {}, "run.checks is not a list"),
        ("checks", [{"name": "a"}], "measured is not an object"),
        ("required", {"public": "cpu"}, "required.verified"),
        ("environment", {"cpu": 1}, "environment is not a text"),
        ("reasons", [1], "run.reasons is not a text"),
    ],
)
def test_a_damaged_run_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, value: object, said: str
) -> None:
    path = write_run(tmp_path, a_run(), check_run())
    document = json.loads((path / "run.json").read_bytes())
    (path / "run.json").write_text(json.dumps(document))
    assert len(latest(tmp_path)) == 1
    (path / "run.json").write_text(json.dumps({**document, field: value}))
    with caplog.at_level(logging.WARNING):
        assert latest(tmp_path) == ()
    assert said in caplog.text
    assert str(path / "run.json") in caplog.text


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_a_run_that_is_no_document_is_left_out(tmp_path: Path, data: bytes) -> None:
    path = write_run(tmp_path, a_run(), check_run())
    (path / "run.json").write_bytes(data)
    assert latest(tmp_path) == ()
