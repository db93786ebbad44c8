"""`imgbuild promote`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder.cli.options import format_option, this_site
from builder.cli.trust import image_argument, require_option, trust_options, trusted_keys


@click.command()
@image_argument
@require_option
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Give this tag instead of those that the evidence names; may be repeated.",
)
@trust_options
@format_option
def promote(
    image: str, level: str | None, tags: tuple[str, ...], keys: tuple[Path, ...], max_age: int | None, format_: str
) -> None:
    """Give the digest IMAGE the names that it has earned, in its registry.

    Only evidence that verifies is heeded. Which names, the level that each needs and, without --max-age, how old a
    check may be, stand in that evidence, so no matrix is needed; nothing is built, pulled or sent again. Names that
    the image has not earned stay where they are.

    \b
    Examples:
      imgbuild promote registry.example.com/team/pytorch@sha256:… --require gpu
    """
    from builder.matrix import Level
    from builder.release.evidence import gather
    from builder.release.promotion import chosen, names_of, promoted_lines
    from builder.release.promotion import promote as promote_image
    from builder.release.remote import find

    site = this_site()
    trusted = trusted_keys(site, keys)
    wanted = Level(level) if level else None
    with find(image, site, by_digest=True) as remote:
        evidence = gather(remote.repository, remote.digest, trusted)
        names = tuple(chosen(tags, remote.repository.name, evidence, wanted)) if tags else names_of(evidence)
        done = promote_image(remote.repository, evidence.within_age(max_age), names, level=wanted)
    if format_ == "json":
        document = {
            "schema": "imgbuild.promotion/1",
            "image": remote.reference,
            "reached": done.level.value,
            "moved": list(done.moved),
            "unchanged": list(done.unchanged),
            "withheld": [{"reference": reference, "reason": reason} for reference, reason in done.withheld],
        }
        click.echo(json.dumps(document, indent=2))
        return
    for line in promoted_lines(done):
        click.echo(line)
