"""A contract with and without torch's reductions in fixed order."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from kvparity_contracts.contract import Contract
from kvparity_contracts.explain import explain
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.subjects import Transformers


def asked(loaded: LoadedContract) -> bool:
    """Whether the contract asks for fixed-order arithmetic in torch's place."""
    subject = loaded.contract.subject
    return isinstance(subject, Transformers) and subject.invariant


def with_invariant(loaded: LoadedContract, on: bool) -> LoadedContract:
    """The contract with ``subject.invariant`` as given.

    Raises:
        ValueError: the subject has no such thing, or another key of the contract forbids it.
    """
    if asked(loaded) == on:
        return loaded
    subject = loaded.contract.subject
    if not isinstance(subject, Transformers):
        raise ValueError(
            f"invariant is for subjects of kind transformers, but {loaded.contract.name} has one "
            f"of kind {subject.kind}"
        )
    data = loaded.contract.model_dump(mode="json")
    data["subject"]["invariant"] = on
    try:
        return replace(loaded, contract=Contract.model_validate(data))
    except ValidationError as error:
        fault = next(fault for fault, _ in explain(error))
        raise ValueError(f"invariant: {fault.message}, expected {fault.expected}") from error
