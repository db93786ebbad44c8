"""JUnit XML: what each reader looks at, the elements that Jenkins accepts, and texts of every kind."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from some_runs import CHECKS, IMAGE, a_run, check_run, failed, outcome

from builder.check import Status, VerdictStatus
from builder.runs import junit
from builder.runs.junit import clean

# What junit-10.xsd of Jenkins' xUnit plugin allows, as far as it is written here: attributes, and children.
ALLOWED = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname"}, {"skipped", "failure", "system-out"}),
    "failure": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def check_structure(root: ET.Element) -> None:
    """Fails on an element or attribute that a strict reader refuses, and on counts that are not those of the tests."""
    for element in root.iter():
        attributes, children = ALLOWED[element.tag]
        assert set(element.attrib) <= attributes, element.tag
        assert {child.tag for child in element} <= children, element.tag
    for suite in root.iter("testsuite"):
        tests = suite.findall("testcase")
        assert suite.get("tests") == str(len(tests))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
        names = [(test.get("classname"), test.get("name")) for test in tests]
        assert len(set(names)) == len(names)
    for count in ("tests", "failures", "errors"):
        assert root.get(count) == str(sum(int(suite.get(count, "")) for suite in root.iter("testsuite")))


def by_name(data: bytes) -> dict[str, ET.Element]:
    root = ET.fromstring(data)
    check_structure(root)
    return {test.get("name", ""): test for test in root.iter("testcase")}


def test_each_check_is_a_test_of_its_cell() -> None:
    data = junit([a_run()])
    tests = by_name(data)
    assert list(tests) == [*(check.name for check in CHECKS), "verdict"]
    assert {test.get("classname") for test in tests.values()} == {"torch-2.13.0-cu126-py3.11"}
    assert tests["torch.train.amp"].get("time") == "1.500"
    assert tests["torch.train.amp"].findtext("system-out") == '{"dtype": "bfloat16"}'
    skipped = tests["torch.gpu.train.amp"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no GPU at hand"
    assert tests["verdict"].find("failure") is None
    assert data.startswith(b"<?xml version='1.0' encoding='utf-8'?>")


def test_what_failed_has_its_message_where_readers_look() -> None:
    check = outcome("torch.train.amp", Status.FAILED, "loss is nan")
    tests = by_name(junit([a_run(failed(check))]))
    failure = tests["torch.train.amp"].find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("loss is nan", "loss is nan")
    verdict = tests["verdict"].find("failure")
    assert verdict is not None
    assert verdict.get("message") == "failed: torch.train.amp: loss is nan"


def test_a_required_check_that_did_not_run_is_not_green() -> None:
    reasons = ("torch.gpu.train.amp: did not run: no GPU at hand",)
    incomplete = check_run(status=VerdictStatus.INCOMPLETE, reasons=reasons)
    tests = by_name(junit([a_run(incomplete)]))
    assert [name for name, test in tests.items() if test.find("failure") is not None] == ["verdict"]
    passed = by_name(junit([a_run()]))
    assert [name for name, test in passed.items() if test.find("failure") is not None] == []


def test_a_run_without_a_result_fails() -> None:
    gone = check_run((), status=VerdictStatus.FAILED, reasons=("it hung", "more"), reached=None, readable=False)
    tests = by_name(junit([a_run(gone)]))
    assert list(tests) == ["verdict"]
    assert tests["verdict"].findtext("failure") == "it hung\nmore"


def test_properties_say_what_was_checked_and_where() -> None:
    root = ET.fromstring(junit([a_run(digest="sha256:" + "d" * 64)]))
    properties = {item.get("name"): item.get("value") for item in root.iter("property")}
    assert properties["image.id"] == IMAGE
    assert properties["image.content"] == "c" * 64
    assert properties["image.digest"] == "sha256:" + "d" * 64
    assert properties["suite"] == "5" * 64
    assert properties["level.reached"] == "cpu"
    assert properties["level.verified"] == "gpu"
    assert properties["environment.engine"] == "20.10.24"
    assert properties["environment.cpu"] == "some processor"
    unknown = ET.fromstring(junit([a_run(failed())]))
    assert {item.get("name"): item.get("value") for item in unknown.iter("property")}["level.reached"] == "none"


def test_several_runs_are_suites_of_one_document() -> None:
    root = ET.fromstring(junit([a_run(), a_run(failed(), name="other")]))
    check_structure(root)
    assert [suite.get("name") for suite in root] == ["torch-2.13.0-cu126-py3.11 cpu", "other cpu"]
    assert root.get("failures") == "1"


def test_a_suite_says_when_and_how_long() -> None:
    suite = ET.fromstring(junit([a_run()])).find("testsuite")
    assert suite is not None
    assert (suite.get("timestamp"), suite.get("time")) == ("2026-11-23T12:00:00", "4.500")


@pytest.mark.parametrize(
    "text",
    [
        "\x00\x01\x08\x0b\x1f",
        "\x1b[31mred",
        "\ud800 half a pair",
        "\ufffe \uffff",
        "<failure>&]]>\"'",
        "é 漢 😀",
        "a\r\nb",
    ],
)
def test_any_text_makes_a_document_that_can_be_read(text: str) -> None:
    check = outcome("torch.train.amp", Status.FAILED, text, measured={text: text})
    run = a_run(failed(check, reasons=(text,)), name=text, environment={text: text})
    tests = by_name(junit([run]))
    failure = tests["torch.train.amp"].find("failure")
    assert failure is not None
    # An XML reader turns line ends within a text into one kind.
    assert failure.text == clean(text).replace("\r\n", "\n") or failure.text == clean(text)


def test_clean_replaces_what_xml_cannot_hold_and_nothing_else() -> None:
    assert clean("a\x00b\ud800c\ufffed") == "a\ufffdb\ufffdc\ufffdd"
    kept = "tab\t line\n é \U0001f600 \x7f \x85"
    assert clean(kept) == kept
