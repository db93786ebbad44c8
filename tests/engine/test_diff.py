"""What differs between real images: on the engine, and in a registry from signed evidence alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest
from command import Built, Ran, imgbuild
from loopback_registry import registry

from builder.attest import Subject, load_signing_key, sign
from builder.attest.keygen import write_pair
from builder.attest.keys import KeyKind
from builder.attest.sbom import CYCLONEDX, sbom
from builder.attest.software import installed_software
from builder.engine.auth import DockerLogins
from builder.engine.build import BuildRequest, build
from builder.engine.connection import Engine
from builder.engine.images import inspect, remove, tag
from builder.engine.session import Session
from builder.engine.transfer import push
from builder.engine.tree import FileTree
from builder.registry.artifacts import BUNDLE_CONTENT, BUNDLE_PREDICATE, BUNDLE_TYPE, attach
from builder.registry.client import Repository
from builder.release.contents import contents
from builder.release.diff import Kind, PackageChange, compare
from builder.release.parts import Contents, Standing
from builder.site import load_site

pytestmark = pytest.mark.engine

PLAIN, HOROVOD = "torch-2.13.0-cpu-py3.11", "torch-2.13.0-cpu-py3.11-horovod"


def make(engine: Engine, name: str, dockerfile: str, files: dict[str, bytes]) -> str:
    """Builds an image of some files; returns its id."""
    context, dockerfiles = FileTree(), FileTree()
    for path, content in files.items():
        context.add_bytes(path, content)
    dockerfiles.add_bytes("Dockerfile", dockerfile.encode())
    with Session.open(engine, context=context, dockerfiles=dockerfiles, shared_key=name) as session:
        return build(engine, session, BuildRequest(tags=(name,))).image_id


def wheel(name: str, version: str) -> dict[str, bytes]:
    """A wheel with nothing but its metadata, by its file's name."""
    info = f"{name}-{version}.dist-info"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return {f"{name}-{version}-py3-none-any.whl": written.getvalue()}


@pytest.fixture(scope="module")
def plain(built: Built) -> Contents:
    """The image of the default matrix without Horovod."""
    return contents(load_site(built.environment), str(built.cell(PLAIN)["image_id"]), ())


def pip_list(image: str) -> dict[str, str]:
    """What the image's own pip says is installed: another opinion than ours."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image]
    command += ["-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return {item["name"].lower().replace("_", "-"): item["version"] for item in json.loads(done.stdout)}


def test_the_image_with_horovod_has_horovods_packages_more(built: Built, plain: Contents) -> None:
    image = str(built.cell(HOROVOD)["image_id"])
    with_horovod = contents(load_site(built.environment), image, (), like=plain)
    found = compare(plain, with_horovod)
    before, after = pip_list(plain.digest), pip_list(image)
    expected = {name: version for name, version in after.items() if before.get(name) != version}
    assert "horovod" in expected
    assert before.items() <= after.items()
    assert found.python == tuple(
        PackageChange(name=name, before=(), after=(version,)) for name, version in sorted(expected.items())
    )
    assert found.debian == ()
    assert found.growth == with_horovod.size - plain.size
    # The framework's layer is the largest by far, and both have it.
    assert max(plain.layers, key=lambda layer: layer.size or 0) in found.layers.shared
    assert sum(layer.size or 0 for layer in plain.layers) == plain.size
    assert all(layer.made_by for layer in (*plain.layers, *with_horovod.layers))
    assert isinstance(plain.standing, Standing)
    assert plain.standing.reached is not None
    assert found.checks is not None
    assert (
        {item.name for item in found.checks} == {item.name for item in found.checks if "horovod" in item.name} != set()
    )


def test_a_child_shows_exactly_what_was_done_to_it(built: Built, plain: Contents, prefix: str, engine: Engine) -> None:
    name, parent = f"{prefix}-diff:child", f"{prefix}-diff:parent"
    # BuildKit takes an image by its name only.
    tag(engine, plain.digest, parent)
    make(
        engine,
        name,
        f"FROM {parent}\n"
        "USER root\n"
        "COPY *.whl /tmp/\n"
        "RUN PIP_CONSTRAINT= python -m pip install --no-index --no-deps --no-cache-dir /tmp/*.whl"
        " && python -m pip uninstall --yes sympy"
        " && sed -i '/^Package: tini$/,/^$/s/^Version: .*/Version: 99-1/' /var/lib/dpkg/status\n",
        {**wheel("imgbuild_probe", "1.5"), **wheel("filelock", "99.0")},
    )
    try:
        found = compare(plain, contents(load_site(built.environment), name, ()))
    finally:
        remove(engine, name)
        remove(engine, parent)
    before = pip_list(plain.digest)
    assert found.python == (
        PackageChange(name="filelock", before=(before["filelock"],), after=("99.0",)),
        PackageChange(name="imgbuild-probe", before=(), after=("1.5",)),
        PackageChange(name="sympy", before=(before["sympy"],), after=()),
    )
    assert found.debian is not None
    assert [(item.name, item.after) for item in found.debian] == [("tini", ("99-1",))]
    assert [item.kind for item in found.debian] == [Kind.CHANGED]
    assert found.layers.shared == plain.layers
    assert found.layers.only_before == ()
    assert [item.made_by.split()[0] for item in found.layers.only_after] == ["COPY", "RUN"]
    assert [item.name for item in found.settings] == ["user"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two tiny images, on the engine and in a registry, with SBOMs signed with a key.

    Attributes:
        names: on the engine.
        remote: the repositories with the digests.
        key: the file of the public key.
        environment: for the command.
    """

    names: tuple[str, str]
    remote: tuple[str, str]
    key: Path
    environment: dict[str, str]

    def diff(self, *arguments: str) -> Ran:
        return imgbuild("diff", *arguments, environment=self.environment)


