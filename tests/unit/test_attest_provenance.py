"""The provenance of a build: SLSA's shape, and nothing of the site."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from attesting import DIGEST, NOW
from jsonschema import Draft202012Validator

from builder.attest import Resource, Subject
from builder.attest.provenance import BUILD_TYPE, LOCAL_BUILDER, Built, provenance
from builder.matrix import Axes

# https://slsa.dev/provenance/v1 and in-toto's resource descriptor, as far as the specifications require something.
URI = {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*:\S+$"}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
DESCRIPTOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "uri": URI,
        "digest": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]+$"}},
        "annotations": {"type": "object"},
    },
    "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}, {"required": ["content"]}],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "additionalProperties": False,
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "minItems": 1, "items": DESCRIPTOR | {"required": ["digest"]}},
        "predicateType": {"const": "https://slsa.dev/provenance/v1"},
        "predicate": {
            "type": "object",
            "required": ["buildDefinition", "runDetails"],
            "additionalProperties": False,
            "properties": {
                "buildDefinition": {
                    "type": "object",
                    "required": ["buildType", "externalParameters"],
                    "additionalProperties": False,
                    "properties": {
                        "buildType": URI,
                        "externalParameters": {"type": "object", "minProperties": 1},
                        "internalParameters": {"type": "object"},
                        "resolvedDependencies": {"type": "array", "items": DESCRIPTOR},
                    },
                },
                "runDetails": {
                    "type": "object",
                    "required": ["builder"],
                    "additionalProperties": False,
                    "properties": {
                        "builder": {
                            "type": "object",
                            "required": ["id"],
                            "additionalProperties": False,
                            "properties": {"id": URI, "version": {"type": "object"}},
                        },
                        "metadata": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "invocationId": {"type": "string"},
                                "startedOn": TIME,
                                "finishedOn": TIME,
                            },
                        },
                    },
                },
            },
        },
    },
}


def built(**changes: Any) -> Built:
    values: dict[str, Any] = {
        "subjects": (Subject(name="registry.example/imgbuild/pytorch", sha256=DIGEST),),
        "cell": "torch-2.13.0-cpu-py3.11-bookworm",
        "axes": Axes(framework="torch==2.13.0", cuda="cpu", python="3.11", base="bookworm", extras=("horovod",)),
        "interpreter": "uv",
        "repository": "registry.example/imgbuild/pytorch",
        "key": "1" * 64,
        "dockerfile": "2" * 64,
        "base": "registry:sha256:" + "3" * 64,
        "base_name": "debian:bookworm-slim",
        "files": (Resource(name="matrix.yaml", sha256="4" * 64), Resource(name="dockerfiles/locks/a", sha256="5" * 64)),
        "source": "https://git.example/team/images.git",
        "commit": "6" * 40,
        "version": "0.4.0",
        "engine": "20.10.24",
        "invocation": "https://ci.example/job/7",
        "started": NOW,
        "finished": NOW,
    }
    return Built(**{**values, **changes})


def decoded(value: Built) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(provenance(value))
    Draft202012Validator(SCHEMA).validate(found)
    return found


def test_the_shape_and_the_content() -> None:
    document = decoded(built())
    definition = document["predicate"]["buildDefinition"]
    assert definition["buildType"] == BUILD_TYPE
    assert definition["externalParameters"]["cell"] == "torch-2.13.0-cpu-py3.11-bookworm"
    assert definition["externalParameters"]["axes"]["extras"] == ["horovod"]
    assert definition["externalParameters"]["interpreter"] == "uv"
    assert definition["resolvedDependencies"] == [
        {"name": "base", "uri": "docker-image://debian:bookworm-slim", "digest": {"sha256": "3" * 64}},
        {
            "name": "source",
            "uri": f"git+https://git.example/team/images.git@{'6' * 40}",
            "digest": {"gitCommit": "6" * 40},
        },
        {"name": "matrix.yaml", "digest": {"sha256": "4" * 64}},
        {"name": "dockerfiles/locks/a", "digest": {"sha256": "5" * 64}},
    ]
    assert document["predicate"]["runDetails"] == {
        "builder": {"id": LOCAL_BUILDER, "version": {"imgbuild": "0.4.0"}},
        "metadata": {
            "invocationId": "https://ci.example/job/7",
            "startedOn": "2026-03-01T12:00:00Z",
            "finishedOn": "2026-03-01T12:00:00Z",
        },
    }
    assert provenance(built()) == provenance(built())


def test_a_base_that_was_made_here() -> None:
    base = decoded(built(base=f"bootstrap:{'7' * 64}:{'8' * 64}"))["predicate"]["buildDefinition"][
        "resolvedDependencies"
    ][0]
    assert base["digest"] == {"sha256": "8" * 64}
    assert base["annotations"] == {"recipe": "7" * 64}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"commit": ""}, None),
        ({"source": ""}, {"name": "source", "digest": {"gitCommit": "6" * 40}}),
        ({"dirty": True}, {"name": "source", "uri": f"git+https://git.example/team/images.git@{'6' * 40}"}),
        ({"dirty": True, "source": ""}, None),
    ],
    ids=["no commit", "no address", "changed since", "changed since, no address"],
)
def test_the_commit_says_no_more_than_is_known(changes: dict[str, Any], expected: dict[str, Any] | None) -> None:
    dependencies = decoded(built(**changes))["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [item for item in dependencies if item["name"] == "source"] == ([expected] if expected else [])


def test_what_is_not_known_is_left_out() -> None:
    assert decoded(built(invocation="", started=None, finished=None))["predicate"]["runDetails"]["metadata"] == {}


def test_no_credential_gets_in() -> None:
    canary = "canary-pa55word"
    text = provenance(
        built(
            source=f"https://user:{canary}@git.example/team/images.git",
            invocation=f"https://ci.example/job/7?token={canary}",
            builder=f"https://{canary}@ci.example/runner",
            base_name=f"https://user:{canary}@registry.example/debian",
            repository=f"https://user:{canary}@registry.example/imgbuild",
        )
    ).decode()
    assert canary not in text
    assert "git.example/team/images.git" in text
    assert len(re.findall(r"\*\*\*", text)) == 5


def test_defects_of_a_caller_are_not_signed() -> None:
    with pytest.raises(ValueError, match="at least one subject"):
        provenance(built(subjects=()))
