"""The JSON schema of contracts, for editors."""

from __future__ import annotations

import json

from kvparity_contracts.contract import Contract
from kvparity_contracts.json_types import JsonValue
from kvparity_contracts.library import FOLDER

FILE = FOLDER / "contract.schema.json"
"""The committed copy, which the contracts of the library name in their first line."""


def schema() -> dict[str, JsonValue]:
    """JSON schema (draft 7) of a contract; editors complete keys and show their meaning."""
    # yaml-language-server reads draft 7; nothing here needs more.
    return {"$schema": "http://json-schema.org/draft-07/schema#", **Contract.model_json_schema()}


def text() -> str:
    """The schema as the committed file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
