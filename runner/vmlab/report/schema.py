"""The published JSON Schemas of the report and of the matrix of controls, made from the models.

``python -m vmlab.report.schema`` writes it anew after a change of the models; a test fails until that is done.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vmlab.report.matrix import Matrix
from vmlab.report.model import Report

SCHEMA_PATH = Path(__file__).parent / "schema" / "report-1.json"
MATRIX_SCHEMA_PATH = Path(__file__).parent / "schema" / "controls-1.json"


def report_schema() -> dict[str, Any]:
    """The schema of report.json, major version 1."""
    return _published(Report, "report", "vmlab report")


def matrix_schema() -> dict[str, Any]:
    """The schema of controls.json, major version 1."""
    return _published(Matrix, "controls", "vmlab controls")


def _published(model: type[BaseModel], name: str, title: str) -> dict[str, Any]:
    made = model.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:vmlab:{name}:1", **made, "title": title}


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas() -> None:
    """Write both in their place in the package."""
    for path, schema in ((SCHEMA_PATH, report_schema()), (MATRIX_SCHEMA_PATH, matrix_schema())):
        path.write_text(schema_text(schema), encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
