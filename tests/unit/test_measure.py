"""What was found in an image becomes its manifest and its labels: CUDA's libraries, the driver, what is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.build import is_left, temporary_name
from builder.builds import public_address
from builder.engine import owner
from builder.engine.containers import RunResult
from builder.engine.errors import BuildFailed, ContainerError, EngineError
from builder.matrix import Cell, load_matrix
from builder.measure import Manifest, labels_count, labels_of
from builder.measure import image as measuring
from builder.measure.found import Found, FrameworkBuild, Malformed, cuda_of, driver_floor, parse
from builder.measure.image import program
from builder.measure.manifest import Cuda, Distribution, Driver, Horovod, Package, Packages
from builder.project import shipped_data

NONCE = "c0ffee"
ANSWER: dict[str, Any] = {
    "nonce": NONCE,
    "python": "3.11.2",
    "packages": {"torch": "2.13.0+cu130", "horovod": "0.28.1"},
    "torch": {"cuda": "13.0", "cudnn": 91300, "nccl": [2, 27, 7], "architectures": ["sm_75", "compute_120"]},
    "tensorflow": None,
    "horovod": {"frameworks": ["torch"], "gloo": True, "mpi": False, "nccl": 23007},
}


@pytest.fixture(scope="module")
def cell() -> Cell:
    cells = load_matrix(shipped_data() / "matrix.yaml").cells
    return next(cell for cell in cells if cell.id == "torch-2.13.0-cpu-py3.11-horovod")


def answered(**changes: object) -> Found:
    return parse(json.dumps({**ANSWER, **changes}).encode(), NONCE)


def test_an_answer_is_read_field_by_field() -> None:
    found = answered()
    assert found.horovod == Horovod(version="0.28.1", frameworks=("torch",), gloo=True, mpi=False, nccl=23007)
    assert cuda_of(found, (), "torch") == Cuda(
        runtime="13.0", cudnn="9.13.0", nccl="2.27.7", architectures=("sm_75", "compute_120"), driver=None
    )
    # What Horovod cannot say without a driver is not said; a value of another type is none.
    silent = answered(horovod={"frameworks": ["mxnet"], "gloo": None, "mpi": "no", "nccl": None}).horovod
    assert silent == Horovod(version="0.28.1", frameworks=("mxnet",), gloo=None, mpi=None, nccl=None)
    assert answered(packages={"torch": "2.13.0"}).horovod is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "another request"),
        (json.dumps({**ANSWER, "nonce": "other"}).encode(), "another request"),
        (json.dumps({**ANSWER, "python": None}).encode(), "neither Python's version nor its packages"),
        (json.dumps({**ANSWER, "packages": []}).encode(), "neither Python's version nor its packages"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse(data, NONCE)


def ended(**changes: Any) -> RunResult:
    return RunResult(
        **{
            "exit_code": 1,
            "timed_out": False,
            "oom_killed": False,
            "outputs": {},
            "oversize": (),
            "refused": (),
            "log_tail": "Traceback\nImportError: libgomp.so.1",
            "seconds": 3.0,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"exit_code": None, "timed_out": True}, ContainerError, "did not say what is in it within 300 s"),
        ({"exit_code": 137, "oom_killed": True}, ContainerError, "killed for want of memory; it may have 6.0 GiB"),
        ({"exit_code": 137}, ContainerError, "killed by a signal from outside"),
        ({"exit_code": 1, "oom_killed": True}, ContainerError, "killed for want of memory"),
        ({}, BuildFailed, "exit code 1: ImportError: libgomp.so.1"),
        ({"exit_code": 0}, BuildFailed, "exit code 0"),
        ({"exit_code": 0, "oversize": ("measured.json",)}, BuildFailed, "no file of at most"),
        ({"exit_code": 139}, BuildFailed, "exit code 139"),
    ],
)
def test_what_the_machine_did_to_a_container_is_not_the_image_s_fault(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: type[EngineError], says: str
) -> None:
    engine: Any = SimpleNamespace(info=lambda: SimpleNamespace(memory_bytes=8 << 30))
    monkeypatch.setattr(measuring, "run", lambda *_, **__: ended(**changes))
    with pytest.raises(EngineError, match=re.escape(says)) as raised:
        measuring.measure_image(engine, "sha256:1", cell)
    assert type(raised.value) is error
    assert ("--jobs" in raised.value.hint) is (error is ContainerError)


def packages(**versions: str) -> dict[str, str]:
    return {name.replace("_", "-"): version for name, version in versions.items()}


def test_without_a_word_of_the_framework_the_wheels_tell() -> None:
    wheels = packages(
        jax="0.8.0",
        nvidia_cuda_runtime_cu12="12.9.79",
        nvidia_cudnn_cu12="9.13.0.50",
        nvidia_nccl_cu12="2.27.7",
    )
    found = cuda_of(Found(python="3.11.2", packages=wheels), (), "jax")
    assert found == Cuda(runtime="12.9", cudnn="9.13.0", nccl="2.27.7", architectures=None, driver=None)
    # The wheels for CUDA 13 carry no number in their names.
    thirteen = cuda_of(
        Found(packages=packages(nvidia_cuda_runtime="13.0.96", nvidia_cudnn_cu13="9.14.0.64")), (), "jax"
    )
    assert thirteen == Cuda(runtime="13.0", cudnn="9.14.0", nccl=None, architectures=None, driver=None)
    assert cuda_of(Found(packages=packages(jax="0.8.0", nvidia_ml_py="13.580.82")), (), "jax") is None


def test_and_without_wheels_the_packages_of_the_distribution() -> None:
    debian = (
        Package(name="cuda-cudart-12-4", version="12.4.127-1"),
        Package(name="libcudnn9-cuda-12", version="9.1.0.70-1"),
        Package(name="libnccl2", version="2.21.5-1+cuda12.4"),
        Package(name="libnccl-dev", version="1"),
    )
    assert cuda_of(Found(), debian, "torch") == Cuda(
        runtime="12.4", cudnn="9.1.0", nccl="2.21.5", architectures=None, driver=None
    )
    assert cuda_of(Found(), debian[3:], "torch") is None


def test_the_cells_own_framework_counts_first_and_a_cpu_build_not_at_all() -> None:
    builds = {
        "tensorflow": FrameworkBuild(cuda="12.5.1", architectures=("sm_60",)),
        "torch": FrameworkBuild(cuda="13.0", architectures=("sm_75",)),
    }
    for framework, runtime, kinds in (("torch", "13.0", ("sm_75",)), ("tensorflow-cpu", "12.5", ("sm_60",))):
        found = cuda_of(Found(builds=builds), (), framework)
        assert found is not None
        assert (found.runtime, found.architectures) == (runtime, kinds)
    cpu = {"torch": FrameworkBuild(cuda=None), "tensorflow": FrameworkBuild(cuda=None)}
    assert cuda_of(Found(builds=cpu, packages={"torch": "2.13.0+cpu"}), (), "torch") is None


@pytest.mark.parametrize(("number", "version"), [(91300, "9.13.0"), (90100, "9.1.0"), (8907, "8.9.7")])
def test_cudnns_number_is_read_as_of_its_major_version(number: int, version: str) -> None:
    found = cuda_of(Found(builds={"torch": FrameworkBuild(cuda="12.1", cudnn=number)}), (), "torch")
    assert found is not None
    assert found.cudnn == version


def test_the_driver_is_that_of_the_facts_with_its_source() -> None:
    found = driver_floor("13.0")
    assert found is not None
    assert found.linux == "580.65.06"
    assert "https://docs.nvidia.com/" in found.source
    # 12.7 never was, of 99.0 nobody knows, and without CUDA there is no question.
    assert [driver_floor(version) for version in ("12.7", "99.0", None)] == [None] * 3


BARE = Manifest(
    cell="a-cell",
    distribution=Distribution(id=None, version=None, codename=None),
    python=None,
    framework=None,
    horovod=None,
    cuda=None,
    packages=Packages(python=None, debian=None),
)
FULL = replace(
    BARE,
    distribution=Distribution(id="debian", version="12", codename="bookworm"),
    python="3.11.2",
    framework=Package(name="torch", version="2.13.0+cu130"),
    horovod=Horovod(version="0.28.1", frameworks=("torch",), gloo=True, mpi=False, nccl=23007),
    cuda=Cuda(
        runtime="13.0",
        cudnn="9.13.0",
        nccl="2.27.7",
        architectures=("sm_75", "sm_90"),
        driver=Driver(linux="580.65.06", source="a table"),
    ),
    packages=Packages(python=(Package(name="torch", version="2.13.0+cu130"),), debian=()),
)


def keys(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return set().union(*(keys(item, f"{path}.{key}") | {f"{path}.{key}"} for key, item in value.items()))
    return set()


def test_a_manifest_has_all_its_keys_and_nothing_of_when_it_was_made() -> None:
    bare, full = (json.loads(manifest.to_bytes()) for manifest in (BARE, FULL))
    assert list(bare) == list(full)
    assert list(bare)[:2] == ["schema", "cell"]
    assert bare["schema"] == "imgbuild.manifest/1"
    assert keys(bare) == {key for key in keys(full) if key.count(".") == 1 or key.split(".")[1] in bare["packages"]} | {
        ".distribution.id",
        ".distribution.version",
        ".distribution.codename",
        ".packages.python",
        ".packages.debian",
    }
    assert full["cuda"]["driver"] == {"linux": "580.65.06", "source": "a table"}
    assert full["packages"]["debian"] == []
    assert FULL.to_bytes() == replace(FULL).to_bytes()


LAYERS = ("sha256:1", "sha256:2")
OWN = 'LABEL org.opencontainers.image.title="mine"'


def test_labels_say_what_was_measured_and_nothing_else(cell: Cell) -> None:
    full = labels_of(FULL, cell, layers=LAYERS, present={}, dockerfile="")
    assert {name: full[f"io.imgbuild.{name}"] for name in ("distribution", "cuda", "architectures", "driver")} == {
        "distribution": "debian 12",
        "cuda": "13.0",
        "architectures": "sm_75 sm_90",
        "driver": "580.65.06",
    }
    assert full["org.opencontainers.image.version"] == "2.13.0+cu130"
    assert set(labels_of(BARE, cell, layers=LAYERS, present={}, dockerfile="")) == {
        "io.imgbuild.cell",
        "io.imgbuild.measured",
        "org.opencontainers.image.title",
    }


def test_what_a_base_hands_down_and_is_not_measured_is_emptied(cell: Cell) -> None:
    base = labels_of(FULL, cell, layers=LAYERS, present={}, dockerfile="") | {"somebody.else": "1"}
    child = labels_of(BARE, cell, layers=LAYERS, present=base, dockerfile=OWN)
    assert child["io.imgbuild.cuda"] == child["io.imgbuild.driver"] == ""
    assert child["org.opencontainers.image.version"] == ""
    # What the Dockerfile gives itself stays, and what is not ours is not touched.
    assert "org.opencontainers.image.title" not in child
    assert "somebody.else" not in child


def test_labels_count_for_the_layers_that_were_measured_alone(cell: Cell) -> None:
    labels = labels_of(BARE, cell, layers=LAYERS, present={}, dockerfile="")
    assert labels_count(labels, (*LAYERS, "sha256:manifest"))
    assert not labels_count(labels, (*LAYERS, "sha256:manifest", "sha256:more"))
    assert not labels_count(labels, ("sha256:1", "sha256:other", "sha256:manifest"))
    assert not labels_count({}, (*LAYERS, "sha256:manifest"))


def test_a_temporary_name_is_left_over_when_its_process_is_gone() -> None:
    mine = temporary_name("127.0.0.1:5000/imgbuild/pytorch", "d46a050a371f" * 5)
    assert len(mine.rpartition(":")[2]) <= 128
    assert temporary_name("r", "0" * 64) != temporary_name("r", "0" * 64)
    assert not is_left(mine)
    head, boot, pid, start = mine.rsplit(".", 3)
    assert is_left(f"{head}.{boot}.{pid}.{int(start) - 1}"), "the process id is another process's now"
    assert is_left(f"{head}.another-boot.{pid}.{start}")
    elsewhere = mine.replace(owner._host(), "0" * 16)
    assert not is_left(elsewhere.replace(boot, "another-boot")), "of another machine nobody here can tell"
    for other in (f"r:candidate-{'0' * 64}", "r:unfinished-1", "r:unfinished-0.1.2.3", "r"):
        assert not is_left(other)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/team/project.git", "https://github.com/team/project.git"),
        ("https://user:token@git.example.org/team/project", "https://git.example.org/team/project"),
        ("https://ghp_token@github.com/team/project", "https://github.com/team/project"),
        ("https://example.org/project?private_token=abc", "https://example.org/project"),
        ("ssh://git@example.org:2222/team/project.git", "ssh://git@example.org:2222/team/project.git"),
        ("git@example.org:team/project.git", "ssh://git@example.org/team/project.git"),
        ("/srv/git/project", ""),
        ("../project", ""),
        ("file:///srv/git/project", ""),
        ("", ""),
    ],
)
def test_the_source_is_an_address_without_credentials(remote: str, address: str) -> None:
    assert public_address(remote) == address


TORCH = """\
import os


