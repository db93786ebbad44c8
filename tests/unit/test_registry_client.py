"""What the client makes of answers that are odd, hostile or in pieces. Nothing is sent: the transport is a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from builder.engine.auth import Credentials
from builder.engine.errors import RegistryError
from builder.registry.answers import Answer, RegistryRefused
from builder.registry.client import Repository
from builder.registry.proxies import Proxies
from builder.registry.transport import Transport
from builder.registry.values import OCI_INDEX, digest_of, to_bytes

BODY = b"content"
DIGEST = digest_of(BODY)
HOME = "https://registry.example/v2/team/image"


class Script:
    """Answers each request with the next answer, and keeps what was asked for."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []

    def __call__(self, method: str, url: str, *, headers: Mapping[str, str], **_: object) -> Answer:
        self.asked.append((method, url, headers))
        return self.answers.pop(0)


Scripted = Callable[..., tuple[Repository, Script]]


class Logins:
    def credentials(self, host: str) -> Credentials:
        return Credentials(username="user", secret="a-secret-word")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    def make(*answers: Answer) -> tuple[Repository, Script]:
        script = Script(*answers)
        monkeypatch.setattr(Transport, "send", staticmethod(script))
        return Repository("registry.example/team/image", Logins(), proxies=Proxies()), script

    return make


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=body)


def tags(*names: str, link: str = "") -> Answer:
    return says(200, to_bytes({"tags": list(names)}), **({"link": link} if link else {}))


def entry(name: str) -> dict[str, object]:
    return {"mediaType": "application/x", "digest": digest_of(name.encode()), "size": 1}


def referrers(*names: str, link: str = "") -> Answer:
    body = to_bytes({"manifests": [entry(name) for name in names]})
    return says(200, body, content_type=OCI_INDEX, **({"link": link} if link else {}))


NEXT = '<?last=a>; rel="next"'


def test_a_list_is_whole_or_an_error(scripted: Scripted) -> None:
    there, _ = scripted(tags("a", link=NEXT), tags("b"))
    assert there.tags() == ("a", "b")
    # Cut off in the middle it would hide evidence, as if it had never been there.
    there, _ = scripted(tags("a", link=NEXT), says(404))
    with pytest.raises(RegistryRefused, match="404"):
        there.tags()
    there, _ = scripted(says(404))
    assert there.tags() == ()


@pytest.mark.parametrize("broken", [says(404), says(405), says(200, b"{}", content_type="text/html")])
def test_a_registry_that_has_the_referrers_api_has_it_on_every_page(scripted: Scripted, broken: Answer) -> None:
    there, _ = scripted(broken)
    assert there.referrers(DIGEST) is None
    there, _ = scripted(referrers("a", link=NEXT), broken)
    with pytest.raises(RegistryError):
        there.referrers(DIGEST)
    there, _ = scripted(referrers("a", link=NEXT), referrers("b"))
    assert {found.digest for found in there.referrers(DIGEST) or ()} == {digest_of(b"a"), digest_of(b"b")}


@pytest.mark.parametrize(
    "link",
    [
        '<?last=a>; rel="next"',
        "<?last=a>; rel=next",
        '<?last=a>; title="x"; rel="next"',
        '<?first>; rel="first", <?last=a>; rel="next"',
        '<?last=a>; rel="next", <?first>; rel="first"',
    ],
)
def test_the_next_page(scripted: Scripted, link: str) -> None:
    there, script = scripted(tags("a", link=link), tags("b"))
    assert there.tags() == ("a", "b")
    assert script.asked[1][1] == f"{HOME}/tags/list?last=a"


def test_another_relation_is_no_next_page(scripted: Scripted) -> None:
    there, _ = scripted(tags("a", link='<?last=a>; rel="nextcloud"'))
    assert there.tags() == ("a",)


@pytest.mark.parametrize(
    "place",
    [
        "https://storage.example/a b",
        "https://sto rage.example/a",
        "https://storage.example/caf\xe9",
        "https://.example/a",
        f"https://{'a' * 64}.example/a",
        "https://user:word@storage.example/a",
        "https://storage.example:70000/a",
        "https://storage.example/\x7f",
        "http://storage.example/a",
    ],
)
def test_a_place_that_cannot_be_asked_is_not_followed(scripted: Scripted, place: str) -> None:
    there, script = scripted(says(307, location=f"{place}?X-Amz-Signature=0123abc"))
    with pytest.raises(RegistryError, match="does not follow") as caught:
        there.blob(DIGEST)
    assert len(script.asked) == 1
    assert "0123abc" not in str(caught.value)
    there, _ = scripted(says(307, location="https://storage.example/a?X-Amz-Signature=0123abc"), says(200, BODY))
    assert there.blob(DIGEST) == BODY


@pytest.mark.parametrize(
    ("place", "own"),
    [
        (f"{HOME}/x", True),
        ("https://registry.example:443/v2/x", True),
        ("https://Registry.Example/v2/x", True),
        ("https://registry.example:444/v2/x", False),
        ("https://registry.example.evil/v2/x", False),
        ("//evil.example/v2/x", False),
        ("/v2/x", True),
    ],
)
def test_a_login_is_for_the_registry_alone_however_it_is_written(scripted: Scripted, place: str, own: bool) -> None:
    asks = Answer(status=401, headers={}, body=b"", challenges=('Basic realm="it"',))
    there, script = scripted(asks, says(307, location=place), says(200, BODY))
    assert there.blob(DIGEST) == BODY
    assert ["Authorization" in headers for _, _, headers in script.asked] == [False, True, own]


@pytest.mark.parametrize(
    "realm", ["https://auth example/t", "https://auth.example/\xe9", "https://.example/t", "http://auth.example/t"]
)
def test_a_token_service_that_cannot_be_asked(scripted: Scripted, realm: str) -> None:
    def asks(there: str) -> Answer:
        return Answer(status=401, headers={}, body=b"", challenges=(f'Bearer realm="{there}",service="s"',))

    there, script = scripted(asks(realm))
    with pytest.raises(RegistryError, match="asks for a login in a way"):
        there.blob(DIGEST)
    assert len(script.asked) == 1
    there, script = scripted(asks("https://auth.example/t"), says(200, b'{"token":"t"}'), says(200, BODY))
    assert there.blob(DIGEST) == BODY
    assert script.asked[1][1].startswith("https://auth.example/t?service=s&scope=")


def test_two_challenges_in_one_line_are_not_mixed(scripted: Scripted) -> None:
    both = 'Bearer realm="https://auth.example/t",service="s", Basic realm="it"'
    asks = Answer(status=401, headers={}, body=b"", challenges=(both,))
    there, script = scripted(asks, says(200, b'{"token":"t"}'), says(200, BODY))
    assert there.blob(DIGEST) == BODY
    assert script.asked[2][2]["Authorization"] == "Bearer t"
