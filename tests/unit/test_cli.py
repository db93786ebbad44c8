"""The command line: help, exit codes, and that starting up stays cheap."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from builder.project import shipped_data

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("imgbuild")
    return subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_command_has_help_with_an_example_or_a_sentence(tmp_path: Path) -> None:
    top = run("--help", cwd=tmp_path)
    assert top.returncode == 0
    for command in ("init", "matrix", "lock", "render", "build", "check", "doctor"):
        assert f"\n  {command} " in top.stdout
        shown = run(command, "--help", cwd=tmp_path)
        assert shown.returncode == 0
        assert len(shown.stdout.splitlines()) > 5


def test_matrix_works_in_an_empty_folder_with_what_ships(tmp_path: Path) -> None:
    ran = run("matrix", "--format", "json", cwd=tmp_path)
    assert ran.returncode == 0
    assert "using the one that imgbuild ships" in ran.stderr
    cells = [cell["cell"] for cell in json.loads(ran.stdout)["cells"]]
    frameworks = ("torch-2.13.0", "tensorflow-2.21.0")
    assert cells[:4] == [f"{name}-cpu-py3.11{extras}" for name in frameworks for extras in ("", "-horovod")]
    assert {cell.partition("-")[0] for cell in cells[4:]} == {"torch", "tensorflow", "jax", "mxnet"}


def test_init_writes_a_project_whose_own_files_win(tmp_path: Path) -> None:
    assert "would write" in run("init", "p", "--dry-run", cwd=tmp_path).stdout
    assert not (tmp_path / "p").exists()
    assert run("init", "p", cwd=tmp_path).returncode == 0
    project = tmp_path / "p"
    assert (project / "matrix.yaml").read_bytes() == (shipped_data() / "matrix.yaml").read_bytes()
    assert os.access(project / "dockerfiles/files/entrypoint", os.X_OK)
    assert run("init", "p", cwd=tmp_path).returncode == 0, "the same files again are no conflict"
    (project / "matrix.yaml").write_text((project / "matrix.yaml").read_text().replace("imgbuild", "mine", 2))
    refused = run("init", "p", cwd=tmp_path)
    assert (refused.returncode, "--force" in refused.stderr) == (5, True)
    ran = run("matrix", "--format", "json", cwd=project)
    assert ran.stderr == ""
    repositories = {cell["repository"] for cell in json.loads(ran.stdout)["cells"]}
    assert repositories == {"mine/pytorch", "mine/tensorflow", "mine/jax", "mine/mxnet"}
    assert run("init", "p", "--force", cwd=tmp_path).returncode == 0
    assert (project / "matrix.yaml").read_bytes() == (shipped_data() / "matrix.yaml").read_bytes()


def test_render_writes_checks_and_notices_what_differs(tmp_path: Path) -> None:
    assert run("render", "-o", "out", "--check", cwd=tmp_path).returncode == 13
    assert not (tmp_path / "out").exists()
    assert "would write" in run("render", "-o", "out", "--dry-run", cwd=tmp_path).stdout
    assert not (tmp_path / "out").exists()
    assert run("render", "-o", "out", cwd=tmp_path).returncode == 0
    assert run("render", "-o", "out", "--check", cwd=tmp_path).returncode == 0
    dockerfile = tmp_path / "out/torch-2.13.0-cpu-py3.11.Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "RUN true\n")
    (tmp_path / "out/old.Dockerfile").write_text("FROM x\n")
    ran = run("render", "-o", "out", "--check", cwd=tmp_path)
    assert ran.returncode == 13
    assert "differs: out/torch-2.13.0-cpu-py3.11.Dockerfile" in ran.stdout
    assert "belongs to no cell: out/old.Dockerfile" in ran.stdout
    assert "remove what belongs to no cell" in ran.stderr


def test_render_check_compares_the_executable_bit_and_notices_files_that_are_left_over(tmp_path: Path) -> None:
    assert run("render", "-o", "out", cwd=tmp_path).returncode == 0
    out = tmp_path / "out"
    # A user's own wheels and what git keeps there are no output.
    wheels = next((out / "wheels").iterdir())
    (wheels / "torch-2.13.0-py3-none-any.whl").write_bytes(b"")
    (out / ".gitattributes").write_text("")
    assert run("render", "-o", "out", "--check", cwd=tmp_path).returncode == 0
    script = out / "files/entrypoint"
    script.chmod(0o644)
    (out / "files/old").write_text("x")
    (out / "stray.whl").write_text("x")
    (out / ".dockerignore").write_text("*")
    (out / "link").symlink_to(out / "files")
    ran = run("render", "-o", "out", "--check", cwd=tmp_path)
    assert ran.returncode == 13
    assert sorted(ran.stdout.splitlines()) == [
        "belongs to no cell: out/.dockerignore",
        "belongs to no cell: out/files/old",
        "belongs to no cell: out/link",
        "belongs to no cell: out/stray.whl",
        "differs: out/files/entrypoint",
    ]
    assert "out/files/entrypoint" in run("render", "-o", "out", cwd=tmp_path).stdout
    assert script.stat().st_mode & 0o777 == 0o755
    some = run("render", "torch-2.13.0-cpu-py3.11", "-o", "out", "--check", cwd=tmp_path)
    assert some.returncode == 0, "what the other cells need is not left over"


def test_permissions_of_output_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert run("render", "-o", "out", cwd=tmp_path).returncode == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out/files/entrypoint").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/torch-2.13.0-cpu-py3.11.Dockerfile").stat().st_mode & 0o777 == 0o644


DOCKERFILE = "torch-2.13.0-cpu-py3.11.Dockerfile"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("render", "-o", "/proc/imgbuild"), "/proc/imgbuild/"),
        (("render", "-o", "file/x"), "file"),
        (("render", "-o", "blocked"), f"blocked/{DOCKERFILE}"),
        (("render", "-o", "halfway"), "halfway/files"),
        (("render", "-o", "nowhere"), "nowhere"),
        (("render", "-o", "x" * 300), "x" * 300),
        (("init", "/proc/imgbuild"), "/proc/imgbuild/matrix.yaml"),
        (("init", "/dev/null"), "/dev/null"),
        (("init", "taken"), "taken/matrix.yaml"),
        (("init", "taken", "--force"), "taken/matrix.yaml"),
        (("init", "x" * 300), "x" * 300),
    ],
)
def test_output_that_cannot_be_written(tmp_path: Path, arguments: tuple[str, ...], where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "blocked" / DOCKERFILE).mkdir(parents=True)
    (tmp_path / "halfway").mkdir()
    (tmp_path / "halfway/files").write_text("in the way")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "taken/matrix.yaml").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    ran = run(*arguments, cwd=tmp_path)
    assert ran.returncode == 5, ran.stderr
    assert f"error: {where}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


@pytest.mark.parametrize("name", ["matrix.yaml", "dockerfiles"])
@pytest.mark.parametrize("make", ["a link that leads nowhere", "is not a"])
def test_what_is_not_a_matrix_is_not_passed_over_for_the_shipped_one(tmp_path: Path, name: str, make: str) -> None:
    path = tmp_path / name
    if make == "a link that leads nowhere":
        path.symlink_to("missing")
    elif name == "matrix.yaml":
        path.mkdir()
    else:
        path.write_text("")
    ran = run("matrix", cwd=tmp_path)
    assert (ran.returncode, make in ran.stderr, ran.stdout) == (5, True, ""), ran.stderr
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    assert run("matrix", cwd=tmp_path).returncode == 0


def test_a_matrix_that_is_a_link_to_a_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_bytes((shipped_data() / "matrix.yaml").read_bytes())
    (tmp_path / "matrix.yaml").symlink_to("other.yaml")
    ran = run("matrix", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_template_that_is_not_utf8(tmp_path: Path) -> None:
    assert run("init", ".", cwd=tmp_path).returncode == 0
    name = "pytorch.Dockerfile.j2"
    file = tmp_path / "dockerfiles" / name
    content = file.read_bytes()
    file.write_bytes(content + b"# \xff\n")
    ran = run("render", cwd=tmp_path)
    assert ran.returncode == 6, ran.stderr
    assert f"{name}:{content.count(10) + 1}:1: not UTF-8" in ran.stderr
    file.write_bytes(content + "# é\n".encode())
    assert run("render", cwd=tmp_path).returncode == 0


def test_a_lock_file_that_is_missing_or_tampered_with(tmp_path: Path) -> None:
    assert run("init", ".", cwd=tmp_path).returncode == 0
    (file,) = (tmp_path / "dockerfiles/locks").glob("torch-2.13.0-cpu-*.python.json")
    content = file.read_text()
    file.write_text(content.replace('"dask-2', '"dask-1'))
    ran = run("render", cwd=tmp_path)
    assert (ran.returncode, ran.stderr.count("error: ")) == (5, 1), ran.stderr
    assert file.name in ran.stderr
    file.write_text(content)
    # Of another project's cells, imgbuild ships no lock.
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(matrix.read_text().replace("bookworm:", "other:").replace("base: bookworm", "base: other"))
    ran = run("render", cwd=tmp_path)
    assert (ran.returncode, ran.stderr.count("error: ")) == (19, 1), ran.stderr
    assert "run `imgbuild lock` and commit what it writes" in ran.stderr
    matrix.write_text((shipped_data() / "matrix.yaml").read_text())
    assert run("render", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("version: 1", "version: 2", 5, "matrix.yaml:3:10"),
        ("axes:", "axis:", 5, "did you mean `axes`?"),
        ("[torch==2.13.0,", "[torhc==2.13.0,", 5, "did you mean `torch`?"),
        ("aliases:", "  - [: broken", 5, "matrix.yaml:"),
        ("pytorch.Dockerfile.j2", "pytroch.Dockerfile.j2", 6, "did you mean `pytorch.Dockerfile.j2`?"),
        ("    channels: {", "    constraints: c/{version}.txt\n    channels: {", 6, "there is no c/2.13.0.txt"),
    ],
)
def test_bad_input_has_one_message_and_its_own_exit_code(
    tmp_path: Path, old: str, new: str, code: int, message: str
) -> None:
    text = (shipped_data() / "matrix.yaml").read_text()
    assert old in text
    (tmp_path / "matrix.yaml").write_text(text.replace(old, new, 1))
    ran = run("render", "-o", "out", cwd=tmp_path)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert ran.stderr.count("error: ") == 1
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_template_that_does_not_render_is_named_with_its_line(tmp_path: Path) -> None:
    assert run("init", ".", cwd=tmp_path).returncode == 0
    template = tmp_path / "dockerfiles/pytorch.Dockerfile.j2"
    text = template.read_text()
    line = text.count("\n") + 1
    template.write_text(text + "{{ nothing }}\n")
    ran = run("render", cwd=tmp_path)
    assert ran.returncode == 6
    assert f"pytorch.Dockerfile.j2:{line}:1: " in ran.stderr
    assert "'nothing' is undefined" in ran.stderr
    template.write_text(text)
    assert run("render", cwd=tmp_path).returncode == 0


def test_selectors_that_match_nothing_warn_and_an_empty_selection_is_a_usage_error(tmp_path: Path) -> None:
    ran = run("matrix", "*-horovod", "no-such-*", cwd=tmp_path)
    assert ran.returncode == 0
    assert "no-such-*" in ran.stderr
    ran = run("matrix", "--only", "python=3.8", cwd=tmp_path)
    assert ran.returncode == 2
    assert "no cell is selected" in ran.stderr


EXCLUDED = """\
exclude:
  - {match: "torch-2.13.0-cpu-py3.11", reason: not today}
