"""What differs between two images, from what is known of each, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attesting import NOW, checked, outcome, signing_key, verdict
from memory_repository import MemoryRepository

from builder.attest import Refusal, Refused, SigningKey, Statement, Subject, check_statement, sign
from builder.attest.bill import parse_bill
from builder.attest.sbom import CYCLONEDX, bill_of_materials, sbom
from builder.attest.software import DebianPackage, PythonDistribution, Software
from builder.check import Status
from builder.engine.history import Step, instruction, of_layers
from builder.lock.model import LockedPackage
from builder.matrix import Level
from builder.registry.artifacts import BUNDLE_CONTENT, BUNDLE_PREDICATE, BUNDLE_TYPE, attach
from builder.registry.values import OCI_MANIFEST, Manifest, digest_of, to_bytes
from builder.release.contents import deciding, remote_contents
from builder.release.diff import Difference, Kind, PackageChange, compare
from builder.release.diff_show import clean, size, summary, to_document, to_lines
from builder.release.parts import Configuration, Contents, Layer, Outcome, Place, Standing, State, Unknown

PLACE = "/opt/venv/lib/python3.11/site-packages"


def python(name: str, version: str, **changes: Any) -> PythonDistribution:
    found = PythonDistribution(
        name=name, version=version, license="", spdx=False, location=f"{PLACE}/{name}-{version}", sha256=""
    )
    return replace(found, **changes)


def debian(name: str, version: str, architecture: str = "amd64", source: str = "") -> DebianPackage:
    return DebianPackage(name=name, version=version, architecture=architecture, source=source)


def software(*items: PythonDistribution | DebianPackage) -> Software:
    return Software(
        system="debian",
        system_version="12",
        python=tuple(item for item in items if isinstance(item, PythonDistribution)),
        debian=tuple(item for item in items if isinstance(item, DebianPackage)),
    )


def layer(name: str, size: int | None = 10, made_by: str = "") -> Layer:
    return Layer(diff_id=digest_of(name.encode()), size=size, made_by=made_by or f"RUN {name}")


CONFIGURATION = Configuration(
    os="linux",
    architecture="amd64",
    user="1000:1000",
    workdir="/workspace",
    entrypoint=("/usr/bin/tini", "--"),
    command=("/bin/bash",),
    environment={"PATH": "/usr/bin", "TZ": "Etc/UTC"},
    labels={"maintainer": "us"},
)
PASSED = Outcome(state=State.PASSED)
STANDING = Standing(
    reached=Level.CPU,
    failed=False,
    suite="5" * 64,
    finished=NOW,
    checks={
        "static.python": PASSED,
        "torch.train.amp": PASSED,
        "torch.gpu.train.amp": Outcome(state=State.NOT_RUN, reason="no GPU at hand"),
    },
)
IMAGE = Contents(
    reference="imgbuild/one:1",
    digest="sha256:" + "1" * 64,
    place=Place.ENGINE,
    size=30_000_000,
    layers=(layer("base", 20_000_000), layer("apt", 9_999_999), layer("last", 1)),
    configuration=CONFIGURATION,
    software=software(
        python("numpy", "2.4.5"), python("torch", "2.13.0+cpu"), debian("libc6", "2.36-9"), debian("tini", "0.19.0-1")
    ),
    standing=STANDING,
)


def another(*installed: PythonDistribution | DebianPackage, **changes: Any) -> Contents:
    """Like the image, but for its last layer, and what is installed where something is named."""
    changed = replace(IMAGE, reference="imgbuild/two:2", digest="sha256:" + "2" * 64)
    values: dict[str, Any] = {"layers": (*IMAGE.layers[:2], layer("other", 2)), **changes}
    if installed:
        values["software"] = software(*installed)
    return replace(changed, **values)


def text(found: Difference) -> str:
    return "\n".join(to_lines(found))


class TestNothing:
    """What does not differ."""

    def test_an_image_with_itself(self) -> None:
        found = compare(IMAGE, IMAGE)
        assert (found.python, found.debian, found.checks, found.level, found.settings) == ((), (), (), None, ())
        assert not found.differs
        assert len(text(found).splitlines()) == 4
        assert summary(found) == "nothing differs"
        assert to_document(found)["differs"] is False

    def test_the_same_files_have_the_same_packages_whatever_is_known(self) -> None:
        found = compare(replace(IMAGE, software=Unknown(why="no SBOM")), IMAGE)
        assert (found.python, found.debian, found.unknown) == ((), (), ())
        assert not found.differs

    def test_what_is_not_known_is_no_difference_and_is_said(self) -> None:
        found = compare(IMAGE, replace(IMAGE, standing=Unknown(why="no run")))
        assert (found.checks, found.level) == (None, None)
        assert found.unknown == ("checks of B: no run",)
        assert not found.differs
        assert summary(found) == "nothing that is known differs; not known: checks"

    def test_other_reasons_of_a_state_are_none(self) -> None:
        checks = {**STANDING.checks, "torch.gpu.train.amp": Outcome(state=State.NOT_RUN, reason="no driver")}
        assert not compare(IMAGE, replace(IMAGE, standing=replace(STANDING, checks=checks))).differs


class TestPackages:
    """Python and Debian packages."""

    def test_added_removed_and_changed(self) -> None:
        after = another(
            python("NumPy", "2.4.6"), python("horovod", "0.28.1"), debian("libc6", "2.36-9+deb12u1"), debian("git", "1")
        )
        found = compare(IMAGE, after)
        assert found.python == (
            PackageChange(name="horovod", before=(), after=("0.28.1",)),
            PackageChange(name="numpy", before=("2.4.5",), after=("2.4.6",)),
            PackageChange(name="torch", before=("2.13.0+cpu",), after=()),
        )
        assert [item.kind for item in found.python] == [Kind.ADDED, Kind.CHANGED, Kind.REMOVED]
        assert found.debian is not None
        assert [(item.name, item.kind) for item in found.debian] == [
            ("git", Kind.ADDED),
            ("libc6", Kind.CHANGED),
            ("tini", Kind.REMOVED),
        ]
        assert found.differs

    def test_a_second_copy_of_another_version_is_a_change_and_of_the_same_is_none(self) -> None:
        assert isinstance(IMAGE.software, Software)
        same = python("numpy", "2.4.5", location="/usr/lib/python3/dist-packages/numpy")
        for extra, changes in ((same, ()), (python("numpy", "1.26.4"), (("2.4.5",), ("1.26.4", "2.4.5")))):
            installed = replace(IMAGE.software, python=(*IMAGE.software.python, extra))
            found = compare(IMAGE, another(software=installed)).python
            assert found is not None
            assert tuple(side for item in found for side in (item.before, item.after)) == changes

    def test_a_package_for_another_architecture_is_one_of_its_own(self) -> None:
        plain = (debian("libc6", "2.36"), debian("tzdata", "1", "all"))
        found = compare(another(*plain), another(*plain, debian("libc6", "2.36", "i386"), layers=(layer("x"),)))
        assert found.debian == (PackageChange(name="libc6:i386", before=(), after=("2.36",)),)

    def test_the_same_package_for_each_image_s_own_architecture_is_the_same(self) -> None:
        arm = replace(CONFIGURATION, architecture="arm")
        one, other = another(debian("libc6", "2.36")), another(debian("libc6", "2.36", "armhf"), configuration=arm)
        assert compare(one, replace(other, layers=(layer("arm"),))).debian == ()

    def test_not_known_of_one_is_not_none(self) -> None:
        found = compare(IMAGE, another(software=Unknown(why="no SBOM is attached")))
        assert (found.python, found.debian) == (None, None)
        assert found.unknown == ("packages of B: no SBOM is attached",)
        assert "packages of B: no SBOM is attached" in text(found)
        assert to_document(found)["packages"] == {"python": None, "debian": None}


class TestLayers:
    """Which layers two images share, and how large the others are."""

    def test_shared_and_own(self) -> None:
        found = compare(IMAGE, another(size=30_000_001)).layers
        assert found.shared == IMAGE.layers[:2]
        assert [item.made_by for item in (*found.only_before, *found.only_after)] == ["RUN last", "RUN other"]
        assert compare(IMAGE, another(size=30_000_001)).growth == 1

    def test_a_layer_twice_and_once(self) -> None:
        twice = another(layers=(layer("base"), layer("same"), layer("same")))
        once = another(layers=(layer("base"), layer("same")))
        found = compare(twice, once).layers
        assert (len(found.shared), len(found.only_before), len(found.only_after)) == (2, 1, 0)
        found = compare(once, twice).layers
        assert (len(found.shared), len(found.only_before), len(found.only_after)) == (2, 0, 1)

    def test_another_order_is_another_image(self) -> None:
        found = compare(IMAGE, another(layers=IMAGE.layers[::-1]))
        assert found.differs
        assert "in another order" in text(found)

    def test_sizes_that_count_otherwise_are_not_compared(self) -> None:
        found = compare(IMAGE, another(place=Place.REGISTRY, size=5))
        assert found.growth is None
        assert len(found.layers.shared) == 2
        assert "sizes are not compared: A's are unpacked, B's compressed" in text(found)
        assert "2 shared, 1 only in A" in text(found)
        assert compare(another(place=Place.REGISTRY), another(place=Place.REGISTRY, size=5)).growth is not None

    def test_a_size_that_is_not_known(self) -> None:
        found = compare(IMAGE, another(layers=(replace(layer("x"), size=None, made_by=""),)))
        assert f"  +        ?  {digest_of(b'x')[:19]}…" in text(found)
        assert "1 only in B\n" in text(found)


class TestChecks:
    """The level and the states of checks."""

    def test_state_level_appearance(self) -> None:
        checks = {
            "torch.train.amp": Outcome(state=State.FAILED, reason="loss is nan"),
            "torch.gpu.train.amp": STANDING.checks["torch.gpu.train.amp"],
            "horovod.ranks": PASSED,
        }
        after = replace(IMAGE, standing=replace(STANDING, reached=None, failed=True, checks=checks, suite="6" * 64))
        found = compare(IMAGE, after)
        assert found.checks is not None
        assert [(item.name, item.kind) for item in found.checks] == [
            ("horovod.ranks", Kind.ADDED),
            ("static.python", Kind.REMOVED),
            ("torch.train.amp", Kind.CHANGED),
        ]
        assert found.level is not None
        assert (found.level.before, found.level.after) == (Level.CPU, None)
        assert found.suites
        shown = text(found)
        assert "Level: cpu → none" in shown
        assert "  ~ torch.train.amp passed → failed: loss is nan" in shown
        assert "Checks (the suites differ, too)" in shown

    def test_the_run_that_decides(self) -> None:
        def run(reached: Level | None, failed: bool = False, suite: str = "") -> Standing:
            return replace(STANDING, reached=reached, failed=failed, suite=suite)

        failure, static, cpu = run(None, failed=True), run(Level.STATIC), run(Level.CPU)
        assert deciding([]) is None
        assert deciding([failure, cpu]) is failure
        assert deciding([static, cpu]) is cpu
        assert deciding([static, failure, cpu]) is static
        assert deciding([cpu, run(Level.CPU, suite="old")]) is cpu
        incomplete = run(None)
        assert deciding([incomplete, cpu]) is cpu
        assert deciding([incomplete, run(None)]) is incomplete


class TestSettings:
    """The configuration."""

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"user": ""}, ("user", "1000:1000", None)),
            ({"workdir": "/x"}, ("workdir", "/workspace", "/x")),
            ({"entrypoint": ()}, ("entrypoint", '["/usr/bin/tini", "--"]', None)),
            ({"command": ("a b",)}, ("command", '["/bin/bash"]', '["a b"]')),
            ({"architecture": "arm64"}, ("platform", "linux/amd64", "linux/arm64")),
            ({"environment": {"PATH": "/usr/bin"}}, ("env TZ", "Etc/UTC", None)),
            ({"environment": {**CONFIGURATION.environment, "E": ""}}, ("env E", None, "")),
            ({"labels": {"maintainer": "them"}}, ("label maintainer", "us", "them")),
        ],
    )
    def test_each(self, changes: dict[str, Any], expected: tuple[str, str | None, str | None]) -> None:
        found = compare(IMAGE, replace(IMAGE, configuration=replace(CONFIGURATION, **changes)))
        assert [(item.name, item.before, item.after) for item in found.settings] == [expected]
        assert found.differs

    def test_an_empty_value_is_one(self) -> None:
        after = replace(CONFIGURATION, environment={**CONFIGURATION.environment, "E": ""})
        (found,) = compare(IMAGE, replace(IMAGE, configuration=after)).settings
        assert found.kind is Kind.ADDED
        assert '  + env E: ""' in text(compare(IMAGE, replace(IMAGE, configuration=after)))


class TestSaid:
    """The text and the JSON."""

    def test_the_whole_text(self) -> None:
        after = another(
            python("numpy", "2.4.6"),
            python("torch", "2.13.0+cpu"),
            python("horovod", "0.28.1"),
            debian("tini", "0.19.0-1"),
            debian("libc6", "2.36-10"),
            size=1_030_000_000,
            standing=replace(STANDING, reached=Level.STATIC, checks={"static.python": PASSED}),
            configuration=replace(CONFIGURATION, environment={"PATH": "/usr/bin", "TZ": "Europe/Berlin"}),
        )
        assert text(compare(IMAGE, after)) == (
            "A  imgbuild/one:1  sha256:111111111111…, 30.0 MB unpacked in 3 layers, level cpu\n"
            "B  imgbuild/two:2  sha256:222222222222…, 1.03 GB unpacked in 3 layers, level static\n"
            "\n"
            "Python packages\n"
            "  + horovod 0.28.1\n"
            "  ~ numpy 2.4.5 → 2.4.6\n"
            "\n"
            "Debian packages\n"
            "  ~ libc6 2.36-9 → 2.36-10\n"
            "\n"
            "Layers: 2 shared (30.0 MB), 1 only in A (1 B), 1 only in B (2 B)\n"
            "  -      1 B  RUN last\n"
            "  +      2 B  RUN other\n"
            "\n"
            "Level: cpu → static\n"
            "\n"
            "Checks\n"
            "  - torch.gpu.train.amp not run\n"
            "  - torch.train.amp passed\n"
            "\n"
            "Configuration\n"
            "  ~ env TZ: Etc/UTC → Europe/Berlin\n"
            "\n"
            "differs: 2 Python packages: 1 added, 1 changed; 1 Debian package changed; 1 of A's layers and 1 of B's "
            "are not shared, +1.00 GB; level cpu → static; 2 checks removed; 1 setting changed"
        )

    def test_the_document(self) -> None:
        after = another(python("numpy", "2.4.6"), standing=replace(STANDING, checks={}))
        document = json.loads(json.dumps(to_document(compare(IMAGE, after))))
        assert document["schema"] == "imgbuild.diff/1"
        assert document["differs"] is True
        assert document["packages"]["python"][0] == {
            "name": "numpy",
            "change": "changed",
            "before": ["2.4.5"],
            "after": ["2.4.6"],
        }
        assert [len(document["layers"][part]) for part in ("shared", "only_a", "only_b")] == [2, 1, 1]
        assert document["level"] == {"before": "cpu", "after": "cpu"}
        assert document["checks"][0]["before"] == {"state": "passed", "reason": None}
        assert document["checks"][0]["after"] is None
        assert document["a"]["checked"]["finished"] == "2026-03-01T12:00:00Z"

    def test_what_an_image_says_moves_no_cursor_and_shows_no_password(self) -> None:
        labels = {"a\x1b[2J": "\x1b[31mred", "index": "https://me:canary@host/simple"}
        standing = replace(STANDING, checks={"x\x1by": Outcome(state=State.FAILED, reason="\x1b]0;title\x07")})
        after = another(
            python("evil\x1b", "1\r2"),
            debian("deb\x1b", "1"),
            layers=(layer("x", 1, "RUN \x1b[1m --index https://me:canary@host/"),),
            configuration=replace(CONFIGURATION, labels=labels),
            standing=standing,
        )
        found = compare(IMAGE, after)
        shown = text(found)
        assert all(line.isprintable() for line in shown.splitlines())
        assert "red" in shown
        assert "canary" not in shown + json.dumps(to_document(found))
        assert "host/simple" in shown

    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("r/i:1", "A  r/i:1  sha256:111111111111…, "),
            (IMAGE.digest, "A  sha256:111111111111…, "),
            (f"r/i@{IMAGE.digest}", "A  r/i  sha256:111111111111…, "),
            ("r/i:1@" + IMAGE.digest, "A  r/i:1  sha256:111111111111…, "),
        ],
    )
    def test_a_digest_is_said_once(self, reference: str, expected: str) -> None:
        assert text(compare(replace(IMAGE, reference=reference), IMAGE)).startswith(expected)

    @pytest.mark.parametrize(
        ("count", "expected"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (-1500, "-1.5 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_503_834, "4.5 MB"),
            (999_950_000, "1.00 GB"),
            (12_345_678_901, "12.35 GB"),
        ],
    )
    def test_sizes(self, count: int, expected: str) -> None:
        assert size(count) == expected

    def test_a_long_text_loses_its_middle(self) -> None:
        assert clean("a" * 30 + "b" * 30, 30) == "a" * 10 + "…" + "b" * 19
        assert clean("a" * 30, 30) == "a" * 30


class TestHistory:
    """Which step of an engine's history made which layer."""

    @pytest.mark.parametrize(
        ("created_by", "expected"),
        [
            ("RUN /bin/sh -c apt-get   update # buildkit", "RUN apt-get update"),
            ("RUN |2 TOKEN=canary B=a b /bin/sh -c true # buildkit", "RUN true"),
            ("/bin/sh -c make", "RUN make"),
            ("|1 A=canary /bin/sh -c make", "RUN make"),
            ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
            ("/bin/sh -c #(nop) COPY file:12 in / ", "COPY file:12 in /"),
            ("COPY a b # buildkit", "COPY a b"),
            ("imgbuild: made from packages", "imgbuild: made from packages"),
            ("", ""),
        ],
    )
    def test_instructions(self, created_by: str, expected: str) -> None:
        assert instruction(created_by) == expected

    def test_steps_that_made_layers(self) -> None:
        base = Step(created_by="imported", size=7)
        workdir = Step(created_by="WORKDIR /x", size=0)
        touch = Step(created_by="RUN /bin/sh -c true # buildkit", size=0)
        env = Step(created_by="ENV A=RUN", size=0)
        copy = Step(created_by="COPY a b # buildkit", size=3)
        assert of_layers((base, env, copy), 2) == (base, copy)
        assert of_layers((base, env, workdir, copy), 3) == (base, workdir, copy)
        assert of_layers((base, env, workdir, copy), 2) == (base, copy)
        assert of_layers((base, touch, workdir, copy), 3) == (base, touch, copy)
        assert of_layers((base, touch, workdir, copy), 5) is None
        assert of_layers((), 1) is None


