"""What docs/contract.md promises of every image, line by line, in containers of the images that are built."""

from __future__ import annotations

import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from command import CELLS, Built
from contract_images import HERE, WHERE, Ran, framework_of, mounted, probe, run
from contract_wheels import contract_wheels
from uv import find_uv_bin

pytestmark = pytest.mark.engine

DOCS = HERE.parents[1] / "docs/contract.md"
SITE = "lib/python{}/site-packages"
#: Who uses the image, and how its container is started; the volume `homes` is the user's own home.
STRANGER = "12345:12345"
READ_ONLY = {"read_only": True, "tmpfs": {"/tmp": "exec,mode=1777"}}
USES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "an unknown user": {"user": STRANGER},
    "root": {"user": "0:0"},
    "read-only": READ_ONLY,
    "read-only, an unknown user": {"user": STRANGER, **READ_ONLY},
    "read-only, root": {"user": "0:0", **READ_ONLY},
    "HOME=/": {"user": STRANGER, "environment": {"HOME": "/"}},
    "a home mounted over": {"user": STRANGER, "home": 12345, **READ_ONLY},
    "a home that is not writable": {"user": STRANGER, "home": 0},
    "past the entrypoint": {"user": STRANGER, "entrypoint": []},
}
HOMES = {
    "read-only": "/tmp/home-1000",
    "read-only, an unknown user": "/tmp/home-12345",
    "read-only, root": "/tmp/home-0",
    "HOME=/": "/tmp/home-12345",
    "a home that is not writable": "/tmp/home-12345",
}
"""Where HOME is not the image's own."""
NAMES = {
    "as it is": "user",
    "read-only": "user",
    "root": "root",
    "read-only, root": "root",
    "past the entrypoint": "user",
}
"""What the user is called, where the image knows; others are called after their number."""

Probe = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    connected = docker.from_env(timeout=600)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def image(built: Built) -> Callable[[str], str]:
    """The image of a cell. No cell that is built goes untested."""
    assert {row["cell"] for row in built.report["cells"]} == set(CELLS)
    return lambda cell: str(built.cell(cell)["image_id"])


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("wheels")
    folder.chmod(0o755)
    made = {name: contract_wheels(folder / name, name) for name in {framework_of(cell) for cell in CELLS}}
    return lambda cell: made[framework_of(cell)]


