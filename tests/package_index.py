"""Small wheels, and indexes of them: directories in the form of PEP 503, and servers of such."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import ssl
import tarfile
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str, *, requires: Sequence[str] = (), tag: str = "py3-none-any"
) -> Path:
    """A wheel whose bytes depend on the arguments alone."""
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    members = {
        f"{name.replace('-', '_')}/__init__.py": f"__version__ = {version!r}  # {tag}\n",
        f"{stem}.dist-info/METADATA": "\n".join(lines) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        + "".join(f"Tag: {tag}\n" for tag in [tag]),
    }
    record = "".join(f"{path},{_record_hash(text.encode())},{len(text.encode())}\n" for path, text in members.items())
    members[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), text)
    return path


def make_sdist(folder: Path, name: str, version: str, *, requires: Sequence[str] = ()) -> Path:
    """A source distribution whose metadata needs no build: PEP 643."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = ["Metadata-Version: 2.2", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.tar.gz"
    project = f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {list(requires)!r}\n'
    with tarfile.open(path, "w:gz") as archive:
        for member, text in (("PKG-INFO", "\n".join(metadata) + "\n"), ("pyproject.toml", project)):
            info = tarfile.TarInfo(f"{stem}/{member}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_index(root: Path, files: Sequence[Path], *, hashes: bool = True) -> Path:
    """A simple index with copies of the files; returns the directory that an index URL names."""
    simple = root / "simple"
    (root / "files").mkdir(parents=True, exist_ok=True)
    pages: dict[str, list[str]] = {}
    for file in files:
        shutil.copyfile(file, root / "files" / file.name)
        project = file.name.split("-")[0].replace("_", "-").lower()
        link = f"../../files/{urllib.parse.quote(file.name)}" + (f"#sha256={sha256(file)}" if hashes else "")
        pages.setdefault(project, []).append(f'<a href="{link}">{file.name}</a><br>')
    for project, links in pages.items():
        (simple / project).mkdir(parents=True, exist_ok=True)
        page = "<!DOCTYPE html><html><body>\n" + "\n".join(links) + "\n</body></html>\n"
        (simple / project / "index.html").write_text(page)
    simple.mkdir(exist_ok=True)
    return simple


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


@contextmanager
def served(
    root: Path, *, status: int | None = None, password: str | None = None, certificate: Path | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serves a directory on a port of this machine.

    Args:
        root: what `make_index` was given.
        status: answered to everything, instead of the files.
        password: asked of the user `reader`.
        certificate: a file with a certificate for `localhost` and its key: then it is HTTPS.

    Yields:
        the index URL, and the paths that were asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            code, body = self._answer()
            self.send_response(code)
            if code == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def _answer(self) -> tuple[int, bytes]:
            if status is not None:
                return status, b""
            if password is not None:
                expected = "Basic " + base64.b64encode(f"reader:{password}".encode()).decode()
                if self.headers.get("Authorization") != expected:
                    return 401, b""
            path = root / urllib.parse.unquote(self.path).lstrip("/")
            path = path / "index.html" if path.is_dir() else path
            return (200, path.read_bytes()) if path.is_file() else (404, b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{scheme}://localhost:{server.server_address[1]}/simple", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
