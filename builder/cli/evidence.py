"""`imgbuild evidence`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder.cli.options import format_option, this_site
from builder.cli.trust import image_argument, trust_options, trusted_keys


@click.command()
@image_argument
@click.option("--local", is_flag=True, help="Look at this machine's own runs, also where IMAGE names a registry.")
@click.option("--repair", is_flag=True, help="Write the registry's list of evidence anew where some is missing in it.")
@trust_options
@format_option
def evidence(image: str, local: bool, repair: bool, keys: tuple[Path, ...], max_age: int | None, format_: str) -> None:
    """Say what is known of IMAGE: who checked what, when, on what, to which level, and who signed it.

    The evidence is that which is attached to the image in its registry. Of an IMAGE without a registry in its name,
    and with --local, it is that of this machine's own runs on the engine's image of that name or id. Evidence that
    does not count is shown too, with the reason. This command only reads and does not judge: it ends with 0 whatever
    it finds; `imgbuild verify` judges.

    \b
    Examples:
      imgbuild evidence registry.example.com/team/pytorch:latest
      imgbuild evidence registry.example.com/team/pytorch@sha256:… --key imgbuild.pub --format json
      imgbuild evidence imgbuild/pytorch:latest
    """
    from builder.engine.reference import Reference
    from builder.registry.artifacts import repair as repair_list
    from builder.release.evidence import gather
    from builder.release.local import gather_local
    from builder.release.remote import find
    from builder.release.show import to_document, to_lines

    site = this_site()
    trusted = trusted_keys(site, keys, needed=False)
    if local or not Reference.parse(image).host:
        if repair:
            raise click.UsageError("--repair is for a registry, and this is about an image of the engine")
        found = gather_local(site, image, trusted, max_age_days=max_age)
    else:
        with find(image, site) as remote:
            if repair:
                missing = repair_list(remote.repository, remote.digest)
                click.echo(f"{missing} missing entries added to the registry's list", err=True)
            found = gather(remote.repository, remote.digest, trusted, max_age_days=max_age)
    click.echo(json.dumps(to_document(found), indent=2) if format_ == "json" else "\n".join(to_lines(found)))
