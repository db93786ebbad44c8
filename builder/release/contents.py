"""What is known of one image: its layers, its configuration, what is installed in it, and how far it was checked.

An image of the engine is read itself, without running it; its checks are this machine's own runs. Of an image in a
registry only the manifest and the configuration are fetched, no layer: what is installed and what was checked is taken
from the evidence attached to it that counts. What cannot be told is `Unknown`, with the reason, never empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from builder.attest import TEST_RESULT, CheckStatement, PublicKey, Refused, TestResult
from builder.attest.bill import Bill, parse_bill
from builder.attest.sbom import CYCLONEDX
from builder.attest.software import Software, installed_software
from builder.check import VerdictStatus, content_id
from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.history import history, instruction, of_layers
from builder.engine.images import ImageDetails, inspect
from builder.engine.reference import Reference
from builder.registry.client import RepositoryLike
from builder.registry.images import RemoteImage, remote_image
from builder.release.evidence import Evidence, gather
from builder.release.parts import Configuration, Contents, Layer, Outcome, Place, Standing, State, Unknown
from builder.release.remote import find
from builder.runs import Run, latest, runs_directory
from builder.site import Site


def contents(
    site: Site,
    reference: str,
    keys: Iterable[PublicKey],
    *,
    local: bool = False,
    max_age_days: int | None = None,
    like: Contents | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Contents:
    """What is known of an image.

    Args:
        site: this machine's settings.
        reference: with a registry in its name it is looked for there, else on the engine.
        keys: whose evidence in a registry counts.
        local: look on the engine, also where the name has a registry.
        max_age_days: how old a check in a registry may be; None for any age.
        like: another image: what is installed there is not read again for one with the same layers.
        note: told what takes long before it begins.

    Raises:
        InvalidReference: `reference` is malformed.
        ImageMissing, EngineUnavailable, ContainerError: the engine has no such image, or it cannot be read.
        NotInRegistry, RegistryError: the registry has no such image, or refused.
        StateError: this machine's runs cannot be read.
    """
    if local or not Reference.parse(reference).host:
        return _on_engine(site, reference, like, note)
    with find(reference, site) as remote:
        return remote_contents(remote.repository, remote.digest, reference, keys, max_age_days=max_age_days)


def remote_contents(
    repository: RepositoryLike,
    digest: str,
    reference: str,
    keys: Iterable[PublicKey],
    *,
    max_age_days: int | None = None,
) -> Contents:
    """What a registry tells of an image, and trusted evidence there.

    Args:
        repository, digest: where it is.
        reference, keys, max_age_days: as for `contents`.

    Raises:
        NotInRegistry, RegistryError: there is no such image, or the registry refused.
    """
    image = remote_image(repository, digest)
    evidence = gather(repository, digest, keys, max_age_days=max_age_days)
    config = _decoded(image.config)
    return Contents(
        reference=reference,
        digest=digest,
        place=Place.REGISTRY,
        size=sum(layer.size for layer in image.layers),
        layers=_remote_layers(image, config),
        configuration=_remote_configuration(config),
        software=software_said(evidence),
        standing=standing_said(evidence),
    )


def software_said(evidence: Evidence) -> Software | Unknown:
    """What the last trusted bill of materials says."""
    bills: list[Bill] = []
    refused: list[Refused] = [item.why for item in evidence.doubtful if item.claimed == CYCLONEDX]
    for item in evidence.trusted:
        if item.verified.predicate_type == CYCLONEDX:
            try:
                bills.append(parse_bill(item.verified.statement))
            except Refused as why:
                refused.append(why)
    if bills:
        return max(bills, key=lambda bill: bill.timestamp).software
    pull = f"`docker pull {evidence.reference}` and --local read the image itself"
    if refused:
        return Unknown(why=f"no SBOM of it counts: {_reasons(refused)}; {pull}")
    return Unknown(why=f"no SBOM is attached: `imgbuild publish` attaches one; {pull}")


def standing_said(evidence: Evidence) -> Standing | Unknown:
    """What trusted statements say of the suite."""
    found = deciding(_from_statement(check) for check in evidence.checks)
    if found is not None:
        return found
    refused = [item.why for item in evidence.doubtful if item.claimed == TEST_RESULT]
    if refused:
        return Unknown(why=f"no check of it counts: {_reasons(refused)}")
    return Unknown(why=f"no check is attached: `imgbuild check --image {evidence.reference} --attach` makes one")


def deciding(runs: Iterable[Standing]) -> Standing | None:
    """The run that says what an image is: as for evidence, the one that reached the highest level since the last
    failure, or else that failure, or else the last. None of no run.

    Args:
        runs: the last first.
    """
    first: Standing | None = None
    best: Standing | None = None
    for run in runs:
        first = first or run
        if run.failed:
            return best or run
        if run.reached is not None and (best is None or best.reached is None or best.reached < run.reached):
            best = run
    return best or first


def _on_engine(site: Site, reference: str, like: Contents | None, note: Callable[[str], None]) -> Contents:
    with Engine.connect(site.engine) as engine:
        image = inspect(engine, reference)
        if image is None:
            raise ImageMissing(
                f"this engine holds no image {reference}",
                hint="name the registry to compare what is there; that of Docker Hub is docker.io",
            )
        steps = of_layers(history(engine, image.id), len(image.layers))
        if like is not None and like.diff_ids == image.layers and isinstance(like.software, Software):
            software = like.software
        else:
            note(f"reading what is installed in {reference}")
            software = installed_software(engine, image.id)
    runs = latest(runs_directory(site.state_dir), image_id=image.id, content_id=content_id(image))
    return Contents(
        reference=reference,
        digest=image.id,
        place=Place.ENGINE,
        size=image.size,
        layers=tuple(
            Layer(
                diff_id=diff_id,
                size=steps[index].size if steps else None,
                made_by=instruction(steps[index].created_by) if steps else "",
            )
            for index, diff_id in enumerate(image.layers)
        ),
        configuration=_configuration(image),
        software=software,
        standing=deciding(_from_run(stored.run) for stored in runs)
        or Unknown(why=f"no run of it on this machine: `imgbuild check --image {reference}` makes one"),
    )


def _reasons(refused: list[Refused]) -> str:
    """Each once: anybody can attach what does not count, and any number of it."""
    reasons = sorted({item.message for item in refused})
    more = f"; and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    hints = sorted({item.hint for item in refused if item.hint})[:1]
    return "; ".join([*reasons[:3], *hints]) + more


def _decoded(config: bytes) -> Mapping[str, object]:
    try:
        return fields.mapping(json.loads(config))
    except (ValueError, RecursionError):
        return {}


def _remote_layers(image: RemoteImage, config: Mapping[str, object]) -> tuple[Layer, ...]:
    """With their instructions, where the image's history tells them."""
    steps = [fields.mapping(item) for item in fields.sequence(config.get("history"))]
    made = [fields.text(step.get("created_by")) for step in steps if not fields.boolean(step.get("empty_layer"))]
    if len(made) != len(image.diff_ids):
        # Some builders write no history, or half of one.
        made = [""] * len(image.diff_ids)
    return tuple(
        Layer(diff_id=diff_id, size=layer.size, made_by=instruction(by))
        for diff_id, layer, by in zip(image.diff_ids, image.layers, made, strict=True)
    )


