"""The published schema belongs to the models."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from vmlab.report.schema import MATRIX_SCHEMA_PATH, SCHEMA_PATH, matrix_schema, report_schema, schema_text


def test_committed_schema_is_that_of_the_models() -> None:
    for path, schema in ((SCHEMA_PATH, report_schema()), (MATRIX_SCHEMA_PATH, matrix_schema())):
        assert path.read_text(encoding="utf-8") == schema_text(schema), "run: python -m vmlab.report.schema"


@pytest.mark.parametrize("name", ["report", "passing", "broken", "empty", "nasty"])
def test_reports_follow_the_schema(samples: Any, name: str) -> None:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)

    jsonschema.validate(json.loads(getattr(samples, name)().model_dump_json()), schema, cls=jsonschema.Draft202012Validator)


def test_the_schema_refuses_what_is_no_report(samples: Any) -> None:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    value = json.loads(samples.report().model_dump_json())
    value["checks"][0]["verdict"] = "brilliant"

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema)
