"""The commands that publish, promote and read evidence, before any engine or registry is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from attesting import NOW as FIXED
from attesting import signing_key
from click.testing import CliRunner
from memory_repository import MemoryRepository
from releasing import NAMES, put, statement

from builder.cli import cli
from builder.cli.trust import LEVELS
from builder.exits import exit_code_of
from builder.matrix import Level
from builder.release import remote

DIGEST = "sha256:" + "1" * 64
IMAGE = f"registry.invalid/team/image@{DIGEST}"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("IMGBUILD_SIGNING_KEY", "IMGBUILD_TRUSTED_KEYS", "IMGBUILD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("IMGBUILD_STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it said."""
    said = ""

    def command() -> int:
        nonlocal said
        ran = CliRunner().invoke(cli, arguments, standalone_mode=False)
        said = ran.output
        if ran.exception is not None:
            said += str(ran.exception)
            raise ran.exception
        return 0

    return exit_code_of(command), said


def test_the_levels_of_the_options_are_those_of_the_matrix() -> None:
    assert [level.value for level in Level] == list(LEVELS)


@pytest.mark.parametrize("command", ["verify", "promote"])
def test_who_trusts_no_key_is_told_so_before_a_registry_is_asked(command: str) -> None:
    code, said = run(command, IMAGE)
    assert code == 5
    assert "no key is trusted here" in said
    assert "IMGBUILD_TRUSTED_KEYS" in said


def test_a_key_that_is_no_public_key_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path)
    (private,) = tmp_path.glob("*.key")
    code, said = run("verify", IMAGE, "--key", str(private))
    assert (code, "must be a public key" in said) == (5, True)
    assert run("verify", IMAGE, "--key", str(tmp_path / "none.pub"))[0] == 5


def test_what_is_changed_by_a_name_is_named_by_its_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    signing_key(tmp_path)
    (private,) = tmp_path.glob("*.key")
    monkeypatch.setenv("IMGBUILD_SIGNING_KEY", str(private))
    for arguments in (
        ("promote", "registry.invalid/team/image:1"),
        ("check", "--image", "registry.invalid/team/image:1", "--attach"),
    ):
        code, said = run(*arguments)
        assert (code, "name the image by its digest" in said) == (5, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--attach"),
        ("check", "--attach", "torch-2.13.0-cpu-py3.11"),
        ("evidence", "NO NAME"),
        ("verify", IMAGE, "--require", "high"),
        ("verify", IMAGE, "--max-age", "-1"),
        ("evidence", "team/image", "--repair"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_wrong_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def test_nothing_is_attached_or_published_without_a_key_to_sign_with() -> None:
    for arguments in (("check", "--image", IMAGE, "--attach"), ("publish",)):
        code, said = run(*arguments)
        assert code == 5
        assert "there is no key to sign evidence with" in said
        assert "imgbuild keygen" in said


def test_how_old_a_check_may_be_is_said_by_the_evidence_or_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signing_key(tmp_path)
    public = tmp_path / "imgbuild.pub"
    public.write_bytes(key.public.pem)
    repository = MemoryRepository()
    image = repository.put_image("candidate-1")
    ten_days_ago = (FIXED - datetime.now(timezone.utc)) / timedelta(days=1) + 10
    put(repository, image, statement(image.digest, days=ten_days_ago, names=replace(NAMES, max_age_days=7)), key)

    @contextmanager
    def find(reference: str, site: object, *, by_digest: bool = False) -> Iterator[remote.Remote]:
        yield remote.Remote(repository=repository, digest=image.digest)  # type: ignore[arg-type]

    monkeypatch.setattr(remote, "find", find)
    trusting = (f"{repository.name}@{image.digest}", "--key", str(public))
    code, said = run("promote", *trusting)
    assert (code, "10 days ago; at most 7 are allowed" in said) == (21, True)
    assert set(repository.tagged) & {"1.0", "latest"} == set()
    # The cluster says for itself what it admits.
    assert run("verify", *trusting)[0] == 0
    assert run("verify", *trusting, "--max-age", "9")[0] == 21
    assert run("promote", *trusting, "--max-age", "9")[0] == 21
    assert run("promote", *trusting, "--max-age", "11")[0] == 0
    assert {"1.0", "latest"} <= set(repository.tagged)
