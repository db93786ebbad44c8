"""This machine's settings: where they come from, what builds get of them, and what nobody gets to read."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.errors import ConfigError
from builder.site import Site, apt_sources, build_secrets, load_site, redact, redact_urls, site_wheels

_SETTINGS = {"ca_bundle": None, "state_dir": Path("/s"), "config": Path("/c")}


def _load(tmp_path: Path, environ: Mapping[str, str] | None = None) -> Site:
    home = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return load_site({**home, **(environ or {})}, prefix=tmp_path / "prefix", root=tmp_path / "root")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _site(**settings: object) -> Site:
    return Site(**{**_SETTINGS, **settings})  # type: ignore[arg-type]


class TestPip:
    """pip's own configuration."""

    def test_nothing_is_set(self, tmp_path: Path) -> None:
        site = _load(tmp_path)
        assert (site.index_url, site.extra_index_urls, site.find_links, site.origins) == ("", (), (), {})

    def test_later_files_win(self, tmp_path: Path) -> None:
        files = [
            tmp_path / "root/etc/xdg/pip/pip.conf",
            tmp_path / "root/etc/pip.conf",
            tmp_path / "home/.pip/pip.conf",
            tmp_path / "config/pip/pip.conf",
            tmp_path / "prefix/pip.conf",
        ]
        for number, path in enumerate(files):
            _write(path, f"[global]\nindex-url = https://{number}.example/simple\n")
            site = _load(tmp_path)
            assert site.index_url == f"https://{number}.example/simple"
            assert site.origins["index_url"] == str(path)
        assert _load(tmp_path, {"PIP_INDEX_URL": "https://v.example/"}).origins["index_url"] == "PIP_INDEX_URL"
        assert _load(tmp_path, {"PIP_INDEX_URL": ""}).index_url == "https://4.example/simple"

    def test_install_section_wins_over_a_later_files_global(self, tmp_path: Path) -> None:
        _write(tmp_path / "root/etc/pip.conf", "[install]\nindex_url = https://install.example/\n")
        _write(
            tmp_path / "config/pip/pip.conf", "[global]\n--index-url: https://global.example/\n[freeze]\ntimeout=9\n"
        )
        site = _load(tmp_path)
        assert site.index_url == "https://install.example/"
        assert site.timeout is None

    def test_named_file_replaces_the_users(self, tmp_path: Path) -> None:
        _write(tmp_path / "root/etc/pip.conf", "[global]\ntimeout = 7\n")
        _write(tmp_path / "config/pip/pip.conf", "[global]\nindex-url = https://user.example/\n")
        named = _write(tmp_path / "named.conf", "[global]\ntrusted-host = a.example\n  b.example\n")
        site = _load(tmp_path, {"PIP_CONFIG_FILE": str(named)})
        assert (site.index_url, site.trusted_hosts, site.timeout) == ("", ("a.example", "b.example"), 7)
        missing = _load(tmp_path, {"PIP_CONFIG_FILE": str(tmp_path / "missing")})
        assert missing.index_url == "https://user.example/"
        assert _load(tmp_path, {"PIP_CONFIG_FILE": os.devnull}).timeout is None

    def test_lists_proxy_and_other_names(self, tmp_path: Path) -> None:
        _write(
            tmp_path / "root/etc/pip.conf",
            "[global]\nextra-index-url =\n    https://a.example/simple\n    https://b.example/simple\n"
            "default-timeout = 15.5\nproxy = proxy.example:3128\n",
        )
        site = _load(tmp_path)
        assert site.extra_index_urls == ("https://a.example/simple", "https://b.example/simple")
        assert site.timeout == 15
        assert site.proxies == {"http": "http://proxy.example:3128", "https": "http://proxy.example:3128"}

    def test_malformed_file_is_named(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "root/etc/pip.conf", "index-url = https://a.example\n")
        with pytest.raises(ConfigError, match="malformed") as caught:
            _load(tmp_path)
        assert caught.value.where == str(path)


