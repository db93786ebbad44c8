"""Every refusal is checked with its exact position, and beside it stands what is accepted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builder.errors import ConfigError
from builder.source import (
    MAX_ALIASED_NODES,
    MAX_BYTES,
    MAX_DEPTH,
    Node,
    Position,
    load,
    nearest,
    parse,
    quote,
)


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "m.yaml")
    return caught.value


def field(text: str, name: str = "a") -> Node:
    return parse(text, "m.yaml").mapping()[name]


def calls_of_parse(text: str) -> int:
    """How many Python functions a parse enters: a measure of work that no slow machine changes."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        parse(text, "m.yaml")
    finally:
        sys.setprofile(None)
    return count


def test_positions_count_from_one() -> None:
    root = parse("a: 1\nb:\n  - x\n  - {c: y}\n", "dir/m.yaml")
    assert str(root.position) == "dir/m.yaml:1:1"
    items = root.mapping()["b"].sequence()
    assert items[0].position == Position(file="dir/m.yaml", line=3, column=5)
    assert str(items[1].mapping()["c"].position) == "dir/m.yaml:4:9"
    assert [str(key.position) for key, _ in root.items()] == ["dir/m.yaml:1:1", "dir/m.yaml:2:1"]


def test_readers_return_plain_values() -> None:
    root = parse('s: "3.10"\ni: -12\nt: true\nf: false\nl: [x, "on"]\n', "m.yaml")
    fields = root.mapping(allowed=("s", "i", "t", "f", "l"), required=("s",))
    assert fields["s"].string() == "3.10"
    assert fields["i"].integer() == -12
    assert fields["t"].boolean() is True
    assert fields["f"].boolean() is False
    assert fields["l"].strings() == ("x", "on")
    assert fields["l"].sequence()[0].choice(("x", "y")) == "x"


@pytest.mark.parametrize(
    ("value", "reads_as"),
    [
        ("3.10", "a number"),
        ("1e3", "the string"),
        ("24", "a whole number"),
        ("12:30", "a whole number"),
        ("010", "a whole number"),
        ("on", "true or false"),
        ("No", "true or false"),
        ("2026-01-01", "a date"),
        ("~", "nothing"),
    ],
)
def test_text_that_yaml_reads_as_something_else(value: str, reads_as: str) -> None:
    if reads_as == "the string":
        # YAML 1.1 wants a dot in floats: this one is text already.
        assert field(f"a: {value}").string() == value
    else:
        with pytest.raises(ConfigError) as caught:
            field(f"a: {value}").string()
        assert caught.value.where == "m.yaml:1:4"
        assert reads_as in caught.value.message
        assert caught.value.hint == f'quote it: "{value}"'
    assert field(f'a: "{value}"').string() == value


