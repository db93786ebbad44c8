"""`.ci/demo`, with commands in the place of imgbuild and docker that only write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BUILD = "build torch-*-cpu-py3.11 torch-*-cpu-py3.11-horovod tensorflow-*-cpu-py3.11 tensorflow-*-cpu-py3.11-horovod"
ROOT = Path(__file__).parents[2]
IMGBUILD = """\
#!/bin/sh
echo "$*" >> "$CALLS"
case $1 in
build) if [ "$(grep -c ^build "$CALLS")" = 1 ]; then exit "$FIRST"; fi ;;
lock) if [ "$MOVED" = yes ]; then echo moved >> dockerfiles/locks/bookworm.base.json; fi ;;
matrix) echo '{"cells": [{"repository": "REPOSITORY", "tags": ["1.0-horovod"]}]}' ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "dockerfiles/locks").mkdir(parents=True)
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "matrix.yaml").write_text("")
    (tmp_path / "dockerfiles/locks/bookworm.base.json").write_text("locked\n")
    shutil.copy(ROOT / ".ci/demo", tmp_path / ".ci/demo")
    for name, text in (("imgbuild", IMGBUILD), ("docker", '#!/bin/sh\necho "docker $2 $3"\n')):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def demo(checkout: Path, *arguments: str, first: int = 0, moved: bool = False) -> tuple[int, list[str], str]:
    """Its exit status, the calls of imgbuild, and what it printed."""
    calls = checkout / "calls"
    calls.unlink(missing_ok=True)
    ran = subprocess.run(
        [checkout / ".ci/demo", *arguments],
        env={
            "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "FIRST": str(first),
            "MOVED": "yes" if moved else "no",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, calls.read_text().splitlines(), ran.stdout


def test_the_image_with_horovod_is_run_when_everything_was_built(checkout: Path) -> None:
    code, calls, printed = demo(checkout)
    assert (code, calls) == (0, [BUILD, "matrix torch-*-cpu-py3.11-horovod --format json"])
    assert printed.endswith("docker --rm REPOSITORY:1.0-horovod-verified\n")


@pytest.mark.parametrize("options", [["--repository", "r/x"], ["--repository=r/x"], ["--pull", "--repository=r/x"]])
def test_another_repository_is_meant_by_every_command(checkout: Path, options: list[str]) -> None:
    code, calls, _ = demo(checkout, *options, first=19, moved=True)
    build = " ".join([BUILD, *options])
    assert (code, calls) == (
        0,
        [
            build,
            "lock --repository r/x --upgrade debian",
            build,
            "matrix --repository r/x torch-*-cpu-py3.11-horovod --format json",
        ],
    )


@pytest.mark.parametrize("code", [9, 19])
def test_only_an_archive_that_moved_on_is_met_with_another_lock(checkout: Path, code: int) -> None:
    lock = checkout / "dockerfiles/locks/bookworm.base.json"
    assert demo(checkout, first=code) == (code, [BUILD, "lock --upgrade debian"], "")
    assert demo(checkout, first=code, moved=True)[0] == 0
    assert lock.read_text() == "locked\n", "the committed one stays as it is"


def test_another_failure_is_the_outcome(checkout: Path) -> None:
    assert demo(checkout, first=10, moved=True) == (10, [BUILD], "")
