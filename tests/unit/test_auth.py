from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from builder.engine.auth import Credentials, DockerLogins
from builder.engine.errors import RegistryError


def logins(directory: Path, config: object) -> DockerLogins:
    text = config if isinstance(config, str) else json.dumps(config)
    (directory / "config.json").write_text(text)
    return DockerLogins(environ={"DOCKER_CONFIG": str(directory)})


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_logins_in_the_file(tmp_path: Path) -> None:
    found = logins(
        tmp_path,
        {
            "auths": {
                "r.test:5000": auth("me:pass:word"),
                "https://index.docker.io/v1/": auth("hub:x"),
                "token.test": {"identitytoken": "tok"},
                "empty.test": {},
            },
            "proxies": {"default": {}},
        },
    )
    assert found.credentials("r.test:5000") == Credentials(username="me", secret="pass:word")
    for name in ("docker.io", "registry-1.docker.io", "index.docker.io"):
        assert found.credentials(name) == Credentials(username="hub", secret="x")
    assert found.credentials("token.test") == Credentials(username="", secret="tok")
    assert found.credentials("empty.test") is None
    assert found.credentials("r.test") is None


def test_no_file_and_no_logins(tmp_path: Path) -> None:
    assert DockerLogins(environ={"HOME": str(tmp_path)}).credentials("r.test") is None
    assert logins(tmp_path, {}).credentials("r.test") is None
    assert logins(tmp_path, {"HttpHeaders": {"a": "b"}}).credentials("HttpHeaders") is None


def test_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(
        "#!/bin/sh\nread host\n"
        'case $host in r.test) echo \'{"Username":"u","Secret":"s3cret"}\';;\n'
        't.test) echo \'{"Username":"<token>","Secret":"tok"}\';;\n'
        "broken.test) echo 'the vault is sealed'; exit 1;;\n"
        "*) echo 'credentials not found in native keychain'; exit 1;; esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = logins(tmp_path, {"credsStore": "mine", "credHelpers": {"other.test": "missing-helper"}})
    assert found.credentials("r.test") == Credentials(username="u", secret="s3cret")
    assert found.credentials("t.test") == Credentials(username="", secret="tok")
    assert found.credentials("unknown.test") is None
    with pytest.raises(RegistryError, match=r"login for broken\.test.*"):
        found.credentials("broken.test")
    with pytest.raises(RegistryError, match=r"login for other\.test"):
        found.credentials("other.test")


def test_credential_helper_that_waits_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text("#!/bin/sh\nread host\nexec sleep 30\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("builder.engine.auth._PATIENCE", 0.3, raising=False)
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"login for r\.test.* did not answer"):
        logins(tmp_path, {"credsStore": "mine"}).credentials("r.test")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"auths": {"r.test": {"auth": "bm9jb2xvbg=="}}}', '{"auths": {"r": 1}}']
)
def test_broken_files_are_named_and_not_quoted(tmp_path: Path, config: str) -> None:
    with pytest.raises(RegistryError) as failed:
        logins(tmp_path, config).credentials("r.test")
    assert str(tmp_path) in str(failed.value)
    assert "nocolon" not in str(failed.value)


def test_secrets_are_not_in_the_representation() -> None:
    assert "hidden" not in repr(Credentials(username="u", secret="hidden"))