class TestFile:
    """The site file, and what wins over it."""

    def test_every_key(self, tmp_path: Path) -> None:
        path = _write(
            tmp_path / "config/imgbuild/site.yaml",
            "engine: ssh://builder@gpu.example\n"
            "index-url: https://index.example/simple\n"
            "extra-index-urls: [https://more.example/simple]\n"
            "find-links: [wheels, https://links.example/page.html]\n"
            "ca-bundle: ca.pem\n"
            "trusted-hosts: [index.example]\n"
            "timeout: 30\n"
            "proxies: {http: 'http://p.example:1', https: 'http://p.example:2', 'no': .example}\n"
            "apt-mirror: https://apt.example/debian\n"
            "apt-security-mirror: https://apt.example/security\n"
            "channels: {pytorch: https://channel.example/whl, other: ''}\n"
            "state-dir: /var/tmp/state\n"
            "signing-key: keys/own.key\n"
            "trusted-keys: [ci.pub, /keys/gpu.pub]\n",
        )
        site = _load(tmp_path, {"SSL_CERT_FILE": "/general.pem", "PIP_CERT": "/pip.pem", "PIP_INDEX_URL": "https://p/"})
        assert site.engine == "ssh://builder@gpu.example"
        assert site.index_url == "https://index.example/simple"
        assert site.origins["index_url"] == f"{path}:2:12"
        assert site.find_links == (str(path.parent / "wheels"), "https://links.example/page.html")
        assert site.ca_bundle == path.parent / "ca.pem"
        assert site.timeout == 30
        assert site.proxies == {"http": "http://p.example:1", "https": "http://p.example:2", "no": ".example"}
        assert site.apt_mirror == "https://apt.example/debian"
        assert site.channels == {"pytorch": "https://channel.example/whl", "other": ""}
        assert site.state_dir == Path("/var/tmp/state")
        assert site.signing_key == path.parent / "keys/own.key"
        assert site.trusted_keys == (path.parent / "ci.pub", Path("/keys/gpu.pub"))
        assert site.origins["signing_key"] == f"{path}:13:14"

    def test_keys_of_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _write(tmp_path / "config/imgbuild/site.yaml", "signing-key: /a.key\ntrusted-keys: [/a.pub]\n")
        monkeypatch.chdir(tmp_path)
        environ = {
            "IMGBUILD_SIGNING_KEY": "b.key",
            "IMGBUILD_TRUSTED_KEYS": "b.pub  /c.pub",
            # Only where the key is read: what is not in the settings cannot be shown with them.
            "IMGBUILD_SIGNING_KEY_PASSWORD": "canary-password",
        }
        site = _load(tmp_path, environ)
        assert site.signing_key == tmp_path / "b.key"
        assert site.trusted_keys == (tmp_path / "b.pub", Path("/c.pub"))
        assert site.origins["trusted_keys"] == "IMGBUILD_TRUSTED_KEYS"
        assert "canary-password" not in repr(site)
        assert _load(tmp_path).signing_key == Path("/a.key")

    def test_no_keys(self, tmp_path: Path) -> None:
        site = _load(tmp_path)
        assert (site.signing_key, site.trusted_keys) == (None, ())

    def test_environment_wins(self, tmp_path: Path) -> None:
        _write(
            tmp_path / "config/imgbuild/site.yaml",
            "engine: ssh://a.example\nstate-dir: /a\nindex-url: https://a.example\nchannels: {pytorch: https://a.example}\n",
        )
        environ = {
            "DOCKER_HOST": "tcp://b.example:1",
            "IMGBUILD_STATE_DIR": "/b",
            "IMGBUILD_INDEX_URL": "https://b.example",
            "IMGBUILD_CHANNEL_PYTORCH": "",
        }
        site = _load(tmp_path, environ)
        assert (site.engine, site.origins["engine"]) == (None, "DOCKER_HOST")
        assert (site.state_dir, site.index_url, site.channels) == (Path("/b"), "https://b.example", {"pytorch": ""})
        assert _load(tmp_path, {**environ, "IMGBUILD_ENGINE": "ssh://c.example"}).engine == "ssh://c.example"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("index-ulr: x\n", "unknown key"),
            ("timeout: soon\n", "whole number"),
            ("proxies: {ftp: x}\n", "unknown key"),
        ],
    )
    def test_mistakes_are_refused_with_their_position(self, tmp_path: Path, text: str, message: str) -> None:
        path = _write(tmp_path / "config/imgbuild/site.yaml", text)
        with pytest.raises(ConfigError, match=message) as caught:
            _load(tmp_path)
        assert caught.value.where.startswith(f"{path}:1:")

    def test_named_file_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not exist"):
            _load(tmp_path, {"IMGBUILD_CONFIG": str(tmp_path / "none.yaml")})

    def test_line_break_in_a_value_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="line break"):
            _load(tmp_path, {"HTTPS_PROXY": "http://p.example\nAcquire::x 1;"})

    def test_lower_case_proxy_wins(self, tmp_path: Path) -> None:
        site = _load(tmp_path, {"HTTP_PROXY": "http://upper.example", "http_proxy": "http://lower.example"})
        assert site.proxies == {"http": "http://lower.example"}


def _sourced(secrets: Mapping[str, bytes], directory: Path) -> dict[str, str]:
    """The environment of a POSIX shell that has read `site.env`."""
    path = directory / "site.env"
    path.write_bytes(secrets["site.env"])
    command = f". {path} && env -0"
    output = subprocess.run(["sh", "-eu", "-c", command], env={}, capture_output=True, check=True).stdout
    return dict(item.split("=", 1) for item in output.decode().split("\0") if item)