SITE = "usr/lib/python3.12/site-packages"
STATUS = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n"


def files(versions: dict[str, str], libc: str) -> dict[str, bytes]:
    """The metadata of an image."""
    found = {
        f"files/{SITE}/{name}-{version}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n"
        for name, version in versions.items()
    }
    found["files/var/lib/dpkg/status"] = STATUS.format(version=libc)
    return {path: text.encode() for path, text in found.items()}


@pytest.fixture(scope="module")
def pair(engine: Engine, prefix: str, tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    one = files({"numpy": "1.0", "gone": "1", "same": "3"}, "2.36")
    other = files({"numpy": "2.0", "new": "1"}, "2.37")
    names = (f"{prefix}-diff:one", f"{prefix}-diff:other")
    make(engine, names[0], f"FROM {tiny_base}\nWORKDIR /new\nCOPY files /\nENV A=1\n", one)
    make(engine, names[1], f"FROM {names[0]}\nRUN rm -r /{SITE}/numpy* /{SITE}/gone*\nCOPY files /\nENV A=2\n", other)
    home = tmp_path_factory.mktemp("home")
    private, public, _ = write_pair(home / "keys", KeyKind.ECDSA_P256, None)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGBUILD_")},
        "IMGBUILD_STATE_DIR": str(home / "state"),
    }
    key = load_signing_key(private)
    with registry(tmp_path_factory.mktemp("registry")) as address:
        remote = []
        for name in names:
            there = f"{address}/{name}"
            image = inspect(engine, name)
            assert image is not None
            tag(engine, image.id, there)
            try:
                digest = push(engine, there)
            finally:
                remove(engine, there)
            repository = there.rpartition(":")[0]
            with Repository(repository, DockerLogins(home / "none")) as opened:
                manifest = opened.manifest(digest)
                assert manifest is not None
                statement = sbom(
                    installed_software(engine, image.id),
                    (Subject(name=repository, sha256=digest.removeprefix("sha256:")),),
                    timestamp=datetime.now(timezone.utc),
                )
                attach(
                    opened,
                    manifest.descriptor,
                    artifact_type=BUNDLE_TYPE,
                    payload=sign(statement, key),
                    payload_type=BUNDLE_TYPE,
                    annotations={BUNDLE_CONTENT: "dsse-envelope", BUNDLE_PREDICATE: CYCLONEDX},
                )
            remote.append(f"{repository}@{digest}")
        yield Pair(names=names, remote=(remote[0], remote[1]), key=public, environment=environment)
    for name in reversed(names):
        remove(engine, name)


