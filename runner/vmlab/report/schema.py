"""The published JSON Schema of the report, made from the models.

``python -m vmlab.report.schema`` writes it anew after a change of the models; a test fails until that is done.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vmlab.report.model import Report

SCHEMA_PATH = Path(__file__).parent / "schema" / "report-1.json"


def report_schema() -> dict[str, Any]:
    """The schema of report.json, major version 1."""
    made = Report.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:vmlab:report:1",
        **made,
        "title": "vmlab report",
    }


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


def write_schema(path: Path = SCHEMA_PATH) -> Path:
    """Write the schema, by default in its place in the package."""
    path.write_text(schema_text(), encoding="utf-8")
    return path


if __name__ == "__main__":
    write_schema()
