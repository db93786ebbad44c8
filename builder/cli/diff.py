"""`imgbuild diff`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder.cli.options import format_option, note, this_site
from builder.cli.trust import reference_argument, trust_options, trusted_keys


@click.command()
@click.argument("before", metavar="A", callback=reference_argument)
@click.argument("after", metavar="B", callback=reference_argument)
@click.option("--local", is_flag=True, help="Look for both on this machine's engine, also where a name has a registry.")
@click.option("--exit-code", is_flag=True, help="End with 13 when anything that is known differs.")
@trust_options
@format_option
def diff(
    before: str,
    after: str,
    local: bool,
    exit_code: bool,
    keys: tuple[Path, ...],
    max_age: int | None,
    format_: str,
) -> None:
    """Say what differs on the way from image A to image B: Python and Debian packages added, removed and changed,
    layers and their sizes, the level that was reached, checks, configuration.

    An image without a registry in its name is read on the engine, without running it; its checks are this machine's
    own runs. Of an image in a registry no layer is fetched: what is installed and what was checked is that of its
    trusted evidence. What is not known of one of them is said, and not compared. Ends with 0 whatever differs.

    \b
    Examples:
      imgbuild diff imgbuild/pytorch:latest imgbuild/pytorch:2.13.0-cpu-py3.11
      imgbuild diff registry.example.com/team/pytorch@sha256:… registry.example.com/team/pytorch:latest --key k.pub
      imgbuild diff A B --exit-code --format json
    """
    from builder.errors import Differs
    from builder.release.contents import contents
    from builder.release.diff import compare
    from builder.release.diff_show import to_document, to_lines

    site = this_site()
    trusted = trusted_keys(site, keys, needed=False)
    one = contents(site, before, trusted, local=local, max_age_days=max_age, note=note)
    other = contents(site, after, trusted, local=local, max_age_days=max_age, like=one, note=note)
    found = compare(one, other)
    click.echo(json.dumps(to_document(found), indent=2) if format_ == "json" else "\n".join(to_lines(found)))
    if exit_code and found.differs:
        # As git's: that they differ is an answer, and no error to be told.
        click.get_current_context().exit(Differs.exit_code)
