"""What differs between two images, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from builder.attest.reading import rfc3339
from builder.engine.urls import redact_urls
from builder.matrix import Level
from builder.release.diff import CheckChange, Difference, Kind, PackageChange, SettingChange
from builder.release.parts import Contents, Layer, Outcome, Standing, State

SCHEMA = "imgbuild.diff/1"

_MARKS = {Kind.ADDED: "+", Kind.REMOVED: "-", Kind.CHANGED: "~"}
_WORDS = {State.NOT_RUN: "not run"}
_VALUE = 60
"""Characters of the longest value of a setting that is shown whole."""
_INSTRUCTION = 72
_REASON = 200


def to_document(found: Difference) -> Mapping[str, object]:
    """What `imgbuild diff --format json` prints. `null` is what is not known of both images."""
    layers = found.layers
    level = _levels(found)
    return {
        "schema": SCHEMA,
        "differs": found.differs,
        "a": _image(found.before),
        "b": _image(found.after),
        "packages": {
            "python": None if found.python is None else [_package(item) for item in found.python],
            "debian": None if found.debian is None else [_package(item) for item in found.debian],
        },
        "layers": {
            "shared": [_layer(item) for item in layers.shared],
            "only_a": [_layer(item) for item in layers.only_before],
            "only_b": [_layer(item) for item in layers.only_after],
            "sizes_comparable": layers.comparable,
            "size_difference": found.growth,
        },
        "level": None if level is None else {"before": _level(level[0]), "after": _level(level[1])},
        "checks": None if found.checks is None else [_check(item) for item in found.checks],
        "suites_differ": found.suites,
        "configuration": [
            {
                "setting": item.name,
                "change": item.kind.value,
                "before": None if item.before is None else redact_urls(item.before),
                "after": None if item.after is None else redact_urls(item.after),
            }
            for item in found.settings
        ],
        "unknown": list(found.unknown),
    }


def to_lines(found: Difference) -> Iterator[str]:
    """What `imgbuild diff` prints: the images, what differs, what is not known, and a summary as the last line."""
    yield _heading("A", found.before)
    yield _heading("B", found.after)
    yield from _section("Python packages", map(_package_line, found.python or ()))
    yield from _section("Debian packages", map(_package_line, found.debian or ()))
    yield from _layer_lines(found)
    if found.level is not None:
        yield from ("", f"Level: {_level_word(found.level.before)} → {_level_word(found.level.after)}")
    yield from _section(
        "Checks (the suites differ, too)" if found.suites else "Checks", map(_check_line, found.checks or ())
    )
    yield from _section("Configuration", map(_setting_line, found.settings))
    yield from _section("Not known", (f"  {clean(item, 500)}" for item in found.unknown))
    yield from ("", summary(found))


def summary(found: Difference) -> str:
    """One line that says it all."""
    missing = sorted({item.partition(" ")[0] for item in found.unknown}, reverse=True)
    unknown = f"; not known: {' and '.join(missing)}" if missing else ""
    if not found.differs:
        return f"nothing {'that is known ' if missing else ''}differs{unknown}"
    parts = [
        _counted("Python package", found.python or ()),
        _counted("Debian package", found.debian or ()),
        _layer_summary(found),
    ]
    if found.level is not None:
        parts.append(f"level {_level_word(found.level.before)} → {_level_word(found.level.after)}")
    parts += [_counted("check", found.checks or ()), _counted("setting", found.settings)]
    return f"differs: {'; '.join(part for part in parts if part)}{unknown}"


def clean(text: str, width: int) -> str:
    """A text of an image on one line: nothing that a terminal would obey, credentials hidden, its middle cut out
    where it is too long. What an instruction does is mostly at its end."""
    line = "".join(character if character.isprintable() else " " for character in redact_urls(text))
    if len(line) <= width:
        return line
    head = width // 3
    return f"{line[:head]}…{line[len(line) - (width - head - 1) :]}"


def size(count: int) -> str:
    """Bytes for people, in decimal units as docker's."""
    number = abs(count)
    sign = "-" if count < 0 else ""
    if number < 1000:
        return f"{sign}{number} B"
    # Rounding must not make 1000.0 of a unit.
    for unit, bytes_ in (("kB", 1e3), ("MB", 1e6)):
        if number / bytes_ < 999.95:
            return f"{sign}{number / bytes_:.1f} {unit}"
    return f"{sign}{number / 1e9:.2f} GB"


def _heading(letter: str, image: Contents) -> str:
    standing = image.standing
    level = f", level {_level_word(standing.reached)}" if isinstance(standing, Standing) else ""
    where = f"{size(image.size)} {image.place.sizes} in {_count('layer', len(image.layers))}"
    # A digest that was asked for is said once.
    name = image.reference.partition("@")[0]
    names = f"{image.digest[:19]}…" if name == image.digest else f"{name}  {image.digest[:19]}…"
    return f"{letter}  {names}, {where}{level}"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield from ("", title, *found)


