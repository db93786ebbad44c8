"""`imgbuild verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder.cli.options import format_option, this_site
from builder.cli.trust import image_argument, require_option, trust_options, trusted_keys


@click.command()
@image_argument
@require_option
@trust_options
@format_option
def verify(image: str, level: str | None, keys: tuple[Path, ...], max_age: int | None, format_: str) -> None:
    """Succeed if and only if trusted evidence in the registry says that IMAGE reached a level.

    Made for admission in clusters: it needs no engine and no matrix. Name the image by its digest: a tag is looked up
    once, and the digest that was meant is printed.

    \b
    Exit codes: 0 it is verified, 20 nothing that counts says so, 21 there is evidence and none of it verifies,
    15 the registry is unreachable or has no such image, 5 a key cannot be read.

    \b
    Examples:
      imgbuild verify registry.example.com/team/pytorch@sha256:… --key imgbuild.pub --require gpu
    """
    from builder.matrix import Level
    from builder.release.evidence import gather, require
    from builder.release.remote import find

    site = this_site()
    trusted = trusted_keys(site, keys)
    wanted = Level(level) if level else Level.CPU
    with find(image, site) as remote:
        evidence = gather(remote.repository, remote.digest, trusted, max_age_days=max_age)
        by = require(evidence, wanted)
    if format_ == "json":
        document = {
            "schema": "imgbuild.verify/1",
            "image": remote.reference,
            "digest": remote.digest,
            "required": wanted.value,
            "reached": by.reached.value if by.reached else None,
            "cell": by.cell or None,
            "finished": by.finished.isoformat(),
        }
        click.echo(json.dumps(document, indent=2))
        return
    reached = by.reached.value if by.reached else ""
    click.echo(f"verified at {reached}, checked {by.finished:%Y-%m-%d %H:%M} UTC: {remote.reference}")