SUBJECT = Subject(name="registry.example/team/image", sha256="a" * 64)
INSTALLED = software(
    python("numpy", "2.4.6", license="BSD-3-Clause", spdx=True),
    python("numpy", "2.4.6", license="BSD-3-Clause", spdx=True, location="/usr/lib/python3/dist-packages/numpy"),
    python("torch", "2.13.0+cpu", license="New BSD", sha256="7" * 64),
    python("versionless", ""),
    debian("g++", "4:12.2.0-3", source="gcc-defaults"),
    debian("tzdata", "2026a", "all"),
)


def statement_of(change: Callable[[dict[str, Any]], object] = lambda bill: None) -> Statement:
    bill = json.loads(json.dumps(bill_of_materials(INSTALLED, SUBJECT, timestamp=NOW)))
    change(bill)
    return Statement(subjects=(SUBJECT,), predicate_type=CYCLONEDX, predicate=bill)


def _component(bill: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in bill["components"] if kind in (item["type"], item.get("purl", "")[: len(kind)]))


class TestBill:
    """Reading a bill of materials back."""

    def test_what_was_written(self) -> None:
        found = parse_bill(statement_of())
        assert found.software == INSTALLED
        assert found.timestamp == NOW

    def test_nothing_installed(self) -> None:
        nothing = Software(system="", system_version="", python=(), debian=())
        bill = bill_of_materials(nothing, SUBJECT, timestamp=NOW)
        statement = Statement(subjects=(SUBJECT,), predicate_type=CYCLONEDX, predicate=bill)
        assert parse_bill(statement).software == nothing

    def test_a_hash_of_the_lock_is_taken(self) -> None:
        locked = {"numpy": LockedPackage(name="numpy", version="2.4.6", file="numpy.whl", sha256="8" * 64)}
        bill = bill_of_materials(INSTALLED, SUBJECT, timestamp=NOW, locked=locked)
        found = parse_bill(Statement(subjects=(SUBJECT,), predicate_type=CYCLONEDX, predicate=bill)).software
        assert {item.sha256 for item in found.python if item.name == "numpy"} == {"8" * 64}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda bill: bill.update(specVersion="1.5"), "expected CycloneDX 1.6"),
            (lambda bill: bill.update(components=None), "components is not a list"),
            (lambda bill: bill["components"].append({"type": "library", "purl": "pkg:npm/left-pad@1"}), "npm"),
            (lambda bill: bill["components"].append({"type": "library", "name": "x"}), "does not write"),
            (lambda bill: bill["components"].append(_component(bill, "operating-system")), "several operating"),
            (lambda bill: _component(bill, "pkg:pypi").update(version="9"), "a component is numpy 9"),
            (lambda bill: _component(bill, "pkg:pypi").update(evidence={"occurrences": []}), "is nowhere"),
            (lambda bill: _component(bill, "pkg:deb").update(name="gcc"), "a component is gcc"),
            (lambda bill: _component(bill, "operating-system").update(version="13"), "a component is g"),
            (lambda bill: bill["metadata"].update(timestamp="yesterday"), "timestamp"),
            (lambda bill: bill["metadata"]["component"].update(hashes=[]), "one hash"),
            (
                lambda bill: bill["metadata"]["component"]["hashes"][0].update(content="b" * 64),
                "about another image than its statement",
            ),
        ],
    )
    def test_what_is_not_ours_or_contradicts_itself(
        self, change: Callable[[dict[str, Any]], object], message: str
    ) -> None:
        with pytest.raises(Refused, match=message):
            parse_bill(statement_of(change))

    def test_another_predicate(self) -> None:
        with pytest.raises(Refused) as caught:
            parse_bill(replace(statement_of(), predicate_type="https://slsa.dev/provenance/v1"))
        assert caught.value.refusal is Refusal.OTHER_PREDICATE