@pytest.mark.parametrize(
    ("text", "reader", "message", "hint"),
    [
        ("a: [1]", "string", "`a` must be a string, found a list", ""),
        ("a: {b: 1}", "string", "`a` must be a string, found a mapping", ""),
        ("a:", "string", "`a` must be a string, found nothing", ""),
        ("a: ''", "string", "`a` is an empty string", "give it a value, or remove it"),
        ("a: ' '", "string", "`a` is an empty string", "give it a value, or remove it"),
        ("a: '12'", "integer", "`a` must be a whole number, found the string `12`", "write it without quotes"),
        ("a: x", "integer", "`a` must be a whole number, found the string `x`", ""),
        ("a: 1.5", "integer", "`a` must be a whole number, found `1.5`, which YAML reads as a number", ""),
        (
            "a: 010",
            "integer",
            "`a` is not a plain decimal number: `010`",
            "write it in decimal digits, without leading zeros, colons or underscores",
        ),
        (
            "a: " + "9" * 5000,
            "integer",
            "`a` is not a plain decimal number: `" + "9" * 60 + "…`",
            "write it in decimal digits, without leading zeros, colons or underscores",
        ),
        ("a: yes", "boolean", "`a` must be `true` or `false`, found `yes`", "write `true`"),
        ("a: Off", "boolean", "`a` must be `true` or `false`, found `Off`", "write `false`"),
        ("a: 'true'", "boolean", "`a` must be true or false, found the string `true`", "write it without quotes"),
        ("a: x", "sequence", "`a` must be a list, found the string `x`", "write it as a list: [x]"),
        ("a: {}", "sequence", "`a` must be a list, found a mapping", ""),
        ("a: [x]", "mapping", "`a` must be a mapping, found a list", ""),
        ("a: x", "items", "`a` must be a mapping, found the string `x`", ""),
        (
            "a: 1",
            "strings",
            "`a` must be a list, found `1`, which YAML reads as a whole number",
            "write it as a list: [1]",
        ),
    ],
)
def test_wrong_types_say_what_was_found(text: str, reader: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(field(text), reader)()
    assert caught.value.message == message
    assert caught.value.hint == hint
    expected = "m.yaml:1:3" if text == "a:" else "m.yaml:1:4"
    assert caught.value.where == expected


def test_an_item_of_the_wrong_type_is_named_with_its_number() -> None:
    with pytest.raises(ConfigError) as caught:
        field("a: [x, 3.10]").strings()
    assert str(caught.value) == (
        'm.yaml:1:8: item 2 of `a` must be a string, found `3.10`, which YAML reads as a number\n  quote it: "3.10"'
    )


def test_unknown_and_missing_keys() -> None:
    root = parse("name: x\nsizes: y\n", "m.yaml")
    with pytest.raises(ConfigError) as unknown:
        root.mapping(allowed=("name", "size"))
    assert str(unknown.value) == "m.yaml:2:1: unknown key `sizes` in the file\n  did you mean `size`?"
    with pytest.raises(ConfigError) as missing:
        root.mapping(required=("name", "other"))
    assert str(missing.value) == "m.yaml:1:1: the file lacks the required key `other`\n  add `other: …` to it"
    assert set(root.mapping(allowed=("name", "sizes"), required=("name",))) == {"name", "sizes"}


def test_choice_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        field("a: gloo2").choice(("gloo", "mpi"))
    assert str(caught.value) == "m.yaml:1:4: `a` cannot be `gloo2`\n  did you mean `gloo`?"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: [x", "m.yaml:1:6", "this is not valid YAML"),
        ("a:\n\t- b", "m.yaml:2:1", "this is not valid YAML"),
        ("a: b: c", "m.yaml:1:5", "this is not valid YAML"),
        ("a: 1\nb: 2\na: 3", "m.yaml:3:1", "the key `a` occurs twice"),
        ("a: {b: 1, b: 1}", "m.yaml:1:11", "the key `b` occurs twice"),
        ("'a': 1\na: 3", "m.yaml:2:1", "the key `a` occurs twice"),
        ("3.10: x", "m.yaml:1:1", "a key of the file must be a string"),
        ("on: x", "m.yaml:1:1", "a key of the file must be a string"),
        ("? [a]\n: b", "m.yaml:1:3", "a key of the file must be a string, found a list"),
        ("?\n: b", "m.yaml:1:2", "a key of the file is empty"),
        ("a: !!python/object:os.system x", "m.yaml:1:4", "tags such as"),
        ("a: !x [b]", "m.yaml:1:4", "tags such as `!x` are not supported"),
        ("b: &b {c: 1}\na:\n  <<: *b", "m.yaml:3:3", "merge keys"),
        ("--- a\n--- b", "m.yaml:2:1", "a second document begins here"),
        ("a: *b", "m.yaml:1:4", "the alias `*b` has no finished anchor before it"),
        ("a: &a [*a]", "m.yaml:1:8", "the alias `*a` has no finished anchor before it"),
        ("a: *-cuda*", "m.yaml:1:10", "this is not valid YAML"),
        ('a: "x\\ny"', "m.yaml:1:4", "`a` contains the control character U+000A"),
        ('a: "x\\ry"', "m.yaml:1:4", "`a` contains the control character U+000D"),
        ("a: |\n  x\n  y", "m.yaml:1:4", "`a` contains the control character U+000A"),
        ('b: 1\na: ["x\\0"]', "m.yaml:2:5", "item 1 of `a` contains the control character U+0000"),
        ('a: "\\e[31m"', "m.yaml:1:4", "`a` contains the control character U+001B"),
        ('a: "\\u2028"', "m.yaml:1:4", "`a` contains the control character U+2028"),
        ("a: x\u202ey", "m.yaml:1:4", "`a` contains the control character U+202E"),
        ('"k\\nl": x', "m.yaml:1:1", "a key of the file contains the control character U+000A"),
        ('a: "\\U00110000"', "m.yaml", "this is not valid YAML: the number of a character"),
        ('a: "\\UFFFFFFFF"', "m.yaml", "this is not valid YAML: the number of a character"),
        ("b: 1\na: \x07", "m.yaml:2:4", "the character U+0007 is not allowed in YAML"),
    ],
)
def test_refused_texts(text: str, where: str, message: str) -> None:
    error = refused(text)
    assert error.where == where
    assert error.message.startswith(message)
    assert error.exit_code == 5


def test_a_star_without_quotes_is_explained() -> None:
    assert refused("a: *").hint == "quote a value that begins with `*`"
    assert refused("a: *-cuda*").hint == "quote a value that begins with `*`"
    assert field('a: "*-cuda*"').string() == "*-cuda*"


