"""`imgbuild keygen`."""

from __future__ import annotations

import os
from pathlib import Path

import click

KINDS = ("ecdsa-p256", "ed25519")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=KINDS[0],
    show_default=True,
    help="ECDSA over P-256 is what every verifier and key service takes.",
)
def keygen(directory: Path, kind: str) -> None:
    """Make a pair of keys to sign evidence with: DIRECTORY/imgbuild.key, which stays secret, and
    DIRECTORY/imgbuild.pub, which verifies.

    Files that are there already are never overwritten. With a password in IMGBUILD_SIGNING_KEY_PASSWORD the private
    key is encrypted.
    """
    from builder.attest.keygen import write_pair
    from builder.attest.keys import PASSWORD_VARIABLE, KeyKind

    password = os.environ.get(PASSWORD_VARIABLE) or None
    private, public, key = write_pair(directory, KeyKind(kind), password)
    click.echo(f"wrote {private} ({'encrypted' if password else 'not encrypted'}, mode 0600)")
    click.echo(f"wrote {public}")
    click.echo(f"key id: {key.id}")
    click.echo("Site settings: `signing-key` where evidence is made, `trusted-keys` where it is to count.")