PACKAGES = {
    "python": [
        {"name": "gone", "change": "removed", "before": ["1"], "after": []},
        {"name": "new", "change": "added", "before": [], "after": ["1"]},
        {"name": "numpy", "change": "changed", "before": ["1.0"], "after": ["2.0"]},
    ],
    "debian": [{"name": "libc6", "change": "changed", "before": ["2.36"], "after": ["2.37"]}],
}
ENV = [{"setting": "env A", "change": "changed", "before": "1", "after": "2"}]


def test_two_images_of_the_engine(pair: Pair) -> None:
    done = pair.diff(*pair.names, "--format", "json", "--exit-code")
    assert done.code == 13, done.out + done.err
    assert done.json["packages"] == PACKAGES
    assert done.json["configuration"] == ENV
    layers = done.json["layers"]
    assert [item["instruction"] for item in layers["shared"]][-2:] == ["WORKDIR /new", "COPY files /"]
    assert [item["instruction"].split()[0] for item in layers["only_b"]] == ["RUN", "COPY"]
    assert layers["only_a"] == []
    assert layers["size_difference"] == sum(item["size"] for item in layers["only_b"]) > 0
    assert (done.json["level"], done.json["checks"]) == (None, None)
    assert "error" not in done.err


def test_an_image_with_itself(pair: Pair) -> None:
    for image in (pair.names[0], pair.remote[0]):
        done = pair.diff(image, image, "--exit-code", "--key", str(pair.key))
        assert done.code == 0, done.out + done.err
        assert done.out.splitlines()[-1] == "nothing that is known differs; not known: checks"
        assert "\nPython packages" not in done.out


def test_two_images_of_a_registry_by_their_trusted_sboms(pair: Pair) -> None:
    done = pair.diff(*pair.remote, "--key", str(pair.key), "--format", "json")
    assert done.code == 0, done.out + done.err
    assert done.json["packages"] == PACKAGES
    assert done.json["configuration"] == ENV
    assert [item["instruction"] for item in done.json["layers"]["shared"]][-2:] == ["WORKDIR /new", "COPY files /"]
    assert done.json["a"]["sizes"] == "compressed"
    assert done.json["layers"]["size_difference"] > 0


def test_without_a_trusted_sbom_packages_are_not_known(pair: Pair) -> None:
    done = pair.diff(*pair.remote, "--format", "json")
    assert done.code == 0, done.out + done.err
    assert done.json["packages"] == {"python": None, "debian": None}
    assert any(
        item.startswith("packages of A: no SBOM of it counts: no key is trusted") for item in done.json["unknown"]
    )
    # Layers and configuration need no trust: they are held to the digest.
    assert done.json["configuration"] == ENV


def test_the_engine_against_a_registry(pair: Pair) -> None:
    done = pair.diff(pair.names[0], pair.remote[1], "--key", str(pair.key), "--format", "json")
    assert done.code == 0, done.out + done.err
    assert done.json["packages"] == PACKAGES
    layers = done.json["layers"]
    assert (layers["sizes_comparable"], layers["size_difference"]) == (False, None)
    assert (len(layers["only_a"]), len(layers["only_b"])) == (0, 2)
    same = pair.diff(pair.names[0], pair.remote[0], "--exit-code")
    assert same.code == 0, same.out + same.err


@pytest.mark.parametrize(
    ("image", "code", "message"),
    [
        ("imgbuild-test-never/made:at-all", 18, "this engine holds no image"),
        ("127.0.0.1:9/no/body:here", 15, "127.0.0.1:9"),
        ("Not An Image", 2, "Not An Image"),
    ],
)
def test_an_image_that_is_not_there(pair: Pair, image: str, code: int, message: str) -> None:
    done = pair.diff(image, pair.names[0])
    assert done.code == code, done.out + done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_local_looks_on_the_engine_only(pair: Pair) -> None:
    done = pair.diff("127.0.0.1:9/no/body:here", pair.names[0], "--local")
    assert done.code == 18, done.out + done.err
    assert pair.diff(*pair.names, "--local").code == 0