REFERENCE = "registry.example/team/image:1"


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path)


def put(repository: MemoryRepository, *, history: bool = True, variables: Iterable[str] = ("A=b=c", "E=")) -> Manifest:
    """An image with two layers of 100 and 5 bytes."""
    steps = [
        {"created_by": "imported"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "RUN /bin/sh -c make # buildkit"},
    ]
    config = repository.put_blob(
        to_bytes(
            {
                "os": "linux",
                "architecture": "amd64",
                "config": {
                    "Env": list(variables),
                    "User": "u",
                    "Cmd": ["x"],
                    "Entrypoint": None,
                    "Labels": {"l": "v"},
                },
                "rootfs": {"diff_ids": [digest_of(b"one"), digest_of(b"two")]},
                **({"history": steps} if history else {}),
            }
        )
    )
    layers = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest_of(bytes(count)), "size": count}
        for count in (100, 5)
    ]
    image = {"mediaType": "application/vnd.oci.image.config.v1+json", **config.to_json()}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": image, "layers": layers}
    return repository.manifests[repository.put_manifest("1", to_bytes(document), OCI_MANIFEST)]


def add(repository: MemoryRepository, image: Manifest, statement: bytes, predicate: str, key: SigningKey) -> None:
    annotations = {BUNDLE_CONTENT: "dsse-envelope", BUNDLE_PREDICATE: predicate}
    attach(
        repository,
        image.descriptor,
        artifact_type=BUNDLE_TYPE,
        payload=sign(statement, key),
        payload_type=BUNDLE_TYPE,
        annotations=annotations,
    )


