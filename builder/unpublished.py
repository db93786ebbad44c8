"""What `--unpublished` asks: which cells their registry does not hold yet as they are rendered now."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from builder.attest import PublicKey, site_signing_key, site_trusted_keys
from builder.emit.registry import AT_ONCE, held_digest
from builder.matrix import Cell, Matrix
from builder.plan import Action, candidate_tag, public_references
from builder.project import Project
from builder.release.evidence import gather
from builder.release.remote import open_repository
from builder.site import Site
from builder.workshop import Run, workshop


def unpublished_cells(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str
) -> tuple[Cell, ...]:
    """The cells that their registry does not hold under all their public names as the candidate of their key.

    So a cell counts as unpublished whose image was pushed and never promoted, since another cell had failed. Where
    keys are trusted, an image counts as published only with trusted evidence beside it that reaches what its names
    need.

    Raises:
        RegistryUnreachable: a registry did not answer.
        ConfigError: a trusted key cannot be read.
    """
    keys = site_trusted_keys(run.site, site_signing_key(run.site, os.environ))
    with workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)

        def published(action: Action) -> bool:
            if action.key is None:  # its base would have to be made first
                return False
            engine = shop.foundry.engine
            digest = held_digest(engine, candidate_tag(action.cell, action.key))
            # What a check on this engine cannot earn is put by a pipeline that can.
            earned = action.cell.policy.verified <= shop.foundry.reach.level(action.cell)[0]
            names = public_references(action.cell, verified=earned)
            if digest is None or any(held_digest(engine, reference) != digest for reference in names):
                return False
            return not keys or _evident(action.cell, digest, keys, run.site, verified=earned)

        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="registry") as pool:
            there = list(pool.map(published, actions))
    return tuple(action.cell for action, held in zip(actions, there, strict=True) if not held)


def _evident(cell: Cell, digest: str, keys: tuple[PublicKey, ...], site: Site, *, verified: bool) -> bool:
    """Whether trusted evidence says that an image has reached what its names need."""
    with open_repository(cell.repository, site) as repository:
        evidence = gather(repository, digest, keys, max_age_days=cell.policy.max_age_days)
    needed = cell.policy.verified if verified else cell.policy.public
    return evidence.reached is not None and needed <= evidence.reached
