"""Contracts: what is claimed about a subject, as data. Imports no torch."""

from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.json_schema import schema
from kvparity_contracts.library import find
from kvparity_contracts.linter import LintFinding, lint
from kvparity_contracts.loader import LoadedContract, load
from kvparity_contracts.paths import PathName
from kvparity_contracts.problems import ContractError, Problem

__all__ = [
    "CONTROLS",
    "Contract",
    "ContractError",
    "Control",
    "LintFinding",
    "LoadedContract",
    "PathName",
    "Problem",
    "find",
    "lint",
    "load",
    "schema",
]