def add_sbom(
    repository: MemoryRepository, image: Manifest, key: SigningKey, installed: Software, days: int = 0
) -> None:
    subject = Subject(name="registry.example/team/image", sha256=image.digest.removeprefix("sha256:"))
    made = sbom(installed, (subject,), timestamp=NOW + timedelta(days=days))
    add(repository, image, made, CYCLONEDX, key)


class TestRegistry:
    """What a registry tells, without a layer being fetched."""

    def test_layers_and_configuration(self, key: SigningKey) -> None:
        repository = MemoryRepository()
        image = put(repository)
        found = remote_contents(repository, image.digest, REFERENCE, [key.public])
        assert found.layers == (
            Layer(diff_id=digest_of(b"one"), size=100, made_by="imported"),
            Layer(diff_id=digest_of(b"two"), size=5, made_by="RUN make"),
        )
        assert (found.size, found.place) == (105, Place.REGISTRY)
        assert found.configuration == Configuration(
            os="linux",
            architecture="amd64",
            user="u",
            workdir="",
            entrypoint=(),
            command=("x",),
            environment={"A": "b=c", "E": ""},
            labels={"l": "v"},
        )

    @pytest.mark.parametrize(("variables", "value"), [(["A=b", "A=c"], "b, then c"), (["A=c"], "c")])
    def test_a_variable_that_is_set_twice(self, key: SigningKey, variables: list[str], value: str) -> None:
        repository = MemoryRepository()
        image = put(repository, variables=variables)
        found = remote_contents(repository, image.digest, REFERENCE, [key.public])
        assert found.configuration.environment == {"A": value}

    def test_an_image_without_history(self, key: SigningKey) -> None:
        repository = MemoryRepository()
        image = put(repository, history=False)
        found = remote_contents(repository, image.digest, REFERENCE, [key.public])
        assert [item.made_by for item in found.layers] == ["", ""]

    def test_trusted_evidence_is_read_the_last_sbom_first(self, key: SigningKey) -> None:
        repository = MemoryRepository()
        image = put(repository)
        add_sbom(repository, image, key, INSTALLED, days=1)
        add_sbom(repository, image, key, software(), days=0)
        subject = Subject(name="registry.example/team/image", sha256=image.digest.removeprefix("sha256:"))
        rows = (
            outcome("static.python", level=Level.STATIC),
            outcome("torch.train.amp"),
            outcome("torch.gpu.train.amp", Status.NOT_RUN, Level.GPU, "no GPU was given"),
        )
        made = check_statement(checked(subjects=(subject,), verdict=verdict(checks=rows)))
        add(repository, image, made, "https://in-toto.io/attestation/test-result/v0.1", key)
        found = remote_contents(repository, image.digest, REFERENCE, [key.public])
        assert found.software == INSTALLED
        assert isinstance(found.standing, Standing)
        assert found.standing.reached is Level.CPU
        assert found.standing.checks == {
            "static.python": PASSED,
            "torch.train.amp": PASSED,
            "torch.gpu.train.amp": Outcome(state=State.NOT_RUN, reason="no GPU was given"),
        }

    def test_without_evidence_nothing_is_known_and_how_to_get_it_is_said(self, key: SigningKey) -> None:
        repository = MemoryRepository()
        image = put(repository)
        found = remote_contents(repository, image.digest, REFERENCE, [key.public])
        assert isinstance(found.software, Unknown)
        assert "no SBOM is attached: `imgbuild publish` attaches one" in found.software.why
        assert isinstance(found.standing, Unknown)
        assert f"`imgbuild check --image registry.example/team/image@{image.digest} --attach`" in found.standing.why

    def test_evidence_that_does_not_count_tells_nothing(self, key: SigningKey, tmp_path: Path) -> None:
        repository = MemoryRepository()
        image = put(repository)
        add_sbom(repository, image, signing_key(tmp_path, name="other"), INSTALLED)
        for trusted, reason in (([key.public], "which is not trusted here"), ([], "no key is trusted here")):
            found = remote_contents(repository, image.digest, REFERENCE, trusted)
            assert isinstance(found.software, Unknown)
            assert "no SBOM of it counts" in found.software.why
            assert reason in found.software.why
            assert isinstance(found.standing, Unknown)

    def test_a_trusted_bill_of_another_tool_tells_nothing(self, key: SigningKey) -> None:
        repository = MemoryRepository()
        image = put(repository)
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "x", "digest": {"sha256": image.digest.removeprefix("sha256:")}}],
            "predicateType": CYCLONEDX,
            "predicate": {"bomFormat": "CycloneDX", "specVersion": "1.4", "components": []},
        }
        add(repository, image, json.dumps(statement).encode(), CYCLONEDX, key)
        found = remote_contents(repository, image.digest, REFERENCE, [key.public])
        assert isinstance(found.software, Unknown)
        assert "expected CycloneDX 1.6" in found.software.why
