"""Locks made through real indexes: servers that leave out hashes, refuse or are not there, and this machine's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import Ran
from package_index import make_index, make_sdist, make_wheel, served, sha256

from builder.lock.documents import parse_environment
from builder.lock.file import requirements_text
from builder.project import shipped_data
from builder.resolve.indexes import Index, Indexes
from builder.resolve.uv import built_in_index, find_uv
from builder.site import load_site
from builder.site.settings import local_path

pytestmark = pytest.mark.engine

LOCK = Path("dockerfiles/locks/torch-2.13.0-cpu-py3.11-own.python.json")
MATRIX = """\
version: 1
repository: demo
axes: {framework: [torch==2.13.0], cuda: [cpu], python: ["3.11"]}
bases: {own: {image: debian:bookworm-slim, python: ["3.11"]}}
frameworks: {torch: {image: demo, template: demo.Dockerfile.j2, channels: {cpu: pytorch-cpu}}}
channels: {pytorch-cpu: https://download.pytorch.org/whl/cpu}
defaults: {base: own}
tags: ["{version}"]
"""
TEMPLATE = '# {{ python(["torch==2.13.0+cpu"]) }}\nFROM {{ cell.base.image }}\n'

Lock = Callable[..., Ran]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project/dockerfiles").mkdir(parents=True)
    (tmp_path / "project/matrix.yaml").write_text(MATRIX)
    (tmp_path / "project/dockerfiles/demo.Dockerfile.j2").write_text(TEMPLATE)
    return tmp_path / "project"


@pytest.fixture
def lock(project: Path) -> Lock:
    """Runs `imgbuild lock --part python` with an index and no other setting."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "IMGBUILD_"))}
    kept = {
        name: value for name, value in kept.items() if not name.lower().endswith(("_proxy", "_bundle", "cert_file"))
    }

    def run(index: str, *arguments: str, **variables: str) -> Ran:
        ran = subprocess.run(
            [Path(sys.executable).with_name("imgbuild"), "lock", "--part", "python", *arguments],
            cwd=project,
            env={
                **kept,
                "HOME": str(project.parent),
                "PIP_CONFIG_FILE": os.devnull,
                "IMGBUILD_STATE_DIR": str(project.parent / "state"),
                "IMGBUILD_INDEX_URL": index,
                "IMGBUILD_CHANNEL_PYTORCH_CPU": "",
                "UV_CACHE_DIR": str(project.parent / "cache"),
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)

    return run


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    made = [
        make_wheel(folder, "torch", "2.13.0+cpu", requires=["numpy", "toolz"], tag="cp311-cp311-manylinux_2_28_x86_64"),
        make_wheel(folder, "torch", "2.13.0+cpu", requires=["numpy", "toolz"], tag="cp312-cp312-manylinux_2_28_x86_64"),
        make_wheel(folder, "numpy", "2.4.6", tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        make_wheel(folder, "numpy", "2.4.6", tag="cp311-cp311-manylinux_2_28_x86_64"),
        make_sdist(folder, "toolz", "1.2.0"),
    ]
    return {path.name: path for path in made}


@pytest.fixture
def full(tmp_path: Path, packages: dict[str, Path]) -> Iterator[str]:
    make_index(tmp_path / "full", list(packages.values()))
    with served(tmp_path / "full") as (url, _):
        yield url


def test_a_lock_made_through_a_partial_mirror_equals_one_made_without(
    project: Path, lock: Lock, full: str, tmp_path: Path, packages: dict[str, Path]
) -> None:
    ran = lock(full)
    assert (ran.code, ran.err) == (0, "")
    direct = (project / LOCK).read_bytes()
    locked = {package["file"]: package["sha256"] for package in json.loads(direct)["packages"].values()}
    assert locked == {name: sha256(packages[name]) for name in locked}
    assert sorted(name.partition("-")[2] for name in locked) == [
        "1.2.0.tar.gz",
        "2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
        "2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl",
    ]
    (project / LOCK).unlink()
    make_index(tmp_path / "mirror", [packages[name] for name in locked], hashes=False)
    with served(tmp_path / "mirror", password="hunter22") as (mirror, asked):
        ran = lock(mirror.replace("://", "://reader:hunter22@"), UV_CACHE_DIR=str(tmp_path / "cache-2"))
    assert ran.code == 0, ran.err
    assert (project / LOCK).read_bytes() == direct
    assert any(path.startswith("/files/torch") for path in asked), "the hash was computed from the file"


def test_a_lock_is_what_pip_installs_and_one_wrong_hash_is_refused(
    project: Path, lock: Lock, full: str, tmp_path: Path
) -> None:
    assert lock(full).code == 0
    found = parse_environment((project / LOCK).read_bytes(), "lock", LOCK.name.removesuffix(".python.json"))
    wheels = tuple(package for package in found.packages.values() if package.file.endswith(".whl"))
    requirements = tmp_path / "requirements.txt"

    def install(text: str) -> subprocess.CompletedProcess[str]:
        requirements.write_text(text)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path / "got")]
        command += ["--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_17_x86_64"]
        command += ["--only-binary=:all:", "--require-hashes", "--no-cache-dir", "-r", str(requirements)]
        command += ["--index-url", full, "--isolated"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert install(requirements_text(wheels)).returncode == 0
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == sorted(package.file for package in wheels)
    wrong = requirements_text(wheels).replace(wheels[0].sha256, "0" * 64)
    refused = install(wrong)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """An authority that nobody knows, and a certificate from it for `localhost`, with its key in the same file."""

    def openssl(command: str, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *command.split(), *arguments], cwd=folder, check=True, capture_output=True, timeout=60
        )

    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem", "-subj", "/CN=test authority")
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost")
    openssl("x509 -req -in server.csr -extfile names -out server.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2")
    both = folder / "both.pem"
    both.write_bytes((folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes())
    return folder / "ca.pem", both


@pytest.mark.parametrize(
    ("status", "said"), [(401, "answers 401"), (403, "answers 403"), (500, "answers 500"), (503, "answers 503")]
)
def test_an_index_that_refuses_ends_the_run_and_no_other_is_asked_in_its_place(
    project: Path, lock: Lock, full: str, tmp_path: Path, status: int, said: str
) -> None:
    with served(tmp_path, status=status) as (url, _):
        ran = lock(full, IMGBUILD_EXTRA_INDEX_URLS=url.replace("://", "://reader:hunter22@"))
    assert ran.code == 15
    assert said in ran.err
    assert "IMGBUILD_EXTRA_INDEX_URLS" in ran.err, "the setting is named"
    assert "hunter22" not in ran.err + ran.out
    assert not (project / LOCK).exists()


def test_an_index_that_is_not_there_is_told_with_its_setting(project: Path, lock: Lock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        ran = lock(f"http://reader:hunter22@127.0.0.1:{taken.getsockname()[1]}/simple")
    assert (ran.code, "cannot be reached: Connection refused" in ran.err) == (15, True), ran.err
    assert "IMGBUILD_INDEX_URL" in ran.err
    assert "hunter22" not in ran.err
    lost = lock("https://no-such-host.invalid/simple")
    assert (lost.code, "no-such-host.invalid" in lost.err) == (15, True), lost.err


def test_the_matrix_channel_is_asked_and_its_variable_named(project: Path, lock: Lock, full: str) -> None:
    ran = lock(full, IMGBUILD_CHANNEL_PYTORCH_CPU="http://127.0.0.1:9/whl")
    assert ran.code == 15
    assert "set IMGBUILD_CHANNEL_PYTORCH_CPU to a mirror" in ran.err
    assert lock(full, IMGBUILD_CHANNEL_PYTORCH_CPU="").code == 0


def test_only_a_certificate_that_the_site_trusts_is_taken(
    project: Path, lock: Lock, tmp_path: Path, packages: dict[str, Path]
) -> None:
    make_index(tmp_path / "secure", list(packages.values()))
    certificate, both = make_certificates(tmp_path)
    with served(tmp_path / "secure", certificate=both) as (url, _):
        refused = lock(url)
        assert (refused.code, "is not trusted" in refused.err, "`ca-bundle`" in refused.err) == (15, True, True)
        trusted = lock(url, IMGBUILD_CA_BUNDLE=str(certificate))
        assert trusted.code == 0, trusted.err
        (project / LOCK).unlink()
        host = lock(url, IMGBUILD_TRUSTED_HOSTS="localhost")
        assert host.code == 0, host.err


def test_a_hash_is_computed_from_the_file_itself(tmp_path: Path, packages: dict[str, Path]) -> None:
    site = load_site({"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull})
    make_index(tmp_path / "index", list(packages.values()))
    name = next(iter(packages))
    with served(tmp_path / "index") as (url, _):
        got = Indexes(site).sha256(f"{url.removesuffix('/simple')}/files/{name.replace('+', '%2B')}")
    assert got == sha256(packages[name]) == Indexes(site).sha256(packages[name].as_uri())


def test_an_index_is_asked_once(tmp_path: Path) -> None:
    site = load_site({"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull})
    indexes = Indexes(site)
    with served(tmp_path) as (url, asked):
        for project in ("torch", "numpy"):
            indexes.ask([Index(url=url, setting="s", hint="h")], project)
    assert asked == ["/simple/torch/"], "and that it has no such project is an answer"


def test_the_built_in_index_is_the_one_that_uv_names() -> None:
    assert built_in_index(find_uv()).startswith("https://")


def test_this_machine_locks_the_default_matrix_to_what_is_committed(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("imgbuild")

    def run(*arguments: str, cwd: Path) -> Ran:
        environment = {**os.environ, "IMGBUILD_STATE_DIR": str(tmp_path / "state")}
        ran = subprocess.run(
            [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)

    assert run("init", "p", cwd=tmp_path).code == 0
    project = tmp_path / "p"
    (committed,) = (shipped_data() / "dockerfiles/locks").glob("torch-2.13.0-cpu-*.python.json")
    document = json.loads(committed.read_text())
    own = project / "dockerfiles/locks" / committed.name
    # Without one of its requests it must be resolved again: what is locked stays, what is missing is found.
    dropped = [request for request in document["requests"] if "dask" not in request["requirements"]]
    used = {name for request in dropped for name in request["installs"]}
    partial = {name: package for name, package in document["packages"].items() if name in used}
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(json.dumps({**document, "packages": partial, "requests": dropped}))
    ran = run("lock", "--part", "python", cwd=project)
    assert ran.code == 0, ran.err
    again = json.loads(own.read_text())
    assert {name: again["packages"][name] for name in partial} == partial
    assert again["requests"] == document["requests"]
    torch = again["packages"]["torch"]
    site = load_site(os.environ)
    supplied = [path / torch["file"] for path in map(local_path, site.find_links) if path is not None]
    assert all(sha256(path) == torch["sha256"] for path in supplied if path.is_file())
    assert again["packages"]["horovod"]["file"].endswith(".tar.gz"), "which was read and not compiled"
    assert run("lock", "--part", "python", cwd=project).out == "nothing changed\n"
    assert run("lock", "--check", cwd=project).code == 0
