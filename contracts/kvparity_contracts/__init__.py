"""Contracts: what is claimed about a subject, as data. Imports no torch."""

from kvparity_contracts.contract import Contract
from kvparity_contracts.loader import LoadedContract, load
from kvparity_contracts.problems import ContractError, Problem

__all__ = ["Contract", "ContractError", "LoadedContract", "Problem", "load"]
