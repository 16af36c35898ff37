"""JSON schemas of what a run folder holds, from the models that write it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import TypeAdapter

from kvparity.births.document import KeptAccount
from kvparity.plan.results import CaseLine, ControlLine
from kvparity.report.document import AnyCase, RunReport
from kvparity.report.lines import PathLine, RetryLine, UnitLine
from kvparity_contracts.described import DescribedSchema

FOLDER = Path(__file__).parent / "schemas"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, object]]:
    """By file of a run folder: the schema of the document, or of each line."""
    return {
        "run.json": RunReport.model_json_schema(schema_generator=DescribedSchema),
        CaseLine.file: TypeAdapter(AnyCase).json_schema(schema_generator=DescribedSchema),
        ControlLine.file: ControlLine.model_json_schema(schema_generator=DescribedSchema),
        UnitLine.file: UnitLine.model_json_schema(schema_generator=DescribedSchema),
        PathLine.file: PathLine.model_json_schema(schema_generator=DescribedSchema),
        RetryLine.file: RetryLine.model_json_schema(schema_generator=DescribedSchema),
        "located/*.json": KeptAccount.model_json_schema(schema_generator=DescribedSchema),
    }


def files() -> dict[Path, str]:
    """By shipped file: what it should hold."""
    return {
        FOLDER / f"{re.split('[./]', name)[0]}.schema.json": json.dumps(
            {"$schema": _DRAFT} | found | {"title": name}, indent=1
        )
        + "\n"
        for name, found in schemas().items()
    }
