"""Contracts: what is claimed about a subject, as data. Imports no torch."""

import importlib

# Lazily, with types in __init__.pyi: a process that needs one module builds no model of the others.
_PLACES = {
    "CONTROLS": "controls",
    "Contract": "contract",
    "ContractError": "problems",
    "Control": "controls",
    "LintFinding": "linter",
    "LoadedContract": "loader",
    "PathName": "paths",
    "Problem": "problems",
    "find": "library",
    "lint": "linter",
    "load": "loader",
    "schema": "json_schema",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'kvparity_contracts' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kvparity_contracts.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