def _package_line(item: PackageChange) -> str:
    versions = " → ".join(", ".join(side) for side in (item.before, item.after) if side)
    return clean(f"  {_MARKS[item.kind]} {item.name} {versions}", _REASON)


def _layer_lines(found: Difference) -> Iterator[str]:
    layers = found.layers
    if found.before.diff_ids == found.after.diff_ids:
        return
    counts = [
        f"{len(layers.shared)} shared{_total(layers.shared) if layers.comparable else ''}",
        f"{len(layers.only_before)} only in A{_total(layers.only_before)}",
        f"{len(layers.only_after)} only in B{_total(layers.only_after)}",
    ]
    yield from ("", f"Layers: {', '.join(counts)}")
    if not layers.only_before and not layers.only_after:
        yield "  in another order"
    for mark, own in (("-", layers.only_before), ("+", layers.only_after)):
        for layer in own:
            amount = "?" if layer.size is None else size(layer.size)
            yield f"  {mark} {amount:>8}  {clean(layer.made_by, _INSTRUCTION) or layer.diff_id[:19] + '…'}"
    if not layers.comparable:
        yield f"  sizes are not compared: A's are {found.before.place.sizes}, B's {found.after.place.sizes}"


def _layer_summary(found: Difference) -> str:
    layers = found.layers
    if found.before.diff_ids == found.after.diff_ids:
        return ""
    counts = f"{len(layers.only_before)} of A's layers and {len(layers.only_after)} of B's are not shared"
    growth = found.growth
    return counts if growth is None else f"{counts}, {'+' if growth >= 0 else ''}{size(growth)}"


def _check_line(item: CheckChange) -> str:
    last = item.after or item.before
    reason = f": {last.reason}" if last is not None and last.reason and item.after is not None else ""
    states = " → ".join(_state_word(side.state) for side in (item.before, item.after) if side is not None)
    return clean(f"  {_MARKS[item.kind]} {item.name} {states}{reason}", _REASON)


def _setting_line(item: SettingChange) -> str:
    values = " → ".join(clean(side, _VALUE) or '""' for side in (item.before, item.after) if side is not None)
    return f"  {_MARKS[item.kind]} {clean(item.name, _VALUE)}: {values}"


def _counted(what: str, items: Iterable[PackageChange | CheckChange | SettingChange]) -> str:
    kinds = Counter(item.kind for item in items)
    total = sum(kinds.values())
    if not total:
        return ""
    if len(kinds) == 1:
        return f"{_count(what, total)} {next(iter(kinds)).value}"
    return f"{_count(what, total)}: {', '.join(f'{kinds[kind]} {kind.value}' for kind in Kind if kinds[kind])}"


def _count(what: str, number: int) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _total(layers: tuple[Layer, ...]) -> str:
    sizes = [layer.size for layer in layers if layer.size is not None]
    return f" ({size(sum(sizes))})" if sizes and len(sizes) == len(layers) else ""


def _level_word(level: Level | None) -> str:
    return level.value if level else "none"


def _state_word(state: State) -> str:
    return _WORDS.get(state, state.value)


def _levels(found: Difference) -> tuple[Level | None, Level | None] | None:
    before, after = found.before.standing, found.after.standing
    if isinstance(before, Standing) and isinstance(after, Standing):
        return before.reached, after.reached
    return None


def _level(level: Level | None) -> str | None:
    return level.value if level else None


def _image(image: Contents) -> Mapping[str, object]:
    standing = image.standing if isinstance(image.standing, Standing) else None
    return {
        "image": image.reference,
        "digest": image.digest,
        "place": image.place.value,
        "sizes": image.place.sizes,
        "size": image.size,
        "checked": None
        if standing is None
        else {"reached": _level(standing.reached), "finished": rfc3339(standing.finished), "suite": standing.suite},
    }


def _package(item: PackageChange) -> Mapping[str, object]:
    return {"name": item.name, "change": item.kind.value, "before": list(item.before), "after": list(item.after)}


def _layer(layer: Layer) -> Mapping[str, object]:
    return {"diff_id": layer.diff_id, "size": layer.size, "instruction": redact_urls(layer.made_by) or None}


def _check(item: CheckChange) -> Mapping[str, object]:
    return {
        "name": item.name,
        "change": item.kind.value,
        "before": _outcome(item.before),
        "after": _outcome(item.after),
    }


def _outcome(found: Outcome | None) -> Mapping[str, object] | None:
    return None if found is None else {"state": found.state.value, "reason": found.reason or None}
