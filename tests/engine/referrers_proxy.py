"""A registry with the referrers API, made of one without it: a proxy that adds what the specification asks for.

Debian's registry (2.8) keeps manifests with a `subject` but does not list them. No registry that does can be had here,
so this proxy follows https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers and
#pushing-manifests-with-subject: it answers a PUT with `OCI-Subject`, and serves `/v2/NAME/referrers/DIGEST` with the
filter and in pages. Everything else goes to the registry as it came.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

_INDEX = "application/vnd.oci.image.index.v1+json"
_REFERRERS = re.compile(r"/v2/(.+)/referrers/(sha256:[0-9a-f]{64})")
_MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class ReferrersProxy(ThreadingHTTPServer):
    """The proxy. `page` is how many referrers one answer lists; `filters` whether it filters by type itself.

    Every request is in `requests`, by method and path.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, *, page: int = 5, filters: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.upstream = upstream
        self.page = page
        self.filters = filters
        self.lock = threading.Lock()
        self.referrers: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        self.requests: list[tuple[str, str]] = []

    def writes(self) -> list[str]:
        """Everything that was sent to be kept since the last call: blobs, their beginnings, manifests."""
        with self.lock:
            found = [f"{method} {path}" for method, path in self.requests if method not in ("GET", "HEAD")]
            self.requests.clear()
        return found

    def remember(self, repository: str, body: bytes, media_type: str) -> str:
        """Lists a manifest that was put for its subject; returns the subject's digest, or nothing."""
        document = json.loads(body)
        subject = str((document.get("subject") or {}).get("digest", ""))
        if not subject:
            return ""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        entry = {"mediaType": media_type, "digest": digest, "size": len(body)}
        entry["artifactType"] = document.get("artifactType") or document["config"]["mediaType"]
        if document.get("annotations"):
            entry["annotations"] = document["annotations"]
        with self.lock:
            self.referrers.setdefault((repository, subject), {})[digest] = entry
        return subject


class _Handler(BaseHTTPRequestHandler):
    server: ReferrersProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _all(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        with self.server.lock:
            self.server.requests.append((self.command, url.path))
        listing = _REFERRERS.fullmatch(url.path)
        if listing and self.command == "GET":
            self._list(listing[1], listing[2], parse_qs(url.query))
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            # With our own host in it, the places that the registry names are here.
            # An engine sends one `Accept` for each type.
            names = {name.lower() for name in self.headers} - _ONE_HOP
            headers = {name: ", ".join(self.headers.get_all(name) or ()) for name in names}
            upstream.request(self.command, self.path, body=body, headers=headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        extra = {}
        put = _MANIFEST.fullmatch(url.path)
        if put and self.command == "PUT" and answer.status == 201:
            subject = self.server.remember(put[1], body or b"{}", self.headers.get("Content-Type", ""))
            extra = {"OCI-Subject": subject} if subject else {}
        self.send_response(answer.status)
        for name, value in [*answer.getheaders(), *extra.items()]:
            if name.lower() not in _ONE_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        if answer.status != 204:
            self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _all

    def _body(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        length = self.headers.get("Content-Length")
        return self.rfile.read(int(length)) if length is not None else None

    def _list(self, repository: str, subject: str, query: dict[str, list[str]]) -> None:
        wanted, last = query.get("artifactType", [""])[0], query.get("last", [""])[0]
        with self.server.lock:
            entries = sorted(self.server.referrers.get((repository, subject), {}).items())
        filtered = bool(wanted) and self.server.filters
        entries = [e for e in entries if not filtered or e[1]["artifactType"] == wanted]
        rest = [entry for entry in entries if entry[0] > last]
        page = rest[: self.server.page]
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry for _, entry in page]}
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", _INDEX)
        self.send_header("Content-Length", str(len(body)))
        if filtered:
            self.send_header("OCI-Filters-Applied", "artifactType")
        if len(rest) > len(page):
            asked = {"last": page[-1][0], **({"artifactType": wanted} if wanted else {})}
            self.send_header("Link", f'</v2/{repository}/referrers/{subject}?{urlencode(asked)}>; rel="next"')
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def referrers_proxy(upstream: str, *, page: int = 5, filters: bool = True) -> Iterator[ReferrersProxy]:
    """Serves the API before a registry that serves plain HTTP; gives the proxy, which has an `address`."""
    with ReferrersProxy(upstream, page=page, filters=filters) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
