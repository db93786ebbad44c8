"""Environments: which file of a release is locked, which request installs what, what stays and what moves."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.errors import ConfigError, ImgbuildError, Impossible, IndexUnavailable, Interrupted, NotLocked
from builder.lock.file import Locks, constraints_sha256
from builder.lock.model import BaseLock, DebianRequest, EnvironmentLock, MadeBase, PythonRequest, Requests
from builder.matrix import Base, Bootstrap, Channel
from builder.resolve.indexes import sources_of
from builder.resolve.machine import lock_environments
from builder.resolve.plan import Change, Environment, Ground, base_changes, environment_changes, known_packages
from builder.resolve.pylock import Release, ReleaseFile
from builder.resolve.python import Upgrade, lock_environment
from builder.resolve.target import Target, glibc_of
from builder.resolve.uv import Uv, built_in_index
from builder.site import Site

TARGET = Target(python="3.11", glibc=(2, 36))
NAME = "torch-2.13.0-cpu-py3.11-bookworm"


def write_pylock(text: str) -> str:
    """A script that writes this to where it is told to write."""
    return f'while [ "$1" != --output-file ]; do shift; done; cat > "$2" <<"END"\n{text}\nEND'


def wheel(name: str, tag: str = "py3-none-any") -> str:
    return f"{name}-1.0-{tag}.whl"


@pytest.mark.parametrize(
    ("files", "best"),
    [
        (["py3-none-any"], "py3-none-any"),
        (["py3-none-any", "cp311-cp311-manylinux_2_17_x86_64"], "cp311-cp311-manylinux_2_17_x86_64"),
        (
            ["cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_28_x86_64"],
            "cp311-cp311-manylinux_2_28_x86_64",
        ),
        (
            ["cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_39_x86_64"],
            "cp311-cp311-manylinux_2_28_x86_64",
        ),
        (["cp38-abi3-manylinux2014_x86_64", "cp312-cp312-manylinux2014_x86_64"], "cp38-abi3-manylinux2014_x86_64"),
        (["cp36-abi3-manylinux1_x86_64", "cp310-abi3-manylinux1_x86_64"], "cp310-abi3-manylinux1_x86_64"),
        (["py3-none-manylinux_2_31_x86_64", "py3-none-any"], "py3-none-manylinux_2_31_x86_64"),
        (["cp311-cp311-musllinux_1_2_x86_64", "cp311-cp311-win_amd64", "cp311-cp311-macosx_11_0_arm64"], None),
        (["cp311-cp311-manylinux_2_17_aarch64"], None),
        (["cp311-cp311-linux_x86_64"], "cp311-cp311-linux_x86_64"),
        (
            ["cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"],
            "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
        ),
        ([], None),
    ],
)
def test_the_wheel_that_fits_best_is_locked_in_whatever_order_it_is_listed(files: list[str], best: str | None) -> None:
    expected = None if best is None else wheel("a", best)
    for order in (files, files[::-1]):
        assert TARGET.best(wheel("a", tag) for tag in order) == expected


def test_a_source_distribution_is_locked_only_where_no_wheel_fits() -> None:
    assert TARGET.best(["a-1.0.tar.gz", wheel("a", "cp312-cp312-manylinux2014_x86_64")]) == "a-1.0.tar.gz"
    assert TARGET.best(["a-1.0.zip", "a-1.0.tar.gz"]) == "a-1.0.tar.gz"
    assert TARGET.best(["a-1.0.tar.gz", wheel("a")]) == wheel("a")
    assert TARGET.best(["not a wheel.whl"]) is None


def test_of_two_builds_the_higher_one_is_locked() -> None:
    assert TARGET.best(["a-1.0-2-py3-none-any.whl", "a-1.0-10-py3-none-any.whl"]) == "a-1.0-10-py3-none-any.whl"


@pytest.mark.parametrize(
    ("image", "suite", "glibc"),
    [
        ("debian:bookworm-slim", None, (2, 36)),
        ("debian:13", None, (2, 41)),
        ("nvidia/cuda:12.6.3-base-ubuntu22.04", None, (2, 35)),
        ("nvidia/cuda:13.0.1-runtime-ubi9", None, (2, 34)),
        ("registry.example:5000/team/python:3.11-bullseye", None, (2, 31)),
        ("mirror.example/whatever:7", "trixie", (2, 41)),
        ("mirror.example/whatever:7", None, (2, 28)),
    ],
)
def test_the_glibc_is_that_of_the_base(image: str, suite: str | None, glibc: tuple[int, int]) -> None:
    bootstrap = Bootstrap(distribution="debian", suite=suite, include=()) if suite else None
    base = Base(name="b", image=image, digest=None, bootstrap=bootstrap, pythons=())
    assert glibc_of(base) == glibc


@dataclass
class FakeIndex:
    """A resolver over a table: newest version first, dependencies by name, no conflicts but with constraints."""

    table: dict[str, dict[str, list[str]]]
    hashes: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    runs: list[tuple[str, ...]] = field(default_factory=list)

    def releases(
        self,
        requirements: Iterable[str],
        *,
        constraints: str = "",
        preferred: Mapping[str, str] | None = None,
        deps: bool = True,
    ) -> tuple[Release, ...]:
        wanted = tuple(requirements)
        self.runs.append(wanted)
        pins = dict(line.split("==") for line in constraints.splitlines() if "==" in line)
        found: dict[str, Release] = {}
        open_ = list(wanted)
        while open_:
            name, _, exact = open_.pop().partition("==")
            if name in found:
                continue
            if name not in self.table:
                raise Impossible(f"Because {name} was not found in the package registry, it is unsatisfiable.")
            versions = self.table[name]
            liked = exact or pins.get(name) or (preferred or {}).get(name)
            version = liked if liked in versions else next(iter(versions))
            if exact and exact not in versions:
                raise Impossible(f"Because there is no version of {name}=={exact}, it is unsatisfiable.")
            files = self.files.get(name) or [f"{name}-{version}-py3-none-any.whl"]
            found[name] = Release(
                name=name,
                version=version,
                files=tuple(
                    ReleaseFile(name=f, url=f"https://x/{f}", sha256=self.hashes.get(f, f"{len(f):064x}"))
                    for f in files
                ),
            )
            open_ += versions[version] if deps else []
        return tuple(found.values())

    def names(self, requirements: Iterable[str], pins: Mapping[str, str]) -> frozenset[str]:
        self.runs.append(tuple(requirements))
        found: set[str] = set()
        open_ = list(requirements)
        while open_:
            name = open_.pop().partition("==")[0]
            if name not in found:
                found.add(name)
                open_ += self.table[name][pins[name]]
        return frozenset(found)


def index() -> FakeIndex:
    return FakeIndex(
        table={
            "torch": {"2.13.0": ["numpy", "sympy"]},
            "numpy": {"2.5.0": [], "2.4.6": []},
            "sympy": {"1.14.0": ["mpmath"]},
            "mpmath": {"1.3.0": []},
            "horovod": {"0.28.1": ["psutil", "cloudpickle"]},
            "psutil": {"7.0": []},
            "cloudpickle": {"3.1": []},
            "dask": {"2026.8": ["cloudpickle", "numpy"]},
        }
    )


FRAMEWORK = PythonRequest(requirements=("numpy", "torch==2.13.0"), after=())
HOROVOD = PythonRequest(requirements=("horovod",), after=FRAMEWORK.requirements, deps=False)
PSUTIL = PythonRequest(requirements=("psutil",), after=("horovod", *FRAMEWORK.requirements))
DASK = PythonRequest(requirements=("dask",), after=FRAMEWORK.requirements)
DASK_LATER = PythonRequest(requirements=("dask",), after=tuple(sorted((*PSUTIL.after, "psutil"))))


def asked(*python: PythonRequest, constraints: str = "") -> Requests:
    return Requests(python=python, debian=(), constraints=constraints)


CELLS = {"plain": asked(FRAMEWORK, DASK), "horovod": asked(FRAMEWORK, HOROVOD, PSUTIL, DASK_LATER)}


def lock(
    source: FakeIndex,
    requests: Mapping[str, Requests] = CELLS,
    *,
    previous: EnvironmentLock | None = None,
    upgrade: Upgrade | None = None,
) -> EnvironmentLock:
    return lock_environment(
        NAME,
        requests,
        target=TARGET,
        resolver=lambda: source,
        hash_of=lambda url: "e" * 64,
        previous=previous,
        upgrade=upgrade or Upgrade(),
    )


def installs(found: EnvironmentLock, request: PythonRequest) -> tuple[str, ...]:
    return found.installs[request]


def test_a_request_installs_what_those_before_it_have_not() -> None:
    found = lock(index())
    assert installs(found, FRAMEWORK) == ("mpmath", "numpy", "sympy", "torch")
    assert installs(found, DASK) == ("cloudpickle", "dask")
    assert installs(found, PSUTIL) == ("psutil",)


def test_without_dependencies_only_what_is_named_is_installed_and_counts_as_there() -> None:
    found = lock(index())
    assert installs(found, HOROVOD) == ("horovod",)
    # Horovod brought no cloudpickle, so whoever builds on it must bring its own.
    assert installs(found, DASK_LATER) == ("cloudpickle", "dask")


def test_dependencies_that_only_another_cell_has_do_not_count_as_there() -> None:
    whole = dataclasses.replace(HOROVOD, deps=True)
    found = lock(index(), {**CELLS, "whole": asked(FRAMEWORK, whole, PSUTIL, DASK_LATER)})
    assert installs(found, whole) == ("cloudpickle", "horovod", "psutil")
    assert installs(found, DASK_LATER) == ("cloudpickle", "dask")
    alone = lock(index(), {"whole": asked(FRAMEWORK, whole, DASK_LATER)})
    assert installs(alone, DASK_LATER) == ("dask",)


def test_what_nothing_installs_is_not_locked() -> None:
    found = lock(index(), {"one": asked(FRAMEWORK, HOROVOD)})
    assert sorted(found.packages) == ["horovod", "mpmath", "numpy", "sympy", "torch"]


def test_all_cells_share_one_version_of_everything() -> None:
    source = index()
    found = lock(source)
    assert source.runs[0] == ("dask", "numpy", "psutil", "torch==2.13.0")
    assert {name: package.version for name, package in found.packages.items()}["numpy"] == "2.5.0"


def test_a_lock_that_has_everything_is_not_resolved_again() -> None:
    source = index()
    first = lock(source)
    source.runs.clear()
    assert lock(source, previous=first) == first
    assert source.runs == []


def test_what_is_added_leaves_what_is_locked_at_its_version() -> None:
    old = index()
    del old.table["numpy"]["2.5.0"]
    first = lock(old, {"plain": asked(FRAMEWORK)})
    again = lock(index(), previous=first)
    assert again.packages["numpy"] == first.packages["numpy"]
    assert lock(index()).packages["numpy"].version == "2.5.0", "which would be the newest"
    assert "dask" in again.packages


def test_what_nothing_asks_for_any_more_goes_without_resolving() -> None:
    source = index()
    first = lock(source)
    source.runs.clear()
    less = lock(source, {"plain": asked(FRAMEWORK)}, previous=first)
    assert (sorted(less.packages), source.runs) == (["mpmath", "numpy", "sympy", "torch"], [])
    assert len(less.installs) == 1


@pytest.mark.parametrize(
    ("upgrade", "numpy", "cloudpickle"),
    [
        (Upgrade(), "2.4.6", "3.1"),
        (Upgrade(packages=frozenset({"numpy"})), "2.5.0", "3.1"),
        (Upgrade(packages=frozenset({"cloudpickle"})), "2.4.6", "3.2"),
        (Upgrade(everything=True), "2.5.0", "3.2"),
    ],
)
def test_an_upgrade_moves_what_it_names_and_nothing_else(upgrade: Upgrade, numpy: str, cloudpickle: str) -> None:
    old = index()
    del old.table["numpy"]["2.5.0"]
    first = lock(old)
    new = index()
    new.table["cloudpickle"] = {"3.2": [], "3.1": []}
    found = lock(new, previous=first, upgrade=upgrade)
    assert (found.packages["numpy"].version, found.packages["cloudpickle"].version) == (numpy, cloudpickle)


def test_changed_constraints_are_heeded() -> None:
    first = lock(index(), {"plain": asked(FRAMEWORK)})
    assert first.packages["numpy"].version == "2.5.0"
    text = "numpy==2.4.6\n"
    found = lock(index(), {"plain": asked(FRAMEWORK, constraints=text)}, previous=first)
    assert (found.packages["numpy"].version, found.constraints) == ("2.4.6", constraints_sha256(text))


def test_cells_that_share_an_environment_share_its_constraints() -> None:
    with pytest.raises(ConfigError, match="cells a and b share an environment and have different constraints"):
        lock(index(), {"a": asked(FRAMEWORK), "b": asked(FRAMEWORK, constraints="numpy<3")})


def test_a_hash_that_the_index_does_not_give_is_computed() -> None:
    source = index()
    source.hashes["mpmath-1.3.0-py3-none-any.whl"] = None
    found = lock(source)
    assert found.packages["mpmath"].sha256 == "e" * 64
    assert found.packages["sympy"].sha256 == f"{len('sympy-1.14.0-py3-none-any.whl'):064x}"


def test_a_better_file_of_a_locked_release_waits_for_an_upgrade() -> None:
    first = lock(index(), {"plain": asked(FRAMEWORK)})
    new = index()
    new.files["numpy"] = ["numpy-2.5.0-py3-none-any.whl", "numpy-2.5.0-cp311-cp311-manylinux_2_28_x86_64.whl"]
    assert lock(new, previous=first).packages["numpy"] == first.packages["numpy"]
    moved = lock(new, previous=first, upgrade=Upgrade(packages=frozenset({"numpy"})))
    assert moved.packages["numpy"].file == "numpy-2.5.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    told = environment_changes(environment({"plain": asked(FRAMEWORK)}), first, moved)
    (change,) = [change for change in told if change.package == "numpy"]
    assert str(change) == "numpy 2.5.0: another file"


def test_an_index_that_changes_the_bytes_of_a_locked_file_is_not_believed() -> None:
    first = lock(index(), {"plain": asked(FRAMEWORK)})
    new = index()
    new.hashes["numpy-2.5.0-py3-none-any.whl"] = "d" * 64
    with pytest.raises(NotLocked, match="the index now says dddd") as caught:
        lock(new, previous=first)
    assert "imgbuild lock --upgrade numpy" in caught.value.hint


def test_a_release_without_a_file_for_this_python_says_what_there_is() -> None:
    source = index()
    source.files["numpy"] = ["numpy-2.5.0-cp39-cp39-manylinux_2_28_x86_64.whl"]
    with pytest.raises(
        Impossible, match=r"numpy 2\.5\.0 has no file for Python 3\.11 on glibc 2\.36, only numpy-2\.5\.0-cp39"
    ):
        lock(source)


def test_requirements_that_contradict_each_other_are_told_with_their_cells() -> None:
    source = index()
    bad = PythonRequest(requirements=("torch==9.9",), after=())
    with pytest.raises(Impossible) as caught:
        lock(source, {"plain": asked(FRAMEWORK), "other": asked(bad)})
    assert caught.value.where == NAME
    assert "torch==9.9 is asked for by other" in caught.value.hint
    assert "torch==2.13.0 is asked for by plain" in caught.value.hint


def environment(requests: Mapping[str, Requests] = CELLS) -> Environment:
    return Environment(name=NAME, target=TARGET, channel=None, framework={"torch": "2.13.0"}, requests=requests)


def test_changes_are_told_in_words_and_for_the_cells_whose_images_they_change() -> None:
    old, new = index(), index()
    old.table["psutil"] = {"6.0": []}
    old.table["dask"] = {"2026.1": ["cloudpickle"]}
    one = {"plain": asked(FRAMEWORK), "horovod": CELLS["horovod"]}
    before = lock(old, one)
    after = lock(new, one, previous=before, upgrade=Upgrade(everything=True))
    assert [(str(change), change.cells) for change in environment_changes(environment(one), before, after)] == [
        ("dask 2026.1 -> 2026.8", ("horovod",)),
        ("psutil 6.0 -> 7.0", ("horovod",)),
    ]
    assert environment_changes(environment(one), after, after) == ()


def test_a_cell_that_asks_for_what_others_have_is_told_although_no_version_moves() -> None:
    before = lock(index(), {**CELLS, "later": asked(FRAMEWORK)})
    cells = {**CELLS, "later": asked(FRAMEWORK, DASK)}
    added = (Change(package="cloudpickle", before=None, after="3.1", cells=("later",)),)
    # The lock itself has nothing new: another cell asks for the same.
    assert environment_changes(environment(cells), before, lock(index(), cells, previous=before)) == ()
    psutil = dataclasses.replace(DASK, requirements=("cloudpickle",))
    cells["later"] = asked(FRAMEWORK, psutil)
    assert environment_changes(environment(cells), before, lock(index(), cells, previous=before)) == added


def test_what_no_cell_installs_any_more_is_told_as_gone() -> None:
    before, fewer = lock(index()), {"plain": asked(FRAMEWORK)}
    told = environment_changes(environment(fewer), before, lock(index(), fewer, previous=before))
    assert {(str(change), change.cells) for change in told} == {
        (f"{name} is gone", ()) for name in ("cloudpickle 3.1", "dask 2026.8", "horovod 0.28.1", "psutil 7.0")
    }


def test_changes_of_a_base_concern_its_cells_and_those_of_a_request_who_asks() -> None:
    python, compiler = (DebianRequest(packages=(name,), after=()) for name in ("python3", "g++"))
    before = BaseLock(
        name="own",
        image="debian:12",
        refreshed="2026-01-02",
        digest=None,
        why="no registry",
        made=MadeBase(recipe="0" * 64, packages={"libc6": "1"}),
        installs={python: {"python3": "3.11.2"}, compiler: {"g++": "12"}},
    )
    after = dataclasses.replace(
        before,
        made=MadeBase(recipe="0" * 64, packages={"libc6": "2"}),
        installs={python: {"python3": "3.11.2"}, compiler: {"g++": "13"}},
    )
    ground = Ground(
        base=Base(name="own", image="debian:12", digest=None, bootstrap=None, pythons=()),
        requests={"plain": (python,), "horovod": (python, compiler)},
    )
    assert [(str(change), change.cells) for change in base_changes(ground, before, after)] == [
        ("g++ 12 -> 13", ("horovod",)),
        ("libc6 1 -> 2", ("plain", "horovod")),
    ]
    pinned = dataclasses.replace(before, digest="sha256:" + "1" * 64, why="")
    (change,) = base_changes(ground, before, pinned)
    assert (change.package, change.before, change.cells) == ("digest", "none, no registry", ("plain", "horovod"))
    assert base_changes(ground, before, before) == ()


def test_environments_are_prepared_one_after_the_other_and_what_ails_all_is_told_once(
    monkeypatch: pytest.MonkeyPatch, site: Site, tmp_path: Path
) -> None:
    inside, most = 0, 0

    def find() -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        raise ConfigError("there is no uv")

    monkeypatch.setattr("builder.resolve.machine.find_uv", find)
    several = [dataclasses.replace(environment(), name=f"{NAME}-{number}") for number in range(4)]
    # One of another kind: its cells contradict each other before anything is prepared.
    torn = {"a": asked(FRAMEWORK, constraints="numpy<2"), "b": asked(FRAMEWORK)}
    told: list[ImgbuildError] = []
    with pytest.raises(ConfigError, match="there is no uv"):
        lock_environments(
            [*several, environment(torn)],
            Locks(tmp_path),
            site=site,
            upgrade=Upgrade(),
            cancel=threading.Event(),
            on_failure=told.append,
        )
    assert most == 1
    assert ["different constraints" in error.message for error in told] == [True]


def test_an_upgrade_of_what_is_not_locked_names_the_nearest() -> None:
    found = lock(index())
    assert known_packages(["Torch", "debian"], [found, None]) == {"torch"}
    with pytest.raises(ConfigError) as caught:
        known_packages(["numpi"], [found])
    assert "numpy" in caught.value.hint
    with pytest.raises(ConfigError, match="not among the locked packages"):
        known_packages(["numpy"], [None])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(state_dir=tmp_path / "state", config=tmp_path / "site.yaml")


CHANNEL = Channel(name="pytorch-cpu", url="https://wheels.example/cpu")


def urls(site: Site, channel: Channel | None = CHANNEL) -> list[str]:
    found = sources_of(site, channel, {"torch": "2.13.0+cpu"}, TARGET, lambda: "https://built-in.example/simple")
    return [index.url for index in found.indexes]


def test_a_build_and_a_lock_ask_the_same_indexes(site: Site, tmp_path: Path) -> None:
    assert urls(site) == ["https://built-in.example/simple", CHANNEL.url]
    assert urls(site, None) == ["https://built-in.example/simple"]
    own = dataclasses.replace(site, index_url="https://a.example/simple", extra_index_urls=("https://b.example/s",))
    assert urls(own) == ["https://a.example/simple", "https://b.example/s", CHANNEL.url]
    assert urls(dataclasses.replace(own, no_index=True)) == []
    moved = dataclasses.replace(site, channels={"pytorch-cpu": "https://mirror.example/cpu"})
    assert urls(moved)[1:] == ["https://mirror.example/cpu"]
    assert urls(dataclasses.replace(site, channels={"pytorch-cpu": ""}))[1:] == []


def test_the_channel_is_not_asked_for_a_wheel_that_the_site_has(site: Site, tmp_path: Path) -> None:
    links = dataclasses.replace(site, find_links=(str(tmp_path / "wheels"), str(tmp_path / "absent")))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
    assert CHANNEL.url in urls(links), "a wheel for another Python is none"
    (tmp_path / "wheels" / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert CHANNEL.url not in urls(links)
    assert sources_of(links, None, {}, TARGET, lambda: "https://x").links == (str(tmp_path / "wheels"),)


def test_an_index_directory_that_is_not_there_is_told_with_its_setting(site: Site, tmp_path: Path) -> None:
    gone = dataclasses.replace(
        site, extra_index_urls=((tmp_path / "gone").as_uri(),), origins={"extra_index_urls": "pip.conf"}
    )
    with pytest.raises(ConfigError, match="is not there") as caught:
        urls(gone)
    assert caught.value.where == "pip.conf"


def test_uv_gets_the_site_and_nothing_else(site: Site, tmp_path: Path) -> None:
    own = dataclasses.replace(
        site,
        index_url="https://reader:hunter22@a.example/simple",
        ca_bundle=tmp_path / "ca.crt",
        proxies={"https": "http://proxy.example:3128"},
        trusted_hosts=("b.example",),
        timeout=7,
    )
    sources = sources_of(own, CHANNEL, {"torch": "1"}, TARGET, lambda: "")
    environ = {"PATH": "/bin", "UV_INDEX": "https://evil.example", "UV_CACHE_DIR": "/c", "no_proxy": "*", "HOME": "/h"}
    uv = Uv(program="uv", site=own, sources=sources, target=TARGET, environ=environ)
    assert uv._environment(None) == {
        "PATH": "/bin",
        "HOME": "/h",
        "UV_CACHE_DIR": "/c",
        "UV_INDEX": "https://reader:hunter22@a.example/simple",
        "UV_DEFAULT_INDEX": CHANNEL.url,
        "SSL_CERT_FILE": str(tmp_path / "ca.crt"),
        "UV_HTTP_TIMEOUT": "7",
        "HTTPS_PROXY": "http://proxy.example:3128",
    }
    options = uv._options()
    assert "--allow-insecure-host=b.example" in options
    assert "--python-platform=x86_64-manylinux_2_36" in options
    assert not [option for option in options if "hunter22" in option], "a command line can be read by everybody"


@pytest.mark.parametrize(
    ("glibc", "platform"), [((2, 41), "2_40"), ((2, 29), "2_28"), ((2, 17), "2_17"), ((2, 35), "2_35")]
)
def test_uv_is_asked_for_the_nearest_platform_that_it_knows(site: Site, glibc: tuple[int, int], platform: str) -> None:
    target = Target(python="3.12", glibc=glibc)
    sources = sources_of(site, None, {}, target, lambda: "https://x.example")
    options = Uv(program="uv", site=site, sources=sources, target=target)._options()
    assert f"--python-platform=x86_64-manylinux_{platform}" in options
    assert "--python-version=3.12" in options


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    program.chmod(0o755)
    return program


def test_an_interruption_ends_uv(site: Site, tmp_path: Path, slow: Path) -> None:
    cancel = threading.Event()
    sources = sources_of(site, None, {}, TARGET, lambda: "https://x.example")
    uv = Uv(program=str(slow), site=site, sources=sources, target=TARGET, cancel=cancel)

    def interrupt() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        cancel.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted, match="nothing was written"):
        uv.releases(["numpy"])
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("echo 'error: No solution found' >&2; exit 1", Impossible, "No solution found"),
        (
            "echo '  × No solution found when resolving:' >&2; echo '  ╰─▶ Because a' >&2; exit 1",
            Impossible,
            "Because a",
        ),
        ("echo 'error: Failed to fetch: `https://u:hunter22@x`' >&2; exit 2", IndexUnavailable, r"u?\*\*\*@x"),
        ("echo 'error: Failed to build `horovod`' >&2; exit 1", NotLocked, "uv failed: Failed to build"),
        ("exit 3", NotLocked, "it gave no reason"),
        ("yes error: long | head -c 100000 >&2; exit 1", NotLocked, "…"),
        (write_pylock("x = ["), NotLocked, "not TOML"),
        (write_pylock("packages = 3"), NotLocked, "another form"),
        (write_pylock('[[packages]]\nname = "a"\ndirectory = {path = "."}'), NotLocked, "a has no version"),
        (write_pylock('[[packages]]\nname = "a"\nversion = "1"\nwheels = [{}]'), NotLocked, "without an address"),
    ],
)
def test_whatever_uv_says_is_told_in_a_sentence(
    site: Site, tmp_path: Path, script: str, error: type[ImgbuildError], said: str
) -> None:
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    own = dataclasses.replace(site, index_url="https://u:hunter22@x")
    sources = sources_of(own, None, {}, TARGET, lambda: "")
    with pytest.raises(error, match=said) as caught:
        Uv(program=str(program), site=own, sources=sources, target=TARGET).releases(["a"])
    assert "hunter22" not in str(caught.value)
    assert len(caught.value.message) < 3000


def test_a_program_that_cannot_be_run_is_told(site: Site, tmp_path: Path) -> None:
    sources = sources_of(site, None, {}, TARGET, lambda: "https://x.example")
    with pytest.raises(ConfigError, match="cannot be run"):
        Uv(program=str(tmp_path / "none"), site=site, sources=sources, target=TARGET).releases(["a"])
    with pytest.raises(ConfigError, match="cannot be run"):
        built_in_index(str(tmp_path / "none"))
