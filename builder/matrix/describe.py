"""The JSON Schema and the documentation's tables of `matrix.yaml`, made from its fields.

python -m builder.matrix.describe schema > docs/matrix.schema.json
python -m builder.matrix.describe docs docs/matrix.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from builder.matrix.fields import MATRIX
from builder.matrix.schema import Json, Record

BEGIN: Final = "<!-- fields: begin, made by `python -m builder.matrix.describe docs` -->"
END: Final = "<!-- fields: end -->"


def json_schema() -> Json:
    """The JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imgbuild's matrix.yaml",
        **_object(MATRIX),
        "$defs": {record.name: _object(record) for record in MATRIX.records()[1:]},
    }


def _object(record: Record) -> Json:
    properties: Json = {}
    for field in record.fields:
        schema = field.type.json()
        properties[field.name] = {"description": field.doc, **schema}
    result: Json = {
        "type": "object",
        "description": record.doc,
        "properties": properties,
        "additionalProperties": False,
    }
    required = [field.name for field in record.fields if field.required]
    if required:
        result["required"] = required
    if record.some:
        result["minProperties"] = 1
    return result


def json_schema_text() -> str:
    """The JSON Schema as `docs/matrix.schema.json` holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def field_tables() -> str:
    """One Markdown section with a table for each record."""
    return "\n".join(_section(record) for record in MATRIX.records())


def _section(record: Record) -> str:
    lines = [
        f"### {record.name}",
        "",
        record.doc,
        "",
        "| key | value | without it | meaning | example |",
        "|---|---|---|---|---|",
    ]
    for field in record.fields:
        cells = (
            f"`{field.name}`",
            field.type.words(),
            "**error**" if field.required else field.default,
            field.doc,
            f"`{field.example}`",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def with_tables(document: str) -> str:
    """`document` with what stands between its two markers replaced by the tables.

    Raises:
        ValueError: a marker is missing.
    """
    start = document.index(BEGIN) + len(BEGIN)
    end = document.index(END, start)
    return f"{document[:start]}\n\n{field_tables()}\n{document[end:]}"


def main(arguments: Sequence[str]) -> int:
    """Prints the JSON Schema, or renews the tables of a document in place."""
    match list(arguments):
        case ["schema"]:
            sys.stdout.write(json_schema_text())
        case ["docs", name]:
            path = Path(name)
            path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            sys.stderr.write("usage: python -m builder.matrix.describe (schema | docs FILE)\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