def test_a_duplicate_key_names_the_first_one() -> None:
    assert refused("a: 1\na: 2").hint == "it stands at m.yaml:1:1 already; remove one of them"


def test_folded_text_is_one_line() -> None:
    assert field("a: >-\n  one\n  two\n").string() == "one two"
    assert refused("a: |\n  one\n").hint == "write the value on one line, or fold a long one with `>-`"


def test_aliases_work_within_their_budget() -> None:
    root = parse("a: &x [1, 2]\nb: *x\n", "m.yaml")
    assert root.mapping()["b"] is root.mapping()["a"]


def test_a_yaml_bomb_is_refused_where_it_passes_the_budget() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 12):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    error = refused("\n".join(lines))
    assert error.message == f"aliases expand to more than {MAX_ALIASED_NODES} values"
    assert error.where == "m.yaml:4:45"
    # Three levels hold 1,110 values or so, and are a legitimate file.
    assert parse("\n".join(lines[:3]), "m.yaml").size < MAX_ALIASED_NODES


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_nesting_has_a_limit(opening: str, closing: str) -> None:
    deepest = opening * (MAX_DEPTH - 1) + "x" + closing * (MAX_DEPTH - 1)
    assert parse(deepest, "m.yaml").size >= MAX_DEPTH
    for depth in (MAX_DEPTH, 10_000):
        error = refused(opening * depth + "x" + closing * depth)
        assert error.message == f"values are nested more than {MAX_DEPTH} deep"
        assert error.where.startswith("m.yaml:1:")


def test_the_depth_error_stands_where_the_limit_is_passed() -> None:
    assert refused("[" * 60).where == f"m.yaml:1:{MAX_DEPTH + 1}"


def test_parsing_is_linear() -> None:
    counts = [calls_of_parse("a:\n" + "- {b: [x, y], c: z}\n" * n) for n in (200, 400, 800)]
    assert counts[2] - counts[1] == pytest.approx(2 * (counts[1] - counts[0]), rel=0.02)


def test_a_large_file_is_refused_without_being_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)

    def fail(text: str, name: str) -> Node:
        raise AssertionError("a refused file must not be parsed")

    monkeypatch.setattr("builder.source.parse", fail)
    with pytest.raises(ConfigError, match="larger than 1,000,000 bytes") as caught:
        load(path)
    assert caught.value.where == str(path)


def test_the_size_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    text = "a: b\n"
    path.write_text(text + "#" * (MAX_BYTES - len(text)))
    assert load(path).mapping()["a"].string() == "b"
    path.write_text(text + "#" * (MAX_BYTES - len(text) + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(path)
    with pytest.raises(ConfigError, match="larger than"):
        parse("#" * (MAX_BYTES + 1), "m.yaml")


def test_load_names_the_file_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_bytes(b"\xef\xbb\xbfa: 3.10\n")
    with pytest.raises(ConfigError) as caught:
        load(Path("m.yaml")).mapping()["a"].string()
    assert caught.value.where == "m.yaml:1:4"


@pytest.mark.parametrize("make", ["missing", "directory"])
def test_unreadable_files(tmp_path: Path, make: str) -> None:
    path = tmp_path / "m.yaml"
    if make == "directory":
        path.mkdir()
    with pytest.raises(ConfigError, match="the file cannot be read") as caught:
        load(path)
    assert caught.value.where == str(path)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes("a: 1\nb: ä".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        load(path)
    assert caught.value.where == f"{path}:2:4"
    path.write_bytes("a: 1\nb: ä".encode())
    assert load(path).mapping()["b"].string() == "ä"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_nothing(text: str) -> None:
    root = parse(text, "m.yaml")
    assert root.kind == "null"
    with pytest.raises(ConfigError, match="the file must be a mapping, found nothing"):
        root.mapping()


def test_nearest() -> None:
    assert nearest("troch", ["torch", "tensorflow"]) == "did you mean `torch`?"
    assert nearest("TORCH", ["torch", "tensorflow"]) == "did you mean `torch`?"
    assert nearest("zzz", ["torch", "jax"]) == "known: jax, torch"
    assert nearest("zzz", [f"name{n}" for n in range(13)]) == ""
    assert nearest("zzz", []) == ""
    assert nearest("x" * 1_000_000, ["torch"]) == "known: torch"


def test_quote_keeps_terminals_safe() -> None:
    assert quote("plain") == "`plain`"
    assert quote("a\x1b[31m\n") == "`a\\u001b[31m\\u000a`"
    assert quote("x" * 61) == "`" + "x" * 60 + "…`"
