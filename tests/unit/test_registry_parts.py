"""Descriptors, tags, proxies, patience: what of a registry's client needs no registry."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path

import pytest

from builder.engine.errors import RegistryError
from builder.engine.reference import InvalidReference, Reference
from builder.errors import ConfigError
from builder.registry import patience
from builder.registry.answers import Answer, RegistryRefused, media_type, refusal
from builder.registry.artifacts import index_tag, own_tag
from builder.registry.client import Repository
from builder.registry.patience import Busy, patiently, retry_after
from builder.registry.proxies import Proxies
from builder.registry.transport import Transport, loopback
from builder.registry.values import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    parse_descriptor,
    to_bytes,
)

SUBJECT, MADE = digest_of(b"subject"), digest_of(b"made")


class NoLogins:
    def credentials(self, host: str) -> None:
        return None


def test_a_descriptor_survives_json() -> None:
    full = Descriptor(media_type="a/b", digest=SUBJECT, size=7, artifact_type="c/d", annotations={"e": "f"})
    assert parse_descriptor(full.to_json()) == full
    assert set(Descriptor(media_type="a/b", digest=SUBJECT, size=7).to_json()) == {"mediaType", "digest", "size"}


@pytest.mark.parametrize("value", [None, [], {}, {"digest": 1}, {"digest": "sha512:00"}, {"digest": SUBJECT + "0"}])
def test_what_is_no_descriptor_is_none(value: object) -> None:
    assert parse_descriptor(value) is None


def test_a_manifests_own_descriptor_names_its_kind() -> None:
    config = {"mediaType": "application/x-config", "digest": SUBJECT, "size": 1}
    plain = Manifest(media_type=OCI_MANIFEST, body=to_bytes({"config": config}))
    typed = Manifest(media_type=OCI_MANIFEST, body=to_bytes({"config": config, "artifactType": "application/x-kind"}))
    # The specification: without a type of its own, an artifact's type is that of its configuration.
    assert plain.descriptor.artifact_type == "application/x-config"
    assert typed.descriptor.artifact_type == "application/x-kind"
    assert Manifest(media_type=DOCKER_MANIFEST, body=plain.body).descriptor.artifact_type == ""
    for body in (b"[]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(RegistryError, match="no JSON object"):
            Manifest(media_type=OCI_MANIFEST, body=body).document()


def test_the_same_content_is_the_same_bytes() -> None:
    assert to_bytes({"a": 1, "b": {"d": 1, "c": 2}}) == to_bytes({"b": {"c": 2, "d": 1}, "a": 1})


def test_the_tags_are_tags() -> None:
    for tag in (index_tag(SUBJECT), own_tag(SUBJECT, MADE)):
        assert Reference.parse(f"r/i:{tag}").tag == tag
    assert index_tag(SUBJECT) == f"sha256-{SUBJECT[7:]}"
    assert own_tag(SUBJECT, MADE) != own_tag(SUBJECT, SUBJECT)


@pytest.mark.parametrize(
    "name",
    [
        "r.example/i:tag",
        f"r.example/i@{SUBJECT}",
        "R.example/I",
        "",
        f"{'a' * 64}.example/i",
        "r.example:99999/i",
        "r.example:0/i",
    ],
)
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(InvalidReference):
        Repository(name, NoLogins())
    assert Repository("r.example/i", NoLogins()).name == "r.example/i"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.1.2.3", True),
        ("[::1]:5000", True),
        ("localhost.example", False),
        ("127.0.0.1.example:5000", False),
        ("registry.example", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, expected: bool) -> None:
    assert loopback(host) is expected


def test_elsewhere_it_is_always_tls() -> None:
    assert Transport(ca_bundle=None, proxies=Proxies()).scheme("registry.example:5000") == "https"


@pytest.mark.parametrize(
    ("exceptions", "netloc", "direct"),
    [
        ("", "registry.example", False),
        ("", "127.0.0.1:5000", True),
        ("", "localhost:5000", True),
        ("*", "registry.example", True),
        ("example", "registry.example", True),
        ("registry.example", "registry.example", True),
        (".registry.example", "registry.example", False),
        (".example", "registry.example", True),
        ("*.example", "registry.example", True),
        ("other.example, registry.example:443", "registry.example", True),
        ("registry.example:5000", "registry.example", False),
        ("registry.example:5000", "registry.example:5000", True),
        ("istry.example", "registry.example", False),
        ("10.0.0.0/8", "10.1.2.3:5000", True),
        ("10.0.0.0/8", "11.1.2.3:5000", False),
        ("10.1.2.3:5000", "10.1.2.3:5000", True),
    ],
)
def test_who_is_reached_without_the_proxy(exceptions: str, netloc: str, direct: bool) -> None:
    found = Proxies(https="http://proxy.example:3128", exceptions=exceptions).way_to(netloc)
    assert (found is None) is direct


def test_a_proxys_login_goes_to_the_proxy_alone() -> None:
    found = Proxies.of({"https": "http://us%40er:pa%3Ass@proxy.example", "http": "x", "no": "a"}).way_to("b.example")
    assert found is not None
    assert (found.host, found.port) == ("proxy.example", 80)
    assert found.headers == {"Proxy-Authorization": "Basic dXNAZXI6cGE6c3M="}
    assert "dXNAZXI6cGE6c3M=" not in repr(found)
    bare = Proxies(https="proxy.example:3128").way_to("b.example")
    assert bare is not None
    assert (bare.host, bare.port, bare.headers) == ("proxy.example", 3128, {})


@pytest.mark.parametrize(
    "url", ["socks5://proxy.example", "https://proxy.example", "http://", "http://a:port", "http://.a"]
)
def test_a_proxy_that_cannot_be_used_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used for a registry"):
        Proxies(https=url).way_to("b.example")


def test_proxies_of_the_environment() -> None:
    environ = {"HTTPS_PROXY": "upper", "https_proxy": "lower", "NO_PROXY": "a"}
    assert Proxies.from_environment(environ) == Proxies(https="lower", exceptions="a")
    assert Proxies.from_environment({}) == Proxies()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_cannot_be_used_is_a_mistake_in_the_settings(content: str | None, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    with pytest.raises(ConfigError, match="CA bundle cannot be used") as caught:
        Repository("registry.example/i", NoLogins(), bundle, proxies=Proxies()).tags()
    assert caught.value.where == str(bundle)


def test_how_long_a_registry_asks_to_wait() -> None:
    assert retry_after("7") == 7
    assert retry_after("0") == 0.5
    soon = retry_after(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert soon is not None
    assert 50 < soon <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.5
    for nothing in ("", "soon", "-1", "1.5e9x", "\xb2", "Mon, 01 Jan 99999 00:00:00 GMT"):
        assert retry_after(nothing) is None


def test_patience_ends_after_its_pauses_and_returns_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0))
    tried: list[float] = []

    def attempt(deadline: float) -> str:
        tried.append(deadline)
        if len(tried) < 3:
            raise Busy(RegistryError("busy"))
        return "done"

    assert patiently("a.example", 10, attempt) == "done"
    assert len(set(tried)) == 1
    tried.clear()
    monkeypatch.setattr(patience, "PAUSES", (0.0,))
    with pytest.raises(RegistryError, match="busy"):
        patiently("a.example", 10, attempt)
    assert len(tried) == 2


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status=status, headers=headers, body=body)


def refused(status: int, body: bytes) -> RegistryRefused:
    return refusal(answer(status, body), host="h", verb="write", what="r t", login="docker login h")


def test_a_refusal_says_what_the_registry_said() -> None:
    error = refused(403, b'{"errors":[{"code":"DENIED","message":"no"},{"code":"UNKNOWN"}]}')
    assert error.message == "h refuses to write r t: 403 DENIED: no; UNKNOWN:"
    assert error.codes == ("DENIED", "UNKNOWN")
    assert error.hint.startswith("docker login h")
    # What comes from elsewhere cannot move a cursor, nor fill a screen.
    assert refused(502, b"\x1b[2Jbad\ngateway" + b"x" * 10_000).message.startswith(
        "h refuses to write r t: 502 [2Jbad g"
    )
    assert len(refused(502, b"x" * 10_000).message) < 400
    assert refused(500, b"").message == "h refuses to write r t: 500"


def test_a_media_type_comes_from_the_header_or_the_document() -> None:
    body = to_bytes({"mediaType": OCI_MANIFEST})
    assert media_type(answer(200, body, **{"content-type": f"{DOCKER_MANIFEST}; charset=utf-8"})) == DOCKER_MANIFEST
    assert media_type(answer(200, body, **{"content-type": "application/json"})) == OCI_MANIFEST
    assert media_type(answer(200, b"{}", **{"content-type": "text/html"})) == "text/html"