class TestSecrets:
    """What a build gets."""

    def test_nothing_set_gives_nothing(self) -> None:
        assert build_secrets(_site(), {}) == {}

    def test_values_survive_the_shell(self, tmp_path: Path) -> None:
        hostile = "https://u:p$(touch /tmp/x)`id`'\"\\ *@a.example/simple"
        site = _site(index_url=hostile, extra_index_urls=("https://b.example", "https://c.example"), timeout=9)
        variables = _sourced(build_secrets(site, {"IMGBUILD_CHANNEL_X": ""}), tmp_path)
        assert variables["PIP_INDEX_URL"] == hostile
        assert variables["PIP_EXTRA_INDEX_URL"] == "https://b.example https://c.example"
        assert variables["PIP_DEFAULT_TIMEOUT"] == "9"
        assert variables["IMGBUILD_CHANNEL_X"] == ""

    def test_local_index_never_falls_back_to_the_public_one(self, tmp_path: Path) -> None:
        variables = _sourced(build_secrets(_site(index_url="file:///srv/simple"), {}), tmp_path)
        assert variables["PIP_NO_INDEX"] == "1"
        assert "PIP_INDEX_URL" not in variables
        mixed = _site(index_url="file:///srv/simple", extra_index_urls=("https://b.example",))
        variables = _sourced(build_secrets(mixed, {}), tmp_path)
        assert variables["PIP_INDEX_URL"] == "https://b.example"
        assert not {"PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL"} & variables.keys()
        extra = _site(extra_index_urls=("file:///srv/simple", "https://b.example"), find_links=("/srv/wheels",))
        variables = _sourced(build_secrets(extra, {}), tmp_path)
        assert variables["PIP_EXTRA_INDEX_URL"] == "https://b.example"
        assert not {"PIP_NO_INDEX", "PIP_INDEX_URL", "PIP_FIND_LINKS"} & variables.keys()

    def test_proxies_in_both_cases_and_for_apt(self, tmp_path: Path) -> None:
        site = _site(proxies={"https": "http://u:p@p.example:1", "no": "a.example,.b.example"})
        secrets = build_secrets(site, {})
        variables = _sourced(secrets, tmp_path)
        assert variables["https_proxy"] == variables["HTTPS_PROXY"] == "http://u:p@p.example:1"
        assert variables["no_proxy"] == variables["NO_PROXY"] == "a.example,.b.example"
        assert variables["APT_CONFIG"] == "/run/secrets/apt.conf"
        lines = secrets["apt.conf"].decode().splitlines()
        assert 'Acquire::https::Proxy "http://u:p@p.example:1";' in lines
        assert 'Acquire::https::Proxy::a.example "DIRECT";' in lines

    def test_certificates(self, tmp_path: Path) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(b"certificate")
        secrets = build_secrets(_site(ca_bundle=bundle), {})
        variables = _sourced(secrets, tmp_path)
        assert secrets["ca.crt"] == b"certificate"
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            assert variables[name] == "/run/secrets/ca.crt"
        assert b'CAInfo "/run/secrets/ca.crt"' in secrets["apt.conf"]

    def test_bundle_at_and_over_the_limit(self, tmp_path: Path) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(b"x" * 512_000)
        assert len(build_secrets(_site(ca_bundle=bundle), {})["ca.crt"]) == 512_000
        bundle.write_bytes(b"x" * 512_001)
        with pytest.raises(ConfigError, match="512,001 bytes"):
            build_secrets(_site(ca_bundle=bundle), {})
        with pytest.raises(ConfigError, match="cannot be read"):
            build_secrets(_site(ca_bundle=tmp_path / "none"), {})

    def test_mirror_names_the_suite_of_the_image_it_is_read_in(self, tmp_path: Path) -> None:
        site = _site(apt_mirror="https://u:p@apt.example/debian/")
        secrets = build_secrets(site, {})
        assert b'Dir::Etc::sourceparts "/dev/null"' in secrets["apt.conf"]
        release = _write(tmp_path / "os-release", 'NAME="x"\nVERSION_CODENAME=bookworm\n')
        sources = tmp_path / "apt.sources"
        sources.write_bytes(secrets["apt.sources"])
        written = tmp_path / "written"
        listed = re.search(rb'Dir::Etc::sourcelist "([^"]+)"', secrets["apt.conf"])
        assert listed is not None
        script = secrets["site.env"].decode()
        for there, here in (
            ("/etc/os-release", release),
            ("/run/secrets/apt.sources", sources),
            (listed[1].decode(), written),
        ):
            assert there in script
            script = script.replace(there, str(here))
        variables = _sourced({"site.env": script.encode()}, tmp_path)
        assert "NAME" not in variables
        assert written.read_text() == apt_sources(site, "bookworm")
        assert written.read_text().splitlines() == [
            "deb https://u:p@apt.example/debian bookworm main",
            "deb https://u:p@apt.example/debian bookworm-updates main",
            "deb https://u:p@apt.example/debian-security bookworm-security main",
        ]

    def test_channel_variable_must_be_one(self) -> None:
        with pytest.raises(ValueError, match="shell variable"):
            build_secrets(_site(), {"A; rm": "x"})


