"""What of an image a check can see: its layers and how its containers start. Pure."""

from __future__ import annotations

import hashlib
import json

from builder.engine.images import ImageDetails

CONTENT_FORMAT = "imgbuild-content/2"
"""Part of every content id: changed when the meaning of its fields changes."""


def content_id(details: ImageDetails) -> str:
    """SHA-256 in hex over an image's layer diff ids and runtime configuration.

    Two images with one content id differ at most in their labels, times, history, health check, exposed ports and stop
    signal: a check of one says as much about the other. Image ids and digests differ all the same, and evidence is
    about those. Volumes count, since they make places of a read-only root writable.

    An engine that names no layers, as none should, gets the image's own id: then no two images are one.
    """
    document = {
        "format": CONTENT_FORMAT,
        "layers": list(details.layers) or [details.id],
        "environment": dict(details.environment),
        "repeated": list(details.repeated),
        "entrypoint": list(details.entrypoint or ()),
        "command": list(details.command or ()),
        "user": details.user,
        "workdir": details.workdir,
        "volumes": list(details.volumes),
        "os": details.os,
        "architecture": details.architecture,
    }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
