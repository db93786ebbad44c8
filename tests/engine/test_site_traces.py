"""This machine's settings on a real engine: every step can use them, and nothing of them stays anywhere.

The settings are canaries: each holds one random word. A cell proves that it saw them, and then the word is looked for
in every byte of the saved image, its history, what the command printed, and what it remembers.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import secrets
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from command import Ran, imgbuild

pytestmark = pytest.mark.engine

MATRIX = """\
version: 1
repository: unused
axes:
  framework: [torch==2.13.0]
  cuda: [cpu]
  python: ["3.11"]
  extras: [[tools], [traces], [leak], [index]]
bases:
  traces-base:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  torch: {image: pytorch, template: t.j2, constraints: c.txt, facts: none}
extras:
  tools: {packages: [tools], named: true}
  traces: {packages: [traces], named: true}
  leak: {packages: [leak], named: true}
  index: {packages: [index], named: true}
defaults: {base: traces-base}
tags: ["{version}{extras}"]
"""
CONSTRAINTS = "torch==2.13.0+cpu\ntools==1\ntraces==1\nleak==1\nindex==1\ntiny-site-wheel==1\n"
# The first steps are the same in every run, so that a cache has them; the last one runs every time.
TEMPLATE = """\
{%- import "_site.j2" as site with context -%}
{%- set constraints = cell.framework.constraints -%}
# {{ file(constraints) }}
ARG BASE=x
FROM ${BASE} AS tools
{{ site.apt_install(["ca-certificates", "python3-venv"]) }}
RUN python3 -m venv /opt/tools

