"""What is said of a defect of imgbuild's own, wherever its details can be kept or not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from builder.exits import DEFECT, describe_defect, exit_code_of


def broken() -> None:
    raise RuntimeError("a surprise at https://user:secret@host.example/x")


def the_defect() -> Exception:
    try:
        broken()
    except RuntimeError as error:
        return error
    raise AssertionError


def test_the_traceback_of_a_defect_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = describe_defect(the_defect())
    (kept,) = tmp_path.iterdir()
    assert said.startswith("a defect of imgbuild's own: RuntimeError: a ")
    assert said.endswith(f"\n  please report it with {kept}")
    text = kept.read_text("utf-8")
    assert "Traceback" in text
    assert "in broken" in text
    assert "secret" not in text + said
    # A file's name that is no UTF-8, in a message.
    assert "please report it" in describe_defect(ValueError("no such file: a\udc80"))
    assert len(list(tmp_path.iterdir())) == 2


def full(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file can be made, and takes no byte: what a full disk does."""
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    real = tempfile.NamedTemporaryFile

    def nothing_fits(*args: object, **options: object) -> object:
        made = real(*args, **options)  # type: ignore[call-overload]
        device = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - the file that it stands for closes it
        made.file.close()
        made.file = made._closer.file = device
        made.write = device.write
        return made

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", nothing_fits)
    return "No space left on device"


def gone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tempfile, "tempdir", str(directory / "gone"))
    return "No such file or directory"


def nowhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """No directory for temporary files is usable, as on a read-only root without a /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(directory / "gone")])
    return "No usable temporary directory found"


@pytest.mark.parametrize("damage", [full, gone, nowhere])
def test_where_nothing_can_be_written_the_innermost_calls_are_said(
    damage: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = damage(tmp_path, monkeypatch)  # type: ignore[operator]
    said = describe_defect(the_defect())
    first, _, second = said.partition("\n  ")
    assert first.startswith("a defect of imgbuild's own: RuntimeError: a ")
    assert f"its traceback cannot be written ({why}" in second
    assert ": test_exits.py:" in second
    assert " in broken, test_exits.py:" in second
    assert "secret" not in said
    assert list(tmp_path.iterdir()) == [], "a part of a file helps nobody"
    # The last resort of the command line stands on it.
    assert exit_code_of(broken) == DEFECT
    assert "cannot be written" in capsys.readouterr().err
