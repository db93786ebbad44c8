"""What `imgbuild publish` does: images that passed, with their evidence, from the engine into their registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from builder.attest import (
    TEST_RESULT,
    SigningKey,
    site_signing_key,
    site_trusted_keys,
)
from builder.attest.provenance import SLSA
from builder.attest.sbom import CYCLONEDX, sbom
from builder.attest.software import installed_software
from builder.builds import recall_build
from builder.check import VerdictStatus
from builder.engine.auth import DockerLogins
from builder.engine.errors import EngineError, ImageMissing
from builder.engine.images import ImageDetails, inspect
from builder.engine.transfer import push
from builder.errors import CheckFailed, CheckIncomplete, ConfigError, ImgbuildError, Interrupted
from builder.exits import DEFECT, describe_defect, interrupted_code
from builder.lock import Bases
from builder.matrix import Cell, Matrix
from builder.memory import Checked
from builder.pipeline import Foundry
from builder.plan import Action
from builder.project import Project
from builder.release.ledger import Held, Ledger
from builder.release.promotion import named
from builder.release.publication import Candidate, Publication, Publisher, to_json
from builder.release.remote import open_repository
from builder.release.statements import provenance_of, references, subjects
from builder.report import speaking_code
from builder.site import Site, redact
from builder.workshop import Run, ledger_of, workshop

AT_ONCE = 2
"""Images that are pushed at once: an engine sends several layers of each at a time."""


def required_key(site: Site) -> SigningKey:
    """The key that this machine signs with.

    Raises:
        ConfigError: its settings name none, or it cannot be used.
    """
    key = site_signing_key(site, os.environ)
    if key is None:
        raise ConfigError(
            "there is no key to sign evidence with",
            where=str(site.config),
            hint="`imgbuild keygen DIRECTORY` makes one; name it as `signing-key` in the site settings or in "
            "IMGBUILD_SIGNING_KEY",
        )
    return key


def publish_cells(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, names: bool) -> int:
    """Publishes the images of cells, prints what came of each, and returns the exit code."""
    done = published(run, project, matrix, cells, names=names)
    code = speaking_code(item.exit_code for item in done)
    if run.json_output:
        run.echo(to_json(done, code))
        return code
    for item in done:
        run.echo("\n".join(item.to_lines()))
    good = sum(not item.exit_code for item in done)
    changed = sum(item.changed for item in done)
    run.echo(f"{len(done)} cells: {good} good, {len(done) - good} not; {changed} changed in the registry")
    return code


def published(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, names: bool
) -> tuple[Publication, ...]:
    """Publishes the images of cells that passed here; what came of each is in the same order.

    Args:
        names: whether the images also get the names that they have earned.

    Raises:
        ConfigError: there is no key to sign with, or a key cannot be used.
    """
    key = required_key(run.site)
    trusted = site_trusted_keys(run.site, key)
    with workshop(run, project, matrix, cells, bases=Bases.AUTO.value, make=False) as shop:
        foundry = shop.foundry
        actions = foundry.plan(shop.selected, shop.pins, shop.options)
        publisher = Publisher(key=key, trusted=trusted, names=names, note=foundry.watcher.note)
        ledger = ledger_of(run.site, foundry.engine)

        def one(action: Action) -> Publication:
            foundry.watcher.begin(action.cell.id)
            done = _guarded(action, foundry, lambda: _publish(action, foundry, ledger, publisher))
            said = f"{done.status}: {done.reasons[0]}" if done.exit_code else done.status
            foundry.watcher.end(action.cell.id, said, ok=not done.exit_code)
            return done

        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="publish") as pool:
            return tuple(pool.map(one, actions))


def _guarded(action: Action, foundry: Foundry, publish: Callable[[], Publication]) -> Publication:
    """One cell's publication; whatever goes wrong is in it, and the others go on."""
    try:
        if foundry.cancel.is_set():
            raise Interrupted("not started")
        return publish()
    except (EngineError, ImgbuildError) as error:
        code = interrupted_code() if foundry.cancel.is_set() else error.exit_code
        said = (str(error) if not error.hint else str(error).removesuffix(f"\n  {error.hint}"), error.hint)
    except Exception as error:  # noqa: BLE001 - a defect in one cell must not cost the others their outcome
        code, (message, _, hint) = DEFECT, describe_defect(error).partition("\n  ")
        said = (message, hint)
    return Publication(
        cell=action.cell.id,
        exit_code=code,
        reasons=tuple(redact(text, foundry.site) for text in said if text),
        reference=action.candidate,
        image_id=action.image_id or "",
    )


