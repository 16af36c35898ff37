"""Whether a run folder is what the shipped schemas say, as another program would find out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from kvparity.report.json_schemas import FOLDER


@cache
def validators() -> dict[str, Draft202012Validator]:
    """By file of a run folder: of the shipped schema of its document, or of each of its lines."""
    found = [json.loads(file.read_text()) for file in FOLDER.iterdir()]
    for schema in found:
        Draft202012Validator.check_schema(schema)
    return {schema["title"]: Draft202012Validator(schema) for schema in found}


def documents(file: Path) -> list[Any]:
    text = file.read_text()
    return [json.loads(each) for each in (text.splitlines() if file.suffix == ".jsonl" else [text])]


def findings(folder: Path) -> Iterator[str]:
    """What the schemas refuse, by file and line; a file that is not there is no finding."""
    for name, validator in validators().items():
        for file in sorted(folder.glob(name)):
            for number, document in enumerate(documents(file), 1):
                for error in validator.iter_errors(document):
                    where = f"{file.relative_to(folder)}:{number}: {error.json_path}"
                    yield f"{where}: {error.message[:300]}"
