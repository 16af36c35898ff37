"""What an editor underlines in a contract, by the committed schema."""

from __future__ import annotations

import json
from functools import cache

from jsonschema import Draft7Validator

from kvparity_contracts import json_schema


@cache
def _validator() -> Draft7Validator:
    schema = json.loads(json_schema.FILE.read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def underlined(contract: object) -> list[str]:
    """The place of each mistake, and what the schema says of it."""
    return [f"{each.json_path}: {each.message}" for each in _validator().iter_errors(contract)]
