"""JUnit XML, as GitHub's actions, GitLab and Jenkins read it.

There is no standard. What is written here keeps to the elements and attributes that Jenkins' xUnit plugin accepts
(its `junit-10.xsd`). GitLab shows `classname` as the suite, the text of `failure`, and drops the second of two tests
with the same `classname` and `name`; so the class is the cell, which every file names differently.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from builder.check import CheckOutcome, Status, VerdictStatus
from builder.runs.model import Run

VERDICT = "verdict"
"""A test in every suite, which passes if and only if the image did: a check that did not run is no failure in JUnit,
and what misses a required one must not look green. No check has this name, since theirs have a dot."""

# What XML 1.0 can hold, section 2.2; not even a reference can name anything else.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(runs: Sequence[Run]) -> bytes:
    """A document with one suite for each run, named `CELL LEVEL`, and one test for each check."""
    suites = [_suite(run) for run in runs]
    root = ET.Element("testsuites", name="imgbuild check", time=_seconds(sum(run.seconds for run in runs)))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.extend(suites)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(run: Run) -> ET.Element:
    failed = len(run.with_status(Status.FAILED)) + (run.status is not VerdictStatus.PASSED)
    suite = ET.Element(
        "testsuite",
        {
            "name": clean(f"{run.name} {run.level.value}"),
            "tests": str(len(run.checks) + 1),
            "failures": str(failed),
            "errors": "0",
            "skipped": str(len(run.with_status(Status.NOT_RUN))),
            "time": _seconds(run.seconds),
            "timestamp": run.started.strftime("%Y-%m-%dT%H:%M:%S"),
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(run):
        ET.SubElement(properties, "property", name=clean(name), value=clean(value))
    for check in run.checks:
        _test(suite, run, check)
    _verdict(suite, run)
    return suite


def _properties(run: Run) -> list[tuple[str, str]]:
    properties = [
        ("image.id", run.image_id),
        ("image.content", run.content_id),
        ("image.digest", run.digest),
        ("suite", run.suite),
        ("level", run.level.value),
        ("level.reached", run.reached.value if run.reached else "none"),
        ("level.public", run.policy.public.value if run.policy else ""),
        ("level.verified", run.policy.verified.value if run.policy else ""),
        ("verdict", run.status.value),
    ]
    properties += [(f"environment.{name}", value) for name, value in run.environment.items()]
    return [(name, value) for name, value in properties if value]


def _test(suite: ET.Element, run: Run, check: CheckOutcome) -> None:
    test = ET.SubElement(
        suite, "testcase", classname=clean(run.name), name=clean(check.name), time=_seconds(check.seconds)
    )
    if check.status is Status.FAILED:
        _failure(test, check.reason, check.reason)
    elif check.status is Status.NOT_RUN:
        ET.SubElement(test, "skipped", message=clean(check.reason))
    if check.measured:
        ET.SubElement(test, "system-out").text = clean(json.dumps(dict(check.measured), ensure_ascii=False))


def _verdict(suite: ET.Element, run: Run) -> None:
    test = ET.SubElement(suite, "testcase", classname=clean(run.name), name=VERDICT, time="0.000")
    if run.status is not VerdictStatus.PASSED:
        first = run.reasons[0] if run.reasons else run.status.value
        _failure(test, f"{run.status.value}: {first}", "\n".join(run.reasons) or run.status.value)


def _failure(test: ET.Element, message: str, text: str) -> None:
    """A failure in both places that readers look at: GitLab shows the text, others the message."""
    ET.SubElement(test, "failure", type="check", message=clean(message)).text = clean(text)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def clean(text: str) -> str:
    """Text as XML can hold it; each character that it cannot becomes U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)
