"""The state directory: atomic files, locks that name their holder, sealed records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.errors import Interrupted, LockTimeout, StateError
from builder.records import FileLock, Records, state_directory, write_atomically


def test_state_directory_prefers_the_most_particular_setting() -> None:
    home = {"HOME": "/home/a"}
    assert state_directory(home) == Path("/home/a/.local/state/imgbuild")
    assert state_directory({**home, "XDG_STATE_HOME": "/s"}) == Path("/s/imgbuild")
    assert state_directory({**home, "XDG_STATE_HOME": "relative"}) == Path("/home/a/.local/state/imgbuild")
    assert state_directory({**home, "XDG_STATE_HOME": "/s", "IMGBUILD_STATE_DIR": "/i"}) == Path("/i")


_WRITER = """
import os, signal, sys
from pathlib import Path
from builder import records
real = os.fsync
def killed(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "kill":
    os.fsync = killed
records.write_atomically(Path(sys.argv[1]), b"new" * 100_000)
"""


@pytest.mark.parametrize(
    ("mode", "status", "content"), [("kill", -signal.SIGKILL, b"old"), ("live", 0, b"new" * 100_000)]
)
def test_killed_writer_leaves_the_old_content(tmp_path: Path, mode: str, status: int, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", _WRITER, str(path), mode], check=False)
    assert ended.returncode == status
    assert path.read_bytes() == content


def test_failed_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        write_atomically(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below", b"x")


_HOLDER = """
import sys
from pathlib import Path
from builder.records import FileLock
with FileLock(Path(sys.argv[1]), timeout=5):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_names_its_holder_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "cell.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LockTimeout, match=rf"process {holder.pid} on .+, since \d{{4}}-"),
            FileLock(path, timeout=0.1),
        ):
            pytest.fail("two processes hold one lock")
        holder.kill()
        holder.wait()
        with FileLock(path, timeout=5):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert path.read_text() == ""
    finally:
        holder.kill()
        holder.communicate()


def test_lock_waits_for_another_thread(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", list[str]()
    held, let_go = threading.Event(), threading.Event()

    def first() -> None:
        with FileLock(path, timeout=5):
            held.set()
            let_go.wait(5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(5)
    with pytest.raises(LockTimeout), FileLock(path, timeout=0):
        pytest.fail("two threads hold one lock")
    let_go.set()
    with FileLock(path, timeout=5):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_records_give_back_what_was_put(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.get("checks", "a/../b") is None
    records.put("checks", "a/../b", {"passed": True, "names": ["ä", 1, None]})
    records.put("checks", "a/../b", {"passed": False})
    assert Records(tmp_path).get("checks", "a/../b") == {"passed": False}
    assert records.get("other", "a/../b") is None
    records.forget("checks", "a/../b")
    assert records.get("checks", "a/../b") is None


def _file(directory: Path, kind: str) -> Path:
    (found,) = (directory / "records" / kind).iterdir()
    return found


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("false", "true"),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: json.dumps({**json.loads(text), "more": 1}),
        lambda text: json.dumps({**json.loads(text), "format": 2}),
    ],
    ids=["edited", "half", "empty", "deep", "added", "format"],
)
def test_damaged_record_is_not_believed(tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path)
    records.put("checks", "key", {"passed": False})
    path = _file(tmp_path, "checks")
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    assert records.get("checks", "key") is None
    assert str(path) in caplog.text


def test_record_in_anothers_place_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path)
    records.put("checks", "good", {"passed": True})
    good = _file(tmp_path, "checks")
    content = good.read_bytes()
    good.unlink()
    records.put("checks", "bad", {"passed": False})
    _file(tmp_path, "checks").write_bytes(content)
    assert records.get("checks", "bad") is None
    assert "damaged" in caplog.text


def test_waiting_for_a_lock_says_for_whom_and_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    cancel = threading.Event()
    told: list[str] = []

    def tell(holder: str) -> None:
        told.append(holder)
        cancel.set()

    with FileLock(path, timeout=5):
        began = time.monotonic()
        with (
            pytest.raises(Interrupted, match=f"process {os.getpid()}"),
            FileLock(path, 60, cancel=cancel, on_wait=tell),
        ):
            pass
        assert time.monotonic() - began < 10
    assert len(told) == 1
    assert f"process {os.getpid()}" in told[0]
    with FileLock(path, timeout=1, on_wait=tell):
        assert len(told) == 1, "a free lock is not waited for"


def test_pruning_asks_only_about_what_is_old_and_only_once_a_day(tmp_path: Path) -> None:
    records, asked = Records(tmp_path), list[tuple[str, object]]()
    for name in ("old", "kept", "young"):
        records.put("checks", name, {"name": name})
    records.put("other", "old", {"name": "old"})
    (damaged,) = (path for path in (tmp_path / "records/checks").iterdir() if '"old"' in path.read_text())
    then = time.time() - 91 * 86400
    for path in (tmp_path / "records").rglob("*.json"):
        if '"young"' not in path.read_text():
            os.utime(path, (then, then))

    def gone(kind: str, document: Mapping[str, object]) -> bool:
        asked.append((kind, document["name"]))
        return document["name"] == "old"

    assert records.prune(("checks", "nothing"), days=90, gone=gone) == 1
    assert sorted(asked) == [("checks", "kept"), ("checks", "old")]
    assert records.get("checks", "old") is None
    assert records.get("other", "old") is not None, "not of a kind that was asked about"
    assert records.get("checks", "kept") is not None
    assert records.get("checks", "young") is not None
    assert not damaged.exists()
    assert records.prune(("other",), days=90, gone=gone) == 0, "the second time on one day"
    os.utime(tmp_path / "records/.pruned", (then, then))
    assert records.prune(("other",), days=90, gone=gone) == 1


def test_pruning_takes_what_cannot_be_believed_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path)
    for number in range(5):
        records.put("checks", str(number), {})
    then = time.time() - 91 * 86400
    for number, path in enumerate(sorted((tmp_path / "records/checks").iterdir())):
        path.write_text("not a record")
        os.utime(path, (then - number, then - number))
    monkeypatch.setattr("builder.records._MOST_PRUNED", 2)
    assert records.prune(("checks",), days=90, gone=lambda kind, document: False) == 2
    assert len(list((tmp_path / "records/checks").iterdir())) == 3
