"""What the commands that read evidence share: the image, the keys that count, the age that is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from builder.attest import PublicKey
    from builder.site import Site

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("static", "cpu", "gpu", "multi-gpu", "multi-node")
"""The words of `builder.matrix.Level`, without importing it for `--help`; a test compares them."""

level_choice = click.Choice(LEVELS)

require_option = click.option(
    "--require",
    "level",
    type=level_choice,
    metavar="LEVEL",
    help=f"The level that must be reached: {', '.join(LEVELS)}.",
)


def reference_argument(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuses what names no image before a registry or an engine is asked for it."""
    from builder.engine.reference import InvalidReference, Reference

    if value is not None:
        try:
            Reference.parse(value)
        except InvalidReference as error:
            raise click.BadParameter(str(error)) from None
    return value


def image_argument(function: F) -> F:
    """The image: `REPOSITORY@sha256:…` or `REPOSITORY:TAG`."""
    return click.argument("image", metavar="IMAGE", callback=reference_argument)(function)


def trust_options(function: F) -> F:
    """`--key` and `--max-age`."""
    for option in (
        click.option(
            "--max-age",
            "max_age",
            type=click.IntRange(0, 36500),
            metavar="DAYS",
            help="Do not count a check that ended longer ago.",
        ),
        click.option(
            "--key",
            "keys",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="A public key that is trusted, in PEM; may be repeated.  [default: the site's]",
        ),
    ):
        function = option(function)
    return function


def trusted_keys(site: Site, keys: tuple[Path, ...], *, needed: bool = True) -> tuple[PublicKey, ...]:
    """The keys of the command line, or else those of this machine's settings.

    Args:
        needed: refuse to go on without any.

    Raises:
        ConfigError: one cannot be read or is no public key, or there is none where one is needed.
    """
    from builder.attest import load_public_key, site_signing_key, site_trusted_keys
    from builder.errors import ConfigError

    if keys:
        return tuple(load_public_key(path) for path in keys)
    found = site_trusted_keys(site, site_signing_key(site, os.environ))
    if needed and not found:
        raise ConfigError(
            "no key is trusted here, so no evidence can count",
            where=str(site.config),
            hint="name public keys in `trusted-keys` of the site settings, in IMGBUILD_TRUSTED_KEYS or with --key",
        )
    return found