class backends:
    class cudnn:
        is_available = staticmethod(lambda: True)
        version = staticmethod(lambda: 91300)


class distributed:
    is_available = is_nccl_available = staticmethod(lambda: True)


class cuda:
    class nccl:
        version = staticmethod(lambda: (2, 27, 7))


class _C:
    _cuda_getArchFlags = staticmethod(lambda: "sm_75 compute_120")
"""


def installed(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


@pytest.fixture
def inside(tmp_path: Path) -> Any:
    """Runs the program as a container does, over a directory of packages; returns what ended, and the answer."""

    def run(site: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any] | None]:
        for path, data in program().items():
            (tmp_path / "volume" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "volume" / path).write_bytes(data)
        request, result = tmp_path / "request.json", tmp_path / "measured.json"
        request.write_text(json.dumps({"nonce": NONCE}))
        command = [sys.executable, "-s", "-B", str(tmp_path / "volume/inside.py"), str(request), str(result)]
        done = subprocess.run(command, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=60)
        return done, json.loads(result.read_text()) if result.exists() else None

    return run


def test_the_program_imports_nothing_for_a_cpu_build(inside: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    broken = "raise RuntimeError('this was imported')\n"
    installed(
        site, "torch", "2.13.0+cpu",
        {"torch/__init__.py": broken, "torch/version.py": "__version__ = '2.13.0+cpu'\ncuda = None\n"},
    )  # fmt: skip
    build = "import collections\nbuild_info = collections.OrderedDict([('is_cuda_build', False)])\n"
    installed(
        site, "tensorflow-cpu", "2.21.0",
        {"tensorflow/__init__.py": broken, "tensorflow/python/platform/build_info.py": build},
    )  # fmt: skip
    done, answer = inside(site)
    assert done.returncode == 0, done.stderr
    found = parse(json.dumps(answer).encode(), NONCE)
    assert found.packages is not None
    assert (found.packages["torch"], found.packages["tensorflow-cpu"]) == ("2.13.0+cpu", "2.21.0")
    assert found.builds == {"torch": FrameworkBuild(cuda=None), "tensorflow": FrameworkBuild(cuda=None)}
    assert cuda_of(found, (), "torch") is None


def test_the_program_asks_a_cuda_build_without_a_gpu(inside: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    version = "__version__ = '2.13.0+cu130'\ncuda = '13.0'\n"
    installed(site, "torch", "2.13.0+cu130", {"torch/__init__.py": TORCH, "torch/version.py": version})
    hvd = "gloo_built = lambda: True\nmpi_built = lambda: False\nnccl_built = lambda: 23007\n"
    installed(
        site, "horovod", "0.28.1",
        {
            "horovod/__init__.py": "",
            "horovod/torch/__init__.py": hvd,
            "horovod/torch/mpi_lib_v2.cpython-311-x86_64-linux-gnu.so": "",
            "horovod/tensorflow/__init__.py": "raise RuntimeError('this was not compiled')\n",
        },
    )  # fmt: skip
    done, answer = inside(site)
    assert done.returncode == 0, done.stderr
    found = parse(json.dumps(answer).encode(), NONCE)
    assert found.horovod == Horovod(version="0.28.1", frameworks=("torch",), gloo=True, mpi=False, nccl=23007)
    assert cuda_of(found, (), "torch") == Cuda(
        runtime="13.0", cudnn="9.13.0", nccl="2.27.7", architectures=("sm_75", "compute_120"), driver=None
    )


@pytest.mark.parametrize(
    ("library", "code"), [("libcuda.so.1", 0), ("libcudart.so.13", 1)], ids=["of the driver", "of the image"]
)
def test_a_missing_library_is_excused_where_a_driver_brings_it(
    inside: Any, tmp_path: Path, library: str, code: int
) -> None:
    site = tmp_path / "site"
    lacks = f"raise OSError('{library}: cannot open shared object file: No such file or directory')\n"
    version = "__version__ = '2.13.0+cu130'\ncuda = '13.0'\n"
    installed(site, "torch", "2.13.0+cu130", {"torch/__init__.py": lacks, "torch/version.py": version})
    done, answer = inside(site)
    assert done.returncode == code, done.stderr
    if code:
        assert answer is None
        assert done.stderr.splitlines()[-1].startswith(f"OSError: {library}: cannot open")
    else:
        found = parse(json.dumps(answer).encode(), NONCE)
        assert cuda_of(found, (), "torch") == Cuda(
            runtime="13.0", cudnn=None, nccl=None, architectures=None, driver=None
        )