def _remote_configuration(config: Mapping[str, object]) -> Configuration:
    own = fields.mapping(config.get("config"))
    variables = fields.texts(own.get("Env"))
    return Configuration(
        os=fields.text(config.get("os")),
        architecture=fields.text(config.get("architecture")),
        user=fields.text(own.get("User")),
        workdir=fields.text(own.get("WorkingDir")),
        entrypoint=fields.texts(own.get("Entrypoint")),
        command=fields.texts(own.get("Cmd")),
        environment=_environment({}, variables),
        labels=fields.text_mapping(own.get("Labels")),
    )


def _configuration(image: ImageDetails) -> Configuration:
    return Configuration(
        os=image.os,
        architecture=image.architecture,
        user=image.user,
        workdir=image.workdir,
        entrypoint=image.entrypoint or (),
        command=image.command or (),
        environment=_environment(image.environment, image.repeated),
        labels=image.labels,
    )


def _environment(once: Mapping[str, str], variables: Iterable[str]) -> Mapping[str, str]:
    """Variables by name; one that is set several times has all its values, since programs differ in which they take."""
    found: dict[str, list[str]] = {}
    for item in variables:
        name, _, value = item.partition("=")
        found.setdefault(name, []).append(value)
    return {**once, **{name: ", then ".join(values) for name, values in found.items()}}


def _from_run(run: Run) -> Standing:
    return Standing(
        reached=run.reached,
        failed=run.status is VerdictStatus.FAILED,
        suite=run.suite,
        finished=run.started + timedelta(seconds=run.seconds),
        checks={check.name: Outcome(state=State(check.status.value), reason=check.reason) for check in run.checks},
    )


def _from_statement(check: CheckStatement) -> Standing:
    return Standing(
        reached=check.reached,
        failed=check.result is TestResult.FAILED,
        suite=check.suite,
        finished=check.finished,
        checks={
            **{name: Outcome(state=State.PASSED) for name in check.passed},
            **{name: Outcome(state=State.WARNED) for name in check.warned},
            **{name: Outcome(state=State.FAILED, reason=check.failures.get(name, "")) for name in check.failed},
            **{item.name: Outcome(state=State.NOT_RUN, reason=item.reason) for item in check.not_run},
        },
    )