@pytest.fixture(scope="module")
def probed(
    client: docker.DockerClient,
    image: Callable[[str], str],
    wheels: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Probe:
    """What a user finds; each container runs once."""
    known: dict[tuple[str, str], dict[str, Any]] = {}

    def of(cell: str, use: str) -> dict[str, Any]:
        if (cell, use) not in known:
            options = dict(USES[use])
            owner = options.pop("home", None)
            if owner is not None:
                home = tmp_path_factory.mktemp("home")
                subprocess.run(["chown", f"{owner}:{owner}", home], check=True)
                home.chmod(0o755)
                options["volumes"] = {str(home): {"bind": "/home/user", "mode": "rw"}}
            known[cell, use] = probe(client, image(cell), wheels(cell), framework_of(cell), **options)
        return known[cell, use]

    return of


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("cell", CELLS)
class TestAnyUser:
    """Ten ways to start a container, and what holds in all of them."""

    def test_python_and_pip_are_the_venvs(self, probed: Probe, cell: str, use: str) -> None:
        found = probed(cell, use)
        for name in ("python", "python3", "pip"):
            assert found["on_path"][name] == f"/opt/venv/bin/{name}"
        assert found["on_path"]["imgcheck"] == "/usr/local/bin/imgcheck"
        assert found["on_path"]["imginfo"] == "/usr/local/bin/imginfo"
        assert found["prefix"] == "/opt/venv"

    def test_home_user_and_caches(self, probed: Probe, cell: str, use: str) -> None:
        found = probed(cell, use)
        assert found["home"] == HOMES.get(use, "/home/user")
        assert found["user"] == NAMES.get(use, "uid12345")
        assert set(found["caches"].values()) == {""}, found["caches"]
        writable = not USES[use].get("read_only")
        assert (found["workspace"] == "") is writable, found["workspace"]

    def test_pip_installs_one_more_package(self, probed: Probe, cell: str, use: str) -> None:
        found = probed(cell, use)
        code, said = found["installs"]["plain"]
        assert code == 0, said
        assert "externally-managed" not in said
        assert "WARNING" not in said
        assert "DEPRECATION" not in said
        root_may_write = use == "root"
        prefix = "/opt/venv/" if root_may_write else f"{found['home']}/.local/"
        assert found["plain"].startswith(prefix)
        program = "/opt/venv/bin/plain" if root_may_write else f"{found['home']}/.local/bin/plain"
        assert (found["program"], found["said"]) == (program, "plain works\n")

    def test_what_a_user_adds_comes_after_the_images_own(self, probed: Probe, cell: str, use: str) -> None:
        found = probed(cell, use)
        packages = [path for path in found["sys_path"] if path.endswith("-packages")]
        own, *rest = packages
        assert re.fullmatch(r"/opt/venv/lib/python3\.\d+/site-packages", own)
        if use != "root":
            assert rest[0] == own.replace("/opt/venv", f"{found['home']}/.local")
            rest = rest[1:]
        assert all(path.endswith("/dist-packages") for path in rest)  # the distribution's, which are empty

    def test_the_framework_stays(self, probed: Probe, cell: str, use: str) -> None:
        found = probed(cell, use)
        framework = framework_of(cell)
        code, said = found["installs"]["needs-framework"]
        assert code == 0, said
        code, said = found["installs"]["needs-another"]
        assert code != 0
        assert f"needs-another 1.0 depends on {framework}==2.0.0" in said
        assert f"The user requested (constraint) {framework}=={found['before']}" in said
        assert found["after"] == found["before"]
        assert found["pip_check"] == [0, "No broken requirements found.\n"]

    def test_without_the_constraints_it_would_not(self, probed: Probe, cell: str, use: str) -> None:
        """The twin: it is the constraints that refuse. For whoever cannot write to the venv, pip refuses even then."""
        found = probed(cell, use)
        code, said = found["unconstrained"]
        assert "(constraint)" not in said
        if use == "root":
            assert (code, said.splitlines()[-1]) == (0, f"Would install needs-another-1.0 {framework_of(cell)}-2.0.0")


VARIABLES = {
    "HOME": "/home/user",
    "LANG": "C.UTF-8",
    "LNAME": "user",
    "PATH": "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/home/user/.local/bin",
    "PIP_CONSTRAINT": "/opt/imgbuild/constraints.txt",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "TZ": "Etc/UTC",
    "UV_CONSTRAINT": "/opt/imgbuild/constraints.txt",
    "VIRTUAL_ENV": "/opt/venv",
}


@pytest.mark.parametrize("cell", CELLS)
def test_the_variables_are_these_and_no_others(
    client: docker.DockerClient, image: Callable[[str], str], cell: str
) -> None:
    """Neither NVIDIA's (a CPU image asks for no GPU), nor defaults of OMP, NCCL or TensorFlow's log."""
    variables = dict(entry.split("=", 1) for entry in client.images.get(image(cell)).attrs["Config"]["Env"])
    name, version = {"torch": ("PYTORCH_VERSION", "2.13.0"), "tensorflow": ("TENSORFLOW_VERSION", "2.21.0")}[
        framework_of(cell)
    ]
    assert variables == {**VARIABLES, name: version}


@pytest.mark.parametrize("cell", CELLS)
def test_everything_installed_is_constrained(
    client: docker.DockerClient, image: Callable[[str], str], cell: str
) -> None:
    """So what holds for the framework holds for all that the image brought, CUDA's libraries too."""
    script = (
        "import importlib.metadata as m, json, re;"
        "norm = lambda name: re.sub('[-_.]+', '-', name).lower();"
        "print(json.dumps(sorted(f'{norm(d.metadata[\"Name\"])}=={d.version}' for d in m.distributions())))"
    )
    found = json.loads(run(client, image(cell), ["python", "-c", script]).out)
    constraints = run(client, image(cell), ["cat", "/opt/imgbuild/constraints.txt"]).out.split()
    # The constraints also hold what was there only while Horovod was compiled.
    assert set(found) - set(constraints) == set()
    assert {package.partition("==")[0] for package in set(constraints) - set(found)} <= {"wheel"}


def test_uv_is_held_by_the_same_constraints(
    client: docker.DockerClient, image: Callable[[str], str], wheels: Callable[[str], Path]
) -> None:
    uv = find_uv_bin()
    cell = CELLS[0]
    volumes = {**mounted(wheels(cell)), uv: {"bind": "/usr/local/bin/uv", "mode": "ro"}}
    command = f"uv pip install --offline --no-index --find-links {WHERE}/wheels --dry-run "
    for name, environment, code, words in (
        ("needs-framework", {}, 0, "needs-framework==1.0"),
        ("needs-another", {}, 1, "torch==2.13.0+cpu"),
        ("needs-another", {"UV_CONSTRAINT": ""}, 0, "torch==2.0.0"),
    ):
        ran = run(client, image(cell), (command + name).split(), user="0:0", environment=environment, volumes=volumes)
        assert ran.code == code, ran.err
        assert words in ran.err


class TestEntrypoint:
    """What the check tries with small programs (static.entrypoint, static.reaping), as the engine sees it."""

    @pytest.mark.parametrize("cell", CELLS)
    def test_a_program_is_alone(self, client: docker.DockerClient, image: Callable[[str], str], cell: str) -> None:
        script = "cat /proc/1/comm; printf '%s|' \"$@\"; exit 7"
        for options in ({}, {"user": STRANGER, **READ_ONLY}):
            ran = run(client, image(cell), ["sh", "-c", script, "sh", "two words", "", "*", "$HOME"], **options)
            assert ran == Ran(7, "tini\ntwo words||*|$HOME|", "")

    @pytest.mark.parametrize("cell", CELLS)
    def test_docker_stop_reaches_it(self, client: docker.DockerClient, image: Callable[[str], str], cell: str) -> None:
        script = "trap 'echo told; exit 42' TERM; echo ready; while :; do sleep 0.1; done"
        container = client.containers.run(image(cell), ["sh", "-c", script], detach=True, network_mode="none")
        try:
            limit = time.monotonic() + 30
            while b"ready" not in container.logs() and time.monotonic() < limit:
                time.sleep(0.1)
            began = time.monotonic()
            container.stop(timeout=30)
            assert time.monotonic() - began < 30  # or it was killed
            assert container.wait()["StatusCode"] == 42
            assert container.logs(stderr=False) == b"ready\ntold\n"
        finally:
            container.remove(force=True)

    @pytest.mark.parametrize("cell", CELLS)
    def test_without_a_command_there_is_a_shell(
        self, client: docker.DockerClient, image: Callable[[str], str], cell: str
    ) -> None:
        assert run(client, image(cell), []) == Ran(0, "", "")  # nobody types, nothing is said
        container = client.containers.create(image(cell), tty=True, stdin_open=True, network_mode="none")
        try:
            socket: Any = container.attach_socket(params={"stdin": 1, "stream": 1})
            container.start()
            socket._sock.sendall(b"echo $0 $((40 + 2)) $PWD; exit 3\n")
            assert container.wait(timeout=60)["StatusCode"] == 3
            assert "/bin/bash 42 /workspace" in container.logs().decode()
            socket.close()
        finally:
            container.remove(force=True)


class TestInfo:
    @pytest.mark.parametrize("cell", CELLS)
    def test_one_screen_from_the_manifest(
        self, client: docker.DockerClient, image: Callable[[str], str], cell: str
    ) -> None:
        ways: tuple[dict[str, Any], ...] = ({}, {"user": STRANGER, **READ_ONLY}, {"entrypoint": []})
        for options in ways:
            ran = run(client, image(cell), ["sh", "-c", "imginfo && imginfo --json"], **options)
            assert (ran.code, ran.err) == (0, "")
            screen, brace, rest = ran.out.partition("{")
            manifest = json.loads(brace + rest)
            lines = screen.splitlines()
            assert len(lines) <= 24
            assert max(map(len, lines)) <= 80
            assert lines[0] == manifest["cell"] == cell
            framework = manifest["framework"]
            assert f"  framework  {framework['name']} {framework['version']}" in lines
            assert f"  python     {manifest['python']}" in lines
            assert "  cuda       none: computes on CPUs" in lines
            assert any(line.startswith("  horovod    0.28.1 for ") for line in lines) == cell.endswith("-horovod")

    def test_without_a_manifest_it_says_so(self, client: docker.DockerClient, image: Callable[[str], str]) -> None:
        ran = run(client, image(CELLS[0]), [], entrypoint=["imginfo"], tmpfs={"/opt/imgbuild": ""})
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("imginfo: there is no manifest, /opt/imgbuild/manifest.json: ")
        assert ran.err.count("\n") == 1


SHARED = ["/home/user", "/home/user/.cache", "/home/user/.config", "/home/user/.local", "/workspace"]
"""Directories that everybody may write to, beside those of the base."""

PLANTED = """
cp /bin/true /usr/local/bin/planted && chmod 4755 /usr/local/bin/planted
mkdir -m 777 /opt/planted
touch /var/lib/apt/lists/planted
mkdir -p /etc/ssh /root/.cache/pip && touch /etc/ssh/ssh_host_rsa_key /root/.cache/pip/planted /root/.netrc
echo '-----BEGIN OPENSSH PRIVATE KEY-----' >/etc/planted
python3 -c 'import os; os.setxattr("/usr/bin/env", "security.capability", bytes.fromhex("01000002" + "00" * 16))'
"""


class TestFiles:
    """What lies in the image, read as root."""

    def scan(self, client: docker.DockerClient, image: str, before: str = "") -> dict[str, list[str]]:
        options: dict[str, Any] = {"entrypoint": [], "user": "0:0", "volumes": mounted()}
        command = ["sh", "-ec", f"{before}\nexec python3 {WHERE}/code/contract_scan.py"]
        ran = run(client, image, command, **options)
        assert ran.code == 0, ran.err
        return dict(json.loads(ran.out))

    @pytest.mark.parametrize("cell", CELLS)
    def test_nothing_is_left_and_nothing_is_open(
        self, client: docker.DockerClient, image: Callable[[str], str], cell: str
    ) -> None:
        base = run(client, base_of(client, image(cell)), ["sh", "-c", BASE_SCAN], user="0:0")
        setuid, _, writable = base.out.partition("--\n")
        assert "/usr/bin/passwd" in setuid  # so the base was read
        assert self.scan(client, image(cell)) == {
            "setuid": sorted(setuid.split()),
            "writable": sorted([*writable.split(), *SHARED]),
            "capabilities": [],
            "left": [],
            "credentials": [],
            "keys": [],
        }

    def test_what_is_planted_is_found(self, client: docker.DockerClient, image: Callable[[str], str]) -> None:
        clean = self.scan(client, image(CELLS[0]))
        found = self.scan(client, image(CELLS[0]), PLANTED)
        assert {kind: sorted(set(paths) - set(clean[kind])) for kind, paths in found.items()} == {
            "setuid": ["/usr/local/bin/planted"],
            "writable": ["/opt/planted"],
            "capabilities": ["/usr/bin/env"],
            "left": ["/root/.cache/pip/planted", "/var/lib/apt/lists/planted"],
            "credentials": ["/etc/ssh/ssh_host_rsa_key", "/root/.netrc"],
            "keys": ["/etc/planted"],
        }


BASE_SCAN = (
    "find / -xdev -type f '(' -perm -4000 -o -perm -2000 ')'; echo --; "
    "find / -xdev -perm -0002 ! -type l ! -path '/dev/*'"
)


def base_of(client: docker.DockerClient, image: str) -> str:
    """The image on this engine that this one's lowest layers are."""
    layers = client.images.get(image).attrs["RootFS"]["Layers"]
    below = [
        each for each in client.images.list() if (own := each.attrs["RootFS"]["Layers"]) == layers[: len(own)] != layers
    ]
    assert below, "the base is not on this engine"
    return str(min(below, key=lambda each: len(each.attrs["RootFS"]["Layers"])).id)


class TestChild:
    """An image that somebody builds from one of ours, and a venv of one's own."""

    def test_what_root_installs_is_for_everybody_and_nobodys_caches_suffer(
        self, client: docker.DockerClient, image: Callable[[str], str], wheels: Callable[[str], Path]
    ) -> None:
        cell = CELLS[0]
        own = client.images.get(image(cell)).attrs["Config"]
        script = f"pip install --no-index --find-links {WHERE}/wheels plain && mkdir -p ~/.cache/pip ~/.config/roots"
        container = client.containers.create(
            image(cell), entrypoint=["sh", "-c"], command=[script], user="0:0", volumes=mounted(wheels(cell))
        )
        name = f"imgbuild-test/contract:{uuid.uuid4().hex}"
        try:
            container.start()
            assert container.wait()["StatusCode"] == 0, container.logs()
            container.commit(*name.split(":"), conf=own)
        finally:
            container.remove(force=True)
        try:
            for options in ({}, {"user": STRANGER, "entrypoint": []}):
                found = probe(client, name, wheels(cell), framework_of(cell), **options)
                assert found["plain"].startswith("/opt/venv/")
                assert found["program"] == "/opt/venv/bin/plain"
                assert set(found["caches"].values()) == {""}
        finally:
            client.images.remove(name, noprune=True)

    def test_a_venv_of_ones_own(
        self, client: docker.DockerClient, image: Callable[[str], str], wheels: Callable[[str], Path]
    ) -> None:
        """As docs/contract.md says: the last line makes the image's packages visible."""
        (script,) = re.findall(r"```sh\n(python -m venv.*?)```", DOCS.read_text(), re.DOTALL)
        look = "python -c 'import plain; print(plain.__file__)'; python -c 'import tensorboard; print(\"seen\")'"
        environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{WHERE}/wheels"}
        command = ["sh", "-ec", f"{script.replace('NAME', 'plain')}\n. ~/own/bin/activate\n{look}"]
        volumes = mounted(wheels(CELLS[0]))
        ran = run(client, image(CELLS[0]), command, environment=environment, volumes=volumes, user=STRANGER)
        assert ran.code == 0, ran.out + ran.err
        plain, seen = ran.out.splitlines()[-2:]
        assert re.fullmatch(r"/home/user/own/lib/python3\.\d+/site-packages/plain/__init__\.py", plain)
        assert seen == "seen"
        unseen = run(
            client,
            image(CELLS[0]),
            ["sh", "-ec", "python -m venv --without-pip ~/own; ~/own/bin/python -c 'import tensorboard'"],
            user=STRANGER,
        )
        assert "No module named 'tensorboard'" in unseen.err


class TestKubernetes:
    """A pod that may do as little as the restricted Pod Security Standard allows."""

    @pytest.mark.parametrize("cell", CELLS)
    def test_the_images_fields(self, client: docker.DockerClient, image: Callable[[str], str], cell: str) -> None:
        config = client.images.get(image(cell)).attrs["Config"]
        # With runAsNonRoot a kubelet starts no image whose user is a name, because it cannot tell that it is not root.
        assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", config["User"])
        assert not config.get("Volumes")  # or every container would leave an anonymous volume behind
        assert not config.get("OnBuild")
        assert not config.get("Healthcheck")
        assert config["ExposedPorts"] == {"6006/tcp": {}}
        assert config["Entrypoint"] == ["/usr/bin/tini", "-s", "-g", "--", "/opt/imgbuild/entrypoint"]
        assert config["Cmd"] == ["/bin/bash"]
        assert config["WorkingDir"] == "/workspace"

    @pytest.mark.parametrize("cell", CELLS)
    def test_the_pod_of_the_documentation(
        self, client: docker.DockerClient, image: Callable[[str], str], wheels: Callable[[str], Path], cell: str
    ) -> None:
        (text,) = re.findall(r"```yaml\n(apiVersion: v1\nkind: Pod.*?)```", DOCS.read_text(), re.DOTALL)
        options = as_engine_options(yaml.safe_load(text))
        ways: tuple[dict[str, Any], ...] = ({}, {"entrypoint": []})  # `args:`, and `command:`, which replaces it
        for past in ways:
            found = probe(client, image(cell), wheels(cell), framework_of(cell), **options, **past)
            assert found["uid"] == 12345
            assert found["home"] == "/home/user"
            assert set(found["caches"].values()) == {""}
            assert found["workspace"] == ""
            assert found["installs"]["plain"][0] == 0
        # The twin: what the pod does not mount cannot be written to.
        ran = run(client, image(cell), ["touch", "/opt/here"], **options)
        assert ran.code == 1
        assert "Read-only file system" in ran.err


def as_engine_options(pod: dict[str, Any]) -> dict[str, Any]:
    """The options of the engine that are a pod's fields; one that is not understood here is an error."""
    spec = pod.pop("spec")
    assert pod.pop("metadata")
    assert pod == {"apiVersion": "v1", "kind": "Pod"}
    (container,) = spec.pop("containers")
    whole = spec.pop("securityContext")
    volumes = {volume.pop("name"): volume for volume in spec.pop("volumes")}
    assert spec == {"restartPolicy": "Never"}
    own = container.pop("securityContext")
    assert whole.pop("runAsNonRoot") is True
    assert whole.pop("seccompProfile") == {"type": "RuntimeDefault"}  # as the engine's own default
    user, group, shared = (whole.pop(key) for key in ("runAsUser", "runAsGroup", "fsGroup"))
    assert whole == {}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: volumes.pop(mount["name"]) for mount in container.pop("volumeMounts")}
    assert volumes == {}
    assert container.pop("resources")
    assert container.keys() == {"name", "image", "args"}
    for volume in mounts.values():
        assert volume.keys() == {"emptyDir"} or volume.keys() == {"persistentVolumeClaim"}
    # A kubelet makes what it gives to an fsGroup writable for that group.
    return {
        "user": f"{user}:{group}",
        "group_add": [shared],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "tmpfs": {path: f"exec,mode=2775,gid={shared}" for path in mounts if path != "/dev/shm"},
    }