def _publish(action: Action, foundry: Foundry, ledger: Ledger, publisher: Publisher) -> Publication:
    checked = _passed(action, foundry)
    image = inspect(foundry.engine, action.candidate)
    if image is None or image.id != action.image_id:
        raise ImageMissing(
            f"{action.candidate} is no longer the image that passed", hint=f"imgbuild build {action.cell.id}"
        )
    candidate = _candidate(action, foundry, ledger, checked, image)
    with open_repository(action.cell.repository, foundry.site) as repository:
        return publisher.publish(repository, candidate)


def _passed(action: Action, foundry: Foundry) -> Checked:
    """The run by which the image of an action passed.

    Raises:
        ImageMissing: there is no image.
        CheckFailed, CheckIncomplete: it did not pass, was not checked, or too long ago.
    """
    cell = action.cell.id
    if action.image_id is None:
        raise ImageMissing(f"this engine holds no image for {cell}: {action.why}", hint=f"imgbuild build {cell}")
    checked = foundry.memory.recall(action.recipe, action.image_id)
    if checked is None:
        raise CheckIncomplete(f"the image of {cell} was not checked here by this suite", hint=f"imgbuild build {cell}")
    verdict = checked.run.verdict
    if checked.counts:
        return checked
    if verdict.status is VerdictStatus.PASSED:
        raise CheckIncomplete(f"the check of {cell} is too old to count: {action.why}", hint=f"imgbuild build {cell}")
    kind = CheckFailed if verdict.status is VerdictStatus.FAILED else CheckIncomplete
    raise kind(f"the image of {cell} did not pass: {'; '.join(verdict.reasons)}", hint=f"imgbuild build {cell}")


def _candidate(action: Action, foundry: Foundry, ledger: Ledger, checked: Checked, image: ImageDetails) -> Candidate:
    cell = action.cell
    held = Held(project=foundry.project, recipe=action.recipe, key=action.key)
    record = recall_build(foundry.records, image.id)

    def check(digest: str) -> bytes:
        return ledger.statement(checked, image_id=image.id, repository=cell.repository, digest=digest, held=held)

    make: dict[str, Callable[[str], bytes]] = {TEST_RESULT: check}
    lacking: list[str] = []
    if record is not None:
        make[SLSA] = lambda digest: provenance_of(
            record, cell, foundry.engine.info(), about=subjects(image.id, repository=cell.repository, digest=digest)
        )
    else:
        lacking.append("no provenance: nothing is remembered here of how the image was built")

    def bill(digest: str) -> bytes:
        foundry.watcher.note(cell.id, "listing what is installed, for the SBOM")
        return sbom(
            installed_software(foundry.engine, image.id),
            subjects(image.id, repository=cell.repository, digest=digest),
            timestamp=datetime.now(timezone.utc),
            locked=action.recipe.locked,
        )

    make[CYCLONEDX] = bill
    return Candidate(
        cell=cell.id,
        reference=action.candidate,
        image_id=image.id,
        os=image.os,
        architecture=image.architecture,
        push=lambda: push(foundry.engine, action.candidate, DockerLogins()),
        make=make,
        lacking=tuple(lacking),
        names=named(references(cell)),
        max_age_days=cell.policy.max_age_days,
    )
