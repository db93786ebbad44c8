"""The lines of `imgbuild doctor`, each with what passes and what does not."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from builder import doctor
from builder.doctor import Status, examine
from builder.engine.connection import EngineInfo
from builder.engine.owner import Leftover
from builder.site import Site

_INFO = EngineInfo(
    version="26.1.5",
    api_version="1.45",
    buildkit=True,
    storage_driver="overlay2",
    containerd_store=False,
    root_dir="/",
    os="linux",
    architecture="amd64",
    cpus=2,
    memory_bytes=4 * doctor.GIB,
    runtimes=("runc",),
    gpu=False,
    cdi_gpu=False,
    id="x",
    cgroup_version="2",
    local=True,
)


def _info(**changes: object) -> EngineInfo:
    return dataclasses.replace(_INFO, **changes)  # type: ignore[arg-type]


def _site(tmp_path: Path, **settings: object) -> Site:
    return Site(**{"state_dir": tmp_path / "state", "config": tmp_path / "site.yaml", **settings})  # type: ignore[arg-type]


def test_without_an_engine_its_lines_are_not_run(tmp_path: Path) -> None:
    findings = {f.name: f for f in examine(_site(tmp_path, engine=f"unix://{tmp_path}/none.sock"))}
    assert findings["engine"].status is Status.FAILED
    assert "systemctl start docker" in findings["engine"].mend
    for name in ("BuildKit", "image store", "disk", "GPU", "leftovers"):
        assert findings[name].status is Status.NOT_RUN
    assert findings["package index"].status is Status.PASSED
    assert findings["state directory"].status is Status.PASSED
    assert not (tmp_path / "state").exists()


def test_no_credential_is_shown(tmp_path: Path) -> None:
    site = _site(
        tmp_path,
        engine="unix:///none.sock",
        index_url="https://me:hunter22@a.example",
        extra_index_urls=("https://token@b.example",),
        proxies={"http": "http://p:proxypass@c.example"},
        apt_mirror="https://m:mirrorpass@d.example/debian",
        find_links=("https://f:findpass@e.example",),
        ca_bundle=tmp_path / "none.pem",
    )
    text = "\n".join(f"{f.detail} {f.mend}" for f in examine(site))
    for host in ("a.example", "b.example", "c.example", "d.example", "e.example"):
        assert f"***@{host}" in text
    for secret in ("hunter22", "token", "proxypass", "mirrorpass", "findpass"):
        assert secret not in text


def test_engine_and_buildkit() -> None:
    assert "Docker 26.1.5, API 1.45, linux/amd64, 2 CPUs, 4.0 GiB" in doctor.engine_line(_INFO, "here").detail
    assert doctor.buildkit_line(_INFO).status is Status.PASSED
    assert doctor.buildkit_line(_info(buildkit=False)).status is Status.FAILED
    assert "containerd" in doctor.store_line(_info(containerd_store=True)).detail
    assert "containerd" not in doctor.store_line(_INFO).detail


def test_disk() -> None:
    assert doctor.disk_line(_INFO, 1).status is Status.PASSED
    full = doctor.disk_line(_INFO, 1 << 60)
    assert full.status is Status.FAILED
    assert "prune" in full.mend
    assert doctor.disk_line(_info(local=False), 1).status is Status.NOT_RUN
    assert doctor.disk_line(_info(root_dir="/no/such/place"), 1).status is Status.NOT_RUN


def test_gpu() -> None:
    assert doctor.gpu_line(_INFO).detail == "no NVIDIA runtime: GPU levels will be reported as not run"
    assert doctor.gpu_line(_INFO).status is Status.NOT_RUN
    assert "nvidia runtime" in doctor.gpu_line(_info(gpu=True, runtimes=("nvidia", "runc"))).detail
    assert "CDI" in doctor.gpu_line(_info(gpu=True, cdi_gpu=True)).detail


def test_leftovers() -> None:
    mine = Leftover(id="1", name="imgbuild-run-1", running=True, abandoned=False)
    elsewhere = Leftover(id="2", name="imgbuild-run-2", running=True, abandoned=None)
    dead = Leftover(id="3", name="imgbuild-run-3", running=True, abandoned=True)
    assert doctor.leftovers_line([mine, elsewhere]).mend == ""
    assert doctor.leftovers_line([mine, elsewhere, dead]).mend == "docker rm --force --volumes imgbuild-run-3"


def test_index(tmp_path: Path) -> None:
    assert doctor.index_line(_site(tmp_path)).detail == "pip's default"
    named = _site(tmp_path, index_url="https://a.example", origins={"index_url": "/etc/pip.conf"})
    assert doctor.index_line(named).detail == "https://a.example (from /etc/pip.conf)"
    local = _site(tmp_path, extra_index_urls=(tmp_path.as_uri(),))
    assert doctor.index_line(local).status is Status.PASSED
    assert "searched here" in doctor.index_line(local).detail
    missing = _site(tmp_path, index_url=f"file://{tmp_path}/none")
    assert doctor.index_line(missing).status is Status.FAILED
    assert doctor.index_line(_site(tmp_path, no_index=True)).detail == "none"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"-----BEGIN CERTIFICATE-----\nx\n", Status.PASSED),
        (b"junk", Status.FAILED),
        (b"x" * 600_000, Status.FAILED),
        (None, Status.FAILED),
    ],
    ids=["one", "none", "large", "missing"],
)
def test_certificates(tmp_path: Path, content: bytes | None, status: Status) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    found = doctor.certificates_line(_site(tmp_path, ca_bundle=bundle, origins={"ca_bundle": "PIP_CERT"}))
    assert found.status is status
    assert "PIP_CERT" in found.detail
    assert bool(found.mend) == (status is Status.FAILED)


@pytest.mark.parametrize(
    ("proxies", "status"),
    [
        ({}, Status.PASSED),
        ({"http": "http://p.example:1", "no": "localhost"}, Status.PASSED),
        ({"https": "http://127.0.0.1:3128"}, Status.FAILED),
        ({"http": "localhost:3128"}, Status.FAILED),
    ],
)
def test_proxy_on_the_loopback_is_out_of_a_containers_reach(
    tmp_path: Path, proxies: dict[str, str], status: Status
) -> None:
    assert doctor.proxies_line(_site(tmp_path, proxies=proxies)).status is status


def test_local_wheels(tmp_path: Path) -> None:
    there = _site(tmp_path, find_links=(str(tmp_path), "https://a.example"))
    assert doctor.local_wheels_line(there).status is Status.PASSED
    missing = _site(tmp_path, find_links=(str(tmp_path / "none"),))
    assert doctor.local_wheels_line(missing).status is Status.FAILED


def test_mmdebstrap() -> None:
    assert doctor.bootstrap_line("/usr/bin/mmdebstrap", "").status is Status.PASSED
    missing = doctor.bootstrap_line(None, "")
    assert (missing.status, missing.mend) == (Status.NOT_RUN, "sudo apt-get install mmdebstrap")
    unfit = doctor.bootstrap_line("/usr/bin/mmdebstrap", "sudo apt-get install uidmap")
    assert (unfit.status, unfit.mend) == (Status.NOT_RUN, "sudo apt-get install uidmap")
    assert "only come from a registry" in unfit.detail


def test_mmdebstrap_needs_root_or_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    subuid = tmp_path / "subuid"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert doctor.user_space_hint(subuid) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert doctor.user_space_hint(subuid) == "sudo apt-get install uidmap"
    (tmp_path / "newuidmap").touch(0o755)
    assert "--add-subuids" in doctor.user_space_hint(subuid)
    subuid.write_text("someone:100000:65536\n14242:1:1\n")
    assert doctor.user_space_hint(subuid).endswith(" 4242")
    subuid.write_text("someone:100000:65536\n4242:165536:65536\n")
    assert doctor.user_space_hint(subuid) == ""


def test_state_directory(tmp_path: Path) -> None:
    assert doctor.state_line(tmp_path / "a" / "b").status is Status.PASSED
    (tmp_path / "file").touch()
    failed = doctor.state_line(tmp_path / "file" / "state")
    assert failed.status is Status.FAILED
    assert "IMGBUILD_STATE_DIR" in failed.mend
