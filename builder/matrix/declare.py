"""From nodes to typed declarations: what `matrix.yaml` says, checked field by field and by name.

The form of every value is checked against `builder.matrix.fields` first; what remains here is to
pick the values up and to look that every name is defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.version import Version

from builder.matrix.fields import MATRIX
from builder.matrix.model import DISTRIBUTION, RESERVED_CHANNELS, Base, Bootstrap, Channel, Extra, label_of
from builder.source import Node, Position, nearest, quote


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A text and where it stands."""

    text: str
    position: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameworkRule:
    """An entry of `frameworks`; `channels` maps a CUDA value to a channel's name.

    `facts` is the project of the fact tables that it is, and where that stands; None for its own name.
    """

    name: str
    image: str
    template: str
    constraints: str | None
    channels: Mapping[str, str]
    facts: Placed | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A combination of axis values and where each of them stands; not yet a valid cell.

    Attributes:
        framework: "<name>==<version>".
        cuda: "cpu" or a version.
        python: for example "3.11".
        base: a defined name.
        extras: defined names in the order of the file's `extras`.
        position: what declares the whole; see `Cell.position`.
        interpreter: where Python comes from, with its position; None for what `defaults` say.
    """

    framework: Placed
    cuda: Placed
    python: Placed
    base: Placed
    extras: tuple[str, ...]
    position: Position
    interpreter: Placed | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtrasItem:
    """One item of the axis `extras`."""

    names: tuple[str, ...]
    position: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisValues:
    """The lists of `axes`."""

    position: Position
    framework: tuple[Placed, ...]
    cuda: tuple[Placed, ...]
    python: tuple[Placed, ...]
    base: tuple[Placed, ...]
    extras: tuple[ExtrasItem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """An entry of `exclude`: a glob over ids, or (axis, glob) pairs that must all match."""

    glob: str | None
    axes: tuple[tuple[str, str], ...]
    reason: str
    position: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements:
    """An entry of `require`; None for what it does not say."""

    public: Placed | None = None
    verified: Placed | None = None
    max_age: Placed | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """An entry of `overrides`; `match` stands at its glob."""

    match: Placed
    base: Placed | None
    require: Requirements
    budget: Placed | None = None
    interpreter: Placed | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """An entry of `aliases`: a tag and the globs that each match one cell."""

    tag: Placed
    globs: tuple[Placed, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Declarations:
    """All of `matrix.yaml`, with every name known to be defined."""

    version: int
    repository: str
    axes: AxisValues
    bases: Mapping[str, Base]
    frameworks: Mapping[str, FrameworkRule]
    channels: Mapping[str, str]
    extras: Mapping[str, Extra]
    default_base: Placed
    default_require: Requirements
    include: tuple[Candidate, ...]
    exclude: tuple[Exclusion, ...]
    overrides: tuple[Override, ...]
    tags: tuple[Placed, ...]
    aliases: tuple[Alias, ...]
    default_budget: Placed | None = None
    default_interpreter: str = DISTRIBUTION


def declare(root: Node) -> Declarations:
    """What the file says.

    Raises:
        ConfigError: a value has the wrong form, or a name is not defined.
    """
    MATRIX.check(root)
    top = root.mapping()
    bases = {key.text: _base(key.text, value) for key, value in top["bases"].items()}
    channels = {key.text: value.string() for key, value in _items(top, "channels")}
    for key, _ in _items(top, "channels"):
        if key.text in RESERVED_CHANNELS:
            raise key.error(
                f"{quote(key.text)} is where a site says where Pythons come from, and no channel of wheels",
                hint="give the channel another name",
            )
    extras = {key.text: _extra(key.text, value) for key, value in _items(top, "extras")}
    frameworks = {key.text: _framework(key.text, value, channels) for key, value in top["frameworks"].items()}
    defaults = top["defaults"].mapping()
    default_base = _defined(defaults["base"], bases, "bases")
    _refuse_two_spellings(
        [*top["axes"].mapping()["framework"].sequence()]
        + [node.mapping()["framework"] for node in _list(top, "include")]
    )
    return Declarations(
        version=top["version"].integer(),
        repository=top["repository"].string(),
        axes=_axes(top["axes"], frameworks, bases, extras, default_base),
        bases=bases,
        frameworks=frameworks,
        channels=channels,
        extras=extras,
        default_base=default_base,
        default_require=_requirements(defaults),
        include=tuple(_candidate(node, frameworks, bases, extras, default_base) for node in _list(top, "include")),
        exclude=tuple(_exclusion(node) for node in _list(top, "exclude")),
        overrides=tuple(_override(node, bases) for node in _list(top, "overrides")),
        tags=tuple(_placed(node) for node in top["tags"].sequence()),
        aliases=tuple(_alias(key, value) for key, value in _items(top, "aliases")),
        default_budget=_placed_or_none(defaults, "budget"),
        default_interpreter=_text(defaults, "interpreter") or DISTRIBUTION,
    )


def _items(fields: Mapping[str, Node], name: str) -> tuple[tuple[Node, Node], ...]:
    return fields[name].items() if name in fields else ()


def _list(fields: Mapping[str, Node], name: str) -> tuple[Node, ...]:
    return fields[name].sequence() if name in fields else ()


def _text(fields: Mapping[str, Node], name: str) -> str | None:
    return fields[name].string() if name in fields else None


def _placed(node: Node) -> Placed:
    return Placed(text=node.string(), position=node.position)


def _placed_or_none(fields: Mapping[str, Node], name: str) -> Placed | None:
    return _placed(fields[name]) if name in fields else None


def _defined(node: Node, names: Mapping[str, object], section: str) -> Placed:
    name = node.string()
    if name not in names:
        raise node.error(
            f"{quote(name)} is not defined under `{section}`",
            hint=nearest(name, names) or f"define it under `{section}`",
        )
    return _placed(node)


def _requirement(node: Node, frameworks: Mapping[str, FrameworkRule]) -> Placed:
    name = node.string().partition("==")[0]
    if name not in frameworks:
        raise node.error(
            f"{quote(name)} is not defined under `frameworks`",
            hint=nearest(name, frameworks) or "define it under `frameworks`",
        )
    return _placed(node)


def _refuse_two_spellings(requirements: Iterable[Node]) -> None:
    """Refuses one release under two names, such as 2.13 and 2.13.0: they would be two images of the same."""
    spelled: dict[tuple[str, Version], Node] = {}
    for node in requirements:
        name, _, version = node.string().partition("==")
        first = spelled.setdefault((name, Version(version)), node)
        if first.text != node.text:
            raise node.error(
                f"{quote(node.text)} is the release that {first.position} calls {quote(first.text)}",
                hint="write it in one way, as its maker does",
            )


def _extras(node: Node, extras: Mapping[str, Extra]) -> tuple[str, ...]:
    chosen = {_defined(item, extras, "extras").text for item in node.sequence()}
    return tuple(name for name in extras if name in chosen)


def _base(name: str, node: Node) -> Base:
    fields = node.mapping()
    bootstrap = None
    if "bootstrap" in fields:
        inner = fields["bootstrap"].mapping()
        bootstrap = Bootstrap(
            distribution=inner["distribution"].string(),
            suite=inner["suite"].string(),
            include=tuple(item.string() for item in _list(inner, "include")),
        )
    return Base(
        name=name,
        image=fields["image"].string(),
        digest=_text(fields, "digest"),
        bootstrap=bootstrap,
        pythons=fields["python"].strings(),
    )


def _framework(name: str, node: Node, channels: Mapping[str, str]) -> FrameworkRule:
    fields = node.mapping()
    return FrameworkRule(
        name=name,
        image=fields["image"].string(),
        template=fields["template"].string(),
        constraints=_text(fields, "constraints"),
        channels={key.text: _channel(key, value, channels) for key, value in _items(fields, "channels")},
        facts=_placed(fields["facts"]) if "facts" in fields else None,
    )


def _channel(cuda: Node, node: Node, channels: Mapping[str, str]) -> str:
    name = _defined(node, channels, "channels").text
    label, wanted = Channel(name=name, url=channels[name]).label, label_of(cuda.text)
    if label not in (None, wanted):
        fitting = [each for each, url in channels.items() if Channel(name=each, url=url).label == wanted]
        raise node.error(
            f"{quote(name)} is PyTorch's index `{label}`, and {quote(cuda.text)} needs `{wanted}`",
            hint=f"did you mean {quote(fitting[0])}?" if fitting else "define a channel for it under `channels`",
        )
    return name


def _extra(name: str, node: Node) -> Extra:
    fields = node.mapping()
    packages = fields["packages"].strings()
    if "version" in fields and len(packages) > 1:
        raise fields["version"].error(
            f"`version` can only pin a single package, and {quote(name)} has {len(packages)}",
            hint="pin them in a constraints file, or define one extra for each",
        )
    return Extra(
        name=name,
        packages=packages,
        version=_text(fields, "version"),
        controller=_text(fields, "controller"),
        named=fields["named"].boolean() if "named" in fields else False,
    )


def _axes(
    node: Node,
    frameworks: Mapping[str, FrameworkRule],
    bases: Mapping[str, Base],
    extras: Mapping[str, Extra],
    default_base: Placed,
) -> AxisValues:
    fields = node.mapping()
    no_extras = ExtrasItem(names=(), position=node.position)
    return AxisValues(
        position=node.position,
        framework=tuple(_requirement(item, frameworks) for item in fields["framework"].sequence()),
        cuda=tuple(_placed(item) for item in fields["cuda"].sequence()),
        python=tuple(_placed(item) for item in fields["python"].sequence()),
        base=tuple(_defined(item, bases, "bases") for item in _list(fields, "base")) or (default_base,),
        extras=tuple(
            ExtrasItem(names=_extras(item, extras), position=item.position) for item in _list(fields, "extras")
        )
        or (no_extras,),
    )


def _candidate(
    node: Node,
    frameworks: Mapping[str, FrameworkRule],
    bases: Mapping[str, Base],
    extras: Mapping[str, Extra],
    default_base: Placed,
) -> Candidate:
    fields = node.mapping()
    return Candidate(
        framework=_requirement(fields["framework"], frameworks),
        cuda=_placed(fields["cuda"]),
        python=_placed(fields["python"]),
        base=_defined(fields["base"], bases, "bases") if "base" in fields else default_base,
        extras=_extras(fields["extras"], extras) if "extras" in fields else (),
        position=node.position,
        interpreter=_placed_or_none(fields, "interpreter"),
    )


def _exclusion(node: Node) -> Exclusion:
    fields = node.mapping()
    match = fields["match"]
    by_axis = match.kind == "mapping"
    return Exclusion(
        glob=None if by_axis else match.string(),
        axes=tuple((key.text, value.string()) for key, value in match.items()) if by_axis else (),
        reason=fields["reason"].string(),
        position=match.position,
    )


def _override(node: Node, bases: Mapping[str, Base]) -> Override:
    fields = node.mapping()
    change = fields["set"].mapping()
    return Override(
        match=_placed(fields["match"]),
        base=_defined(change["base"], bases, "bases") if "base" in change else None,
        require=_requirements(change),
        budget=_placed_or_none(change, "budget"),
        interpreter=_placed_or_none(change, "interpreter"),
    )


def _requirements(fields: Mapping[str, Node]) -> Requirements:
    if "require" not in fields:
        return Requirements()
    said = fields["require"].mapping()
    age = said.get("max-age")
    return Requirements(
        public=_placed(said["public"]) if "public" in said else None,
        verified=_placed(said["verified"]) if "verified" in said else None,
        max_age=Placed(text=str(age.integer()), position=age.position) if age is not None else None,
    )


def _alias(key: Node, value: Node) -> Alias:
    globs = value.sequence() if value.kind == "sequence" else (value,)
    return Alias(
        tag=Placed(text=key.text, position=key.position),
        globs=tuple(_placed(node) for node in globs),
    )
