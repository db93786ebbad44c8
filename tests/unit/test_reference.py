"""Names of images."""

from __future__ import annotations

import pytest

from builder.engine.reference import InvalidReference, Reference

_DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest", "host"),
    [
        ("debian", "debian", "", "", ""),
        ("debian:bookworm-slim", "debian", "bookworm-slim", "", ""),
        ("team/pytorch:2.1_cu", "team/pytorch", "2.1_cu", "", ""),
        ("localhost/x", "localhost/x", "", "", "localhost"),
        ("localhost:5000/x:y", "localhost:5000/x", "y", "", "localhost:5000"),
        ("registry.example:5000/a/b", "registry.example:5000/a/b", "", "", "registry.example:5000"),
        (f"a.example/b:c@{_DIGEST}", "a.example/b", "c", _DIGEST, "a.example"),
        (f"b@{_DIGEST}", "b", "", _DIGEST, ""),
        ("a__b/c-d.e--f", "a__b/c-d.e--f", "", "", ""),
        ("a" * 255, "a" * 255, "", "", ""),
        ("a:" + "b" * 128, "a", "b" * 128, "", ""),
    ],
)
def test_good(text: str, repository: str, tag: str, digest: str, host: str) -> None:
    reference = Reference.parse(text)
    assert (reference.repository, reference.tag, reference.digest) == (repository, tag, digest)
    assert reference.host == host
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Debian",
        "team/PyTorch",
        "a/../b",
        "../a",
        "a//b",
        "/a",
        "a/",
        "a b",
        "a\n",
        "a:",
        "a:b:c",
        "a:b c",
        "a:.b",
        "a:-b",
        "a:b..c",
        "a:b\n",
        "a@",
        "a@sha256:00",
        "a@md5:" + "0" * 64,
        "a" * 256,
        "a:" + "b" * 129,
        "a___b",
        "-a",
        "a..b",
        "bad_host.example:1x/a",
    ],
)
def test_bad(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)