class TestWheels:
    """Wheels of this machine's file system."""

    PINS: Mapping[str, str] = {"Torch": "2.1.0+cpu", "absl_py": "1.0"}

    def test_exactly_the_pinned_ones(self, tmp_path: Path) -> None:
        for name in (
            "torch-2.1.0+cpu-cp311-cp311-linux_x86_64.whl",
            "torch-2.1.0+cpu-cp312-cp312-linux_x86_64.whl",
            "torch-2.1.0-cp311-cp311-linux_x86_64.whl",
            "torch-2.2.0+cpu-cp311-cp311-linux_x86_64.whl",
            "torchvision-2.1.0+cpu-cp311-cp311-linux_x86_64.whl",
            "absl_py-1.0.0-py3-none-any.whl",
            "not a wheel.whl",
        ):
            (tmp_path / name).touch()
        found = site_wheels(_site(find_links=(str(tmp_path),)), self.PINS)
        assert [path.name for path in found] == [
            "absl_py-1.0.0-py3-none-any.whl",
            "torch-2.1.0+cpu-cp311-cp311-linux_x86_64.whl",
            "torch-2.1.0+cpu-cp312-cp312-linux_x86_64.whl",
        ]

    def test_local_index_with_links_elsewhere(self, tmp_path: Path) -> None:
        _write(tmp_path / "files/absl_py-1.0-py3-none-any.whl", "")
        _write(tmp_path / "files/torch-2.1.0+cpu-py3-none-any.whl", "")
        _write(
            tmp_path / "simple/absl-py/index.html",
            '<a href="../../files/absl_py-1.0-py3-none-any.whl#sha256=0">x</a><a href="https://a.example/torch.whl">y</a>',
        )
        _write(tmp_path / "simple/torch/index.html", '<a href="../../files/torch-2.1.0%2Bcpu-py3-none-any.whl">x</a>')
        site = _site(extra_index_urls=(f"file://{tmp_path}/simple", "https://a.example/simple"))
        names = [path.name for path in site_wheels(site, self.PINS)]
        assert names == ["absl_py-1.0-py3-none-any.whl", "torch-2.1.0+cpu-py3-none-any.whl"]
        assert site_wheels(_site(extra_index_urls=site.extra_index_urls, no_index=True), self.PINS) == ()

    def test_first_directory_wins_and_missing_ones_are_no_error(self, tmp_path: Path) -> None:
        name = "absl_py-1.0-py3-none-any.whl"
        first, second = _write(tmp_path / "a" / name, "1"), _write(tmp_path / "b" / name, "2")
        links = (str(tmp_path / "none"), str(first.parent), str(second.parent), "https://a.example/links.html")
        assert site_wheels(_site(find_links=links), self.PINS) == (first,)


class TestRedaction:
    """Credentials stay out of messages."""

    @pytest.mark.parametrize(
        ("text", "clean"),
        [
            ("see https://user:pass@a.example/x now", "see https://***@a.example/x now"),
            ("https://tok%40en@a.example", "https://***@a.example"),
            ("http://u:p@ss@a.example:1/b", "http://***@a.example:1/b"),
            ("https://a.example/x?token=abc&y=1", "https://a.example/x?token=***&y=1"),
            ("mail me@a.example or see https://a.example/@x", "mail me@a.example or see https://a.example/@x"),
        ],
    )
    def test_urls(self, text: str, clean: str) -> None:
        assert redact_urls(text) == clean

    def test_passwords_outside_of_urls(self) -> None:
        site = _site(index_url="https://me:s3cr%2Ft@a.example", proxies={"http": "http://onlytoken@p.example"})
        text = redact("login me with s3cr%2Ft or s3cr/t or onlytoken failed", site)
        assert text == "login me with *** or *** or *** failed"

    def test_what_is_no_secret_is_told(self) -> None:
        site = _site(engine="ssh://ubuntu@gpu.example", index_url="https://a.example:8080/team@corp/simple")
        text = "ubuntu:22.04 from a.example:8080/team"
        assert redact(text, site) == text