"""


def test_matrix_lists_the_excluded_cells_that_the_selection_means(tmp_path: Path) -> None:
    text = (shipped_data() / "matrix.yaml").read_text()
    assert "\nexclude:" not in text
    total = len(json.loads(run("matrix", "--format", "json", cwd=tmp_path).stdout)["cells"])
    (tmp_path / "matrix.yaml").write_text(text + EXCLUDED)
    everything = run("matrix", cwd=tmp_path)
    assert f"{total - 1} cells, 1 excluded" in everything.stdout
    assert "py3.11  excluded: not today" in everything.stdout
    only = ("t*-cpu-py3.11", "t*-cpu-py3.11-horovod")
    for arguments in (("t*-cpu-py3.11-horovod",), (*only, "--skip", "*-py3.11"), (*only, "--only", "extras=horovod")):
        some = run("matrix", *arguments, cwd=tmp_path)
        assert "2 cells, 0 excluded" in some.stdout
        assert "not today" not in some.stdout
        document = json.loads(run("matrix", *arguments, "--format", "json", cwd=tmp_path).stdout)
        assert (len(document["cells"]), document["excluded"]) == (2, [])


@pytest.mark.parametrize("reference", ["BAD REF", "", "Upper/case", "name:", "name@sha256:12"])
def test_an_image_that_cannot_be_one_is_a_usage_error(tmp_path: Path, reference: str) -> None:
    ran = run("check", "--image", reference, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert "--image" in ran.stderr
    good = run("check", "--image", "host:5000/name:tag", cwd=tmp_path)
    assert good.returncode == 7, "only the engine is missing"


@pytest.mark.parametrize("command", [("build",), ("check", "--image", "x")])
def test_deadlines(tmp_path: Path, command: tuple[str, ...]) -> None:
    for value in ("nan", "inf", "-inf", "0", "86401", "soon"):
        ran = run(*command, "--check-deadline", value, cwd=tmp_path)
        assert ran.returncode == 2, value
        assert "--check-deadline" in ran.stderr
    for value in ("1", "86400", "1.5e2"):
        assert run(*command, "--check-deadline", value, cwd=tmp_path).returncode == 7, value


def test_no_engine(tmp_path: Path) -> None:
    for arguments in (("build",), ("check", "--image", "x"), ("build", "--dry-run")):
        ran = run(*arguments, cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
        assert ran.returncode == 7, ran.stderr
        assert ran.stderr.count("error: ") == 1
        assert "none.sock" in ran.stderr


def test_a_socket_on_which_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()
    ran = run("build", cwd=tmp_path, DOCKER_HOST=f"unix://{path}")
    assert ran.returncode == 7, ran.stderr


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = run("build", cwd=tmp_path, IMGBUILD_STATE_DIR=f"{tmp_path}/file/state", DOCKER_HOST="unix:///nowhere")
    assert ran.returncode in (7, 17)
    assert "Traceback" not in ran.stderr


def test_doctor_reports_every_line_and_fails_when_one_does(tmp_path: Path) -> None:
    ran = run("doctor", "--format", "json", cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert ran.returncode == 14
    findings = {finding["name"]: finding for finding in json.loads(ran.stdout)["findings"]}
    assert findings["engine"]["status"] == "failed"
    assert findings["engine"]["mend"]
    assert findings["BuildKit"]["status"] == "not_run"
    assert findings["state directory"]["status"] == "passed"


def test_listing_cells_imports_nothing_slow(tmp_path: Path) -> None:
    program = (
        "import sys; from builder.cli import cli; cli(['matrix'], standalone_mode=False);"
        "print(sorted({'docker', 'jinja2', 'h2', 'requests'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("imgbuild")
    ran = subprocess.run(
        ["sh", "-c", f"'{program}' matrix --format json | true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in ran.stderr


def test_a_defect_of_our_own_is_kept_in_a_file_and_not_shown_as_a_traceback(tmp_path: Path) -> None:
    program = (
        "import builder.cli, builder.project\n"
        "def broken(*_): raise ZeroDivisionError('at https://user:secret@host/x')\n"
        "builder.project.find_project = broken\n"
        "import sys; sys.argv = ['imgbuild', 'matrix']; builder.cli.main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 70
    assert "Traceback" not in ran.stderr
    assert "secret" not in ran.stderr
    (report,) = tmp_path.glob("imgbuild-defect-*.txt")
    assert "ZeroDivisionError" in report.read_text()
    assert "secret" not in report.read_text()
