"""A researcher's morning: one's own folder and user id, one more package, a training with TensorBoard, the results."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from command import CELLS, Built
from contract_images import framework_of, run
from package_index import make_wheel

pytestmark = pytest.mark.engine

USER = 54321
TRAIN = {
    "torch": """
import mypackage
import torch
from torch.utils.tensorboard import SummaryWriter

torch.manual_seed(0)
x = torch.linspace(-1, 1, 64)[:, None]
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
with SummaryWriter("runs/first") as writer:
    for step in range(50):
        optimizer.zero_grad()
        loss = ((model(x) - 3 * x - 1) ** 2).mean()
        loss.backward()
        optimizer.step()
        writer.add_scalar("loss", loss.item(), step)
torch.save(model.state_dict(), "model.pt")
print(mypackage.__version__, loss.item() < 1e-3)
""",
    "tensorflow": """
import keras
import mypackage
import numpy as np

keras.utils.set_random_seed(0)
x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.5), "mse")
logs = keras.callbacks.TensorBoard("runs/first")
history = model.fit(x, 3 * x + 1, batch_size=64, epochs=50, verbose=0, callbacks=[logs])
model.save("model.keras")
print(mypackage.__version__, history.history["loss"][-1] < 1e-3)
""",
}
MODELS = {"torch": "model.pt", "tensorflow": "model.keras"}
"""The last loss has a bound by arithmetic: for 64 points in [-1, 1] the squares of x average 0.344, so each step of SGD
with the rate 0.5 takes the slope's error times 0.656 and the offset's to 0, and 0.656^49 of 3 is below 1e-8."""


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    connected = docker.from_env(timeout=600)
    yield connected
    connected.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The researcher's project, with a home in it that keeps what is installed for the next container."""
    for path in (tmp_path / "project", tmp_path / "home"):
        path.mkdir()
        os.chown(path, USER, USER)
    for parent in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(parent.stat().st_mode | 0o055)
    return tmp_path


@pytest.mark.parametrize("cell", [CELLS[0], CELLS[2]])
def test_a_morning(client: docker.DockerClient, built: Built, folder: Path, cell: str) -> None:
    framework, image = framework_of(cell), str(built.cell(cell)["image_id"])
    project = folder / "project"
    make_wheel(project / "wheels", "mypackage", "1.5", requires=[framework, "numpy"])
    (project / "train.py").write_text(TRAIN[framework])
    subprocess.run(["chown", "-R", f"{USER}:{USER}", project], check=True)
    volumes = {str(project): {"bind": "/workspace"}, str(folder / "home"): {"bind": "/home/user"}}
    options: dict[str, Any] = {"user": f"{USER}:{USER}", "volumes": volumes, "shm_size": "1g"}

    before = run(client, image, ["python", "train.py"], **options)
    assert before.code == 1
    assert "No module named 'mypackage'" in before.err
    installed = run(client, image, ["pip", "install", "--no-index", "--find-links", "wheels", "mypackage"], **options)
    assert installed.code == 0, installed.err
    trained = run(client, image, ["python", "train.py"], **options)  # another container: the home has the package
    assert (trained.code, trained.out.splitlines()[-1:]) == (0, ["1.5 True"]), trained.out + trained.err

    made = {path for path in project.rglob("*") if path.is_file()}
    assert project / MODELS[framework] in made
    assert any(path.name.startswith("events.out.tfevents.") for path in made)
    every = [*project.rglob("*"), *(folder / "home").rglob("*")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in every} == {(USER, USER)}
    assert_served(client, image, options)


ASK = "import json, urllib.request as r;print(json.load(r.urlopen('http://127.0.0.1:6006/data/runs', timeout=5)))"


def assert_served(client: docker.DockerClient, image: str, options: dict[str, Any]) -> None:
    """TensorBoard in a container of its own shows the run, on the port that the image exposes."""
    command = ["tensorboard", "--logdir", "/workspace/runs", "--bind_all"]
    container = client.containers.run(image, command, detach=True, network_mode="none", **options)
    try:
        limit = time.monotonic() + 120
        while time.monotonic() < limit:
            code, said = container.exec_run(["python", "-c", ASK])
            if code == 0 and b"first" in said:
                return
            time.sleep(0.5)
        pytest.fail(f"TensorBoard shows no run: {said.decode()}\n{container.logs().decode()}")
    finally:
        container.remove(force=True)