FROM tools AS image
{% if extras.tools is not defined -%}
RUN {{ site.pip_mounts() }} \\
    {{ site.packages(constraints) }} \\
    {{ site.enter_pip(none) }} \\
    && echo RANDOM > /random \\
{%- if extras.index is defined %}
{#- Verbose, because a quiet pip does not say why an index does not count. #}
    && pip install --target /installed --no-cache-dir --retries 0 --verbose tiny-site-wheel
{%- else %}
    && for name in SEEN; do echo "saw $name $(printenv "$name" | tr -d '\\n' | sha256sum)"; done \\
    && echo "saw ca.crt $(sha256sum < /run/secrets/ca.crt)" \\
    && echo "saw sources $(sha256sum < /run/secrets/apt.sources)" \\
    && test -s "$APT_CONFIG" && test -s /dev/shm/imgbuild-apt.sources.list \\
    && pip install --target /installed --no-cache-dir --no-index --find-links /run/packages/wheels tiny-site-wheel
{%- endif %}
{%- if extras.leak is defined %} \\
    && cp /run/secrets/site.env /leaked && touch "/$(basename "$http_proxy")" && cp /run/packages/wheels/*.whl / \\
    && cat /run/secrets/site.env
{%- endif %}
{%- endif %}
"""
SITE_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "ssl_cert_file", "curl_ca_bundle")
WHEEL = "tiny_site_wheel-1-py3-none-any.whl"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """Settings that all hold one word, and what a step sees of them.

    Attributes:
        word: the word; nothing else on this machine holds it.
        environment: the variables that set the site's settings.
        seen: by the name that a step sees, the SHA-256 of the value.
    """

    word: str
    environment: Mapping[str, str]
    seen: Mapping[str, str]

    @property
    def traces(self) -> tuple[bytes, ...]:
        """What must be nowhere: the word, the credentials as a request's header has them, and the wheel itself."""
        login = f"{self.word}-user:{self.word}-password".encode()
        return (self.word.encode(), base64.b64encode(login), WHEEL.encode())


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project whose cells share a base and tools, made before any canary sings.

    Attributes:
        root: its folder.
        repository: the prefix of its images.
        state: its state directory.
        plain: this machine's environment without any setting of a site.
    """

    root: Path
    repository: str
    state: Path
    plain: Mapping[str, str]

    def build(self, extra: str, environment: Mapping[str, str]) -> Ran:
        return imgbuild(
            "build",
            *("--only", f"extras={extra}", "--no-check", "--bases", "bootstrap"),
            *("--format", "json", "--progress", "plain", "--repository", self.repository),
            environment={**environment, "IMGBUILD_STATE_DIR": str(self.state)},
            cwd=self.root,
        )


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


@pytest.fixture(scope="module")
def project(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    (root / "dockerfiles").mkdir()
    (root / "matrix.yaml").write_text(MATRIX)
    (root / "dockerfiles/c.txt").write_text(CONSTRAINTS)
    names = " ".join(name for name in sorted(settings("x")[1]) if "." not in name)
    template = TEMPLATE.replace("RANDOM", secrets.token_hex(8)).replace("SEEN", names)
    (root / "dockerfiles/t.j2").write_text(template)
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "IMGBUILD_", "REQUESTS_")) and name.lower() not in SITE_VARIABLES
    }
    plain |= {"PIP_CONFIG_FILE": os.devnull, "XDG_CONFIG_HOME": str(root / "no-site")}
    made = Project(root=root, repository=prefix, state=tmp_path_factory.mktemp("state"), plain=plain)
    ran = made.build("tools", os.environ)
    assert ran.code == 0, ran.out + ran.err
    return made


def settings(word: str) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that set the settings, and the values by the names that a step sees."""
    login = f"{word}-user:{word}-password@"
    environment = {
        "IMGBUILD_INDEX_URL": f"https://{login}{word}-index.invalid/simple",
        "IMGBUILD_EXTRA_INDEX_URLS": f"https://{word}-extra.invalid/simple",
        "IMGBUILD_TRUSTED_HOSTS": f"{word}-trusted.invalid",
        "http_proxy": f"http://{login}{word}-http.invalid:3128",
        "https_proxy": f"http://{login}{word}-https.invalid:3128",
        "no_proxy": f"{word}-no.invalid",
        "IMGBUILD_CHANNEL_PYTORCH_CPU": f"https://{word}-channel.invalid/whl",
        "IMGBUILD_APT_MIRROR": f"https://{word}-apt.invalid/debian",
    }
    seen = {
        "PIP_INDEX_URL": environment["IMGBUILD_INDEX_URL"],
        "PIP_EXTRA_INDEX_URL": environment["IMGBUILD_EXTRA_INDEX_URLS"],
        "PIP_TRUSTED_HOST": environment["IMGBUILD_TRUSTED_HOSTS"],
        "PIP_CERT": "/run/secrets/ca.crt",
        "http_proxy": environment["http_proxy"],
        "HTTPS_PROXY": environment["https_proxy"],
        "no_proxy": environment["no_proxy"],
        "IMGBUILD_CHANNEL_PYTORCH_CPU": environment["IMGBUILD_CHANNEL_PYTORCH_CPU"],
    }
    return environment, seen


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    word = f"canary{secrets.token_hex(6)}"
    environment, seen = settings(word)
    certificates = tmp_path / f"{word}-ca.pem"
    make_ca(tmp_path)
    certificates.write_text(f"# {word}\n" + (tmp_path / "ca.pem").read_text())
    links = tmp_path / f"{word}-links"
    make_wheel(links, comment=word)
    environment |= {"IMGBUILD_CA_BUNDLE": str(certificates), "IMGBUILD_FIND_LINKS": str(links)}
    seen["ca.crt"] = certificates.read_text()
    hashes = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in seen.items()}
    return Canary(word=word, environment=environment, seen=hashes)


def make_wheel(directory: Path, comment: str = "") -> Path:
    """Writes a wheel of one module. Only the archive itself holds the comment, not what is installed from it."""
    directory.mkdir(parents=True)
    information = "tiny_site_wheel-1.dist-info"
    files = {
        "tiny_site_wheel.py": "VALUE = 1\n",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: tiny-site-wheel\nVersion: 1\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{information}/RECORD"))
    with zipfile.ZipFile(directory / WHEEL, "w") as archive:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(name, text)
        archive.comment = comment.encode()
    return directory / WHEEL


def openssl(directory: Path, command: str, *arguments: str) -> None:
    subprocess.run(
        ["openssl", *command.split(), *arguments], cwd=directory, check=True, capture_output=True, timeout=60
    )


def make_ca(directory: Path) -> None:
    """Writes `ca.pem` and `ca.key`: a certificate authority that nobody else knows."""
    subject = ("-subj", "/CN=imgbuild test authority", "-days", "2")
    openssl(directory, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem", *subject)


def found_in_image(client: docker.DockerClient, image: str, words: Iterable[bytes]) -> list[str]:
    """Where the words are in an image as `docker save` writes it: layers with all names, configuration, history."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(b"".join(client.images.get(image).save()))) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            data = stream.read() if stream else b""
            if data.startswith(b"\x1f\x8b"):
                data = gzip.decompress(data)
            # A layer is a tar file without compression: names and contents are in it as they are.
            found += [f"{member.name}: {excerpt!r}" for excerpt in excerpts(data, words)]
    texts = {"history": client.api.history(image), "inspect": client.api.inspect_image(image)}
    for name, text in texts.items():
        found += [f"{name}: {excerpt!r}" for excerpt in excerpts(json.dumps(text).encode(), words)]
    return found


def excerpts(data: bytes, words: Iterable[bytes]) -> list[bytes]:
    places = [data.find(word) for word in words]
    return [data[max(0, place - 40) : place + 80] for place in places if place >= 0]


def found_here(project: Project, ran: Ran, words: Iterable[bytes]) -> list[str]:
    """Where the words are in what a run printed, and in the names and contents of what it remembers."""
    texts = {"stdout": ran.out.encode(), "stderr": ran.err.encode()}
    for path in project.state.rglob("*"):
        texts[str(path)] = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
    assert len(texts) > 2, "the command remembers something"
    return [f"{name}: {excerpt!r}" for name, data in texts.items() for excerpt in excerpts(data, words)]


def test_the_site_reaches_the_step_and_leaves_no_trace(
    project: Project, canary: Canary, client: docker.DockerClient
) -> None:
    ran = project.build("traces", {**project.plain, **canary.environment})
    assert ran.code == 0, ran.out + ran.err
    (cell,) = ran.json["cells"]
    assert cell["built"]
    for name, digest in canary.seen.items():
        assert f"saw {name} {digest}" in ran.err
    assert found_in_image(client, cell["image_id"], [b"tiny_site_wheel-1.dist-info/"]), "the wheel is installed"
    assert found_in_image(client, cell["image_id"], canary.traces) == []
    # pip says which wheel it takes, which is no secret; everything else is in no message and no state either.
    assert found_here(project, ran, [word for word in canary.traces if word != WHEEL.encode()]) == []
    # The site is in no key: without any of it, the same key has its image already.
    again = project.build("traces", project.plain)
    assert again.code == 0, again.out + again.err
    (same,) = again.json["cells"]
    assert (same["key"], same["image_id"], same["built"]) == (cell["key"], cell["image_id"], False)


def test_a_template_that_leaks_is_found_out(project: Project, canary: Canary, client: docker.DockerClient) -> None:
    """The search of the test above finds what there is; and a password is masked even where a step prints it."""
    ran = project.build("leak", {**project.plain, **canary.environment})
    assert ran.code == 0, ran.out + ran.err
    (cell,) = ran.json["cells"]
    word = canary.word
    leaks = {
        "content": f"PIP_INDEX_URL=https://{word}-user",
        "a name": f"{word}-http.invalid:3128\0",
        "the wheel": WHEEL,
    }
    for what, text in leaks.items():
        assert found_in_image(client, cell["image_id"], [text.encode()]), what
    assert found_in_image(client, cell["image_id"], canary.traces)
    assert f"{word}-index.invalid" in ran.err, "the step did print its settings"
    assert found_here(project, ran, [f"{word}-password".encode()]) == []


@pytest.fixture
def private_index(project: Project, tmp_path: Path, client: docker.DockerClient) -> Iterator[str]:
    """URL of a package index with a certificate of `ca.pem` in `tmp_path`, on the network of the builds' steps."""
    make_ca(tmp_path)
    make_wheel(tmp_path / "www/simple/tiny-site-wheel")
    server = client.containers.create(
        next(tag for image in client.images.list(f"{project.repository}/pytorch") for tag in image.tags),
        ["python3", "-c", SERVER],
        labels={"imgbuild-test": project.repository},
    )
    try:
        server.start()
        server.reload()
        address = server.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        (tmp_path / "names").write_text(f"subjectAltName=IP:{address}\n")
        openssl(tmp_path, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=index")
        authority = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        openssl(tmp_path, "x509 -req -in server.csr -extfile names -out server.pem", *authority)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in ("www", "server.key", "server.pem"):
                archive.add(tmp_path / name, name)
        assert server.put_archive("/srv", buffer.getvalue())
        yield f"https://{address}:8443/simple"
    finally:
        server.remove(force=True)


SERVER = """
import http.server, os, ssl, time
while not os.path.exists("/srv/server.pem"):
    time.sleep(0.05)
time.sleep(0.2)
os.chdir("/srv/www")
server = http.server.ThreadingHTTPServer(("", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/server.pem", "/srv/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_an_index_behind_a_private_authority(project: Project, private_index: str, tmp_path: Path) -> None:
    environment = {**project.plain, "IMGBUILD_INDEX_URL": private_index}
    without = project.build("index", environment)
    assert without.code == 9, without.out + without.err
    assert "CERTIFICATE_VERIFY_FAILED" in without.out + without.err
    ran = project.build("index", {**environment, "IMGBUILD_CA_BUNDLE": str(tmp_path / "ca.pem")})
    assert ran.code == 0, ran.out + ran.err
    assert ran.json["cells"][0]["built"]
