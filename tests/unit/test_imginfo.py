"""The shipped program that says what an image is, over manifests that are made here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builder.project import shipped_data

MANIFEST: dict[str, Any] = {
    "schema": "imgbuild.manifest/1",
    "cell": "torch-2.14.1-cuda13.0-py3.11-horovod",
    "distribution": {"id": "debian", "version": "12", "codename": "bookworm"},
    "python": "3.11.2",
    "framework": {"name": "torch", "version": "2.14.1"},
    "horovod": {"version": "0.28.1", "frameworks": ["torch"], "gloo": True, "mpi": False, "nccl": 23007},
    "cuda": {
        "runtime": "13.0",
        "cudnn": "9.13.0",
        "nccl": "2.30.7",
        "architectures": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
        "driver": {"linux": "580.65.06", "source": "release notes"},
    },
    "packages": {
        "python": [{"name": "numpy", "version": "2.4.6"}, {"name": "torch", "version": "2.14.1"}],
        "debian": [{"name": "tini", "version": "0.19.0-1+b3"}],
    },
}


def imginfo(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = shipped_data() / "dockerfiles/files/imginfo"
    command = [sys.executable, "-I", "-S", str(program), *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def written(folder: Path, manifest: object) -> Path:
    path = folder / "manifest.json"
    path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return path


def test_the_screen(tmp_path: Path) -> None:
    ran = imginfo(written(tmp_path, MANIFEST))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.partition("\n\n")[0].splitlines() == [
        "torch-2.14.1-cuda13.0-py3.11-horovod",
        "  framework  torch 2.14.1",
        "  python     3.11.2",
        "  cuda       13.0, cuDNN 9.13.0, NCCL 2.30.7",
        "  GPUs       sm_75 sm_80 sm_86 sm_90 sm_100 sm_120",
        "  driver     580.65.06 or later",
        "  horovod    0.28.1 for torch with Gloo, NCCL 2.30.7",
        "  system     Debian 12 bookworm",
        "  packages   2 of Python, 1 of the distribution (imginfo --packages)",
    ]


def test_what_was_not_found_is_not_invented(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"runtime": None, "cudnn": None, "nccl": None, "architectures": [], "driver": None}
    for cuda in (None, nothing):
        empty: dict[str, Any] = {
            "packages": {"python": [], "debian": []},
            "horovod": None,
            "python": None,
            "cuda": cuda,
        }
        lines = imginfo(written(tmp_path, {**MANIFEST, **empty})).stdout.partition("\n\n")[0].splitlines()
        assert lines == [
            "torch-2.14.1-cuda13.0-py3.11-horovod",
            "  framework  torch 2.14.1",
            *(["  cuda       none: computes on CPUs"] if cuda is None else []),
            "  system     Debian 12 bookworm",
        ]


def test_packages_and_json(tmp_path: Path) -> None:
    path = written(tmp_path, MANIFEST)
    assert imginfo(path, "--packages").stdout.split() == ["numpy==2.4.6", "torch==2.14.1", "tini=0.19.0-1+b3"]
    assert json.loads(imginfo(path, "--json").stdout) == MANIFEST
    assert imginfo(path, "--json", "--packages").returncode == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON"),
        ('{"schema": ', "is not JSON"),
        ("[]", "its schema is None"),
        ('{"schema": "imgbuild.manifest/2"}', "its schema is 'imgbuild.manifest/2', not 'imgbuild.manifest/1'"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    ran = imginfo(written(tmp_path, content))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("imginfo: ")
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    assert "there is no manifest" in imginfo(tmp_path / "none").stderr
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    assert imginfo(tmp_path / "bytes").stderr.startswith("imginfo: the manifest cannot be read: ")


def test_fields_of_other_types_are_left_out(tmp_path: Path) -> None:
    """Nobody but imgbuild writes manifests; whatever is in one, there is no traceback."""
    for key in MANIFEST:
        if key != "schema":
            for value in (7, "text", [None], {"name": 3, "driver": 5, "architectures": 1, "frameworks": {}}):
                ran = imginfo(written(tmp_path, {**MANIFEST, key: value}))
                assert (ran.returncode, ran.stderr) == (0, ""), (key, value)
