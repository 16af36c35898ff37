"""A contract with the products of a device, as ``--as`` asks for it."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from kvparity.core.errors import UnsupportedError
from kvparity_contracts.contract import Contract
from kvparity_contracts.explain import explain
from kvparity_contracts.loader import LoadedContract


def with_device(loaded: LoadedContract, device: str | None) -> LoadedContract:
    """The contract with ``numerics.device`` as given; None: as it is.

    Raises:
        ValueError: it asks for another one, or has no numerics that could.
    """
    contract = loaded.contract
    own = contract.numerics.device
    if device is None or device == own:
        return loaded
    if own is not None:
        raise ValueError(
            f"{contract.name} states numerics.device: {own}, and {device} was asked for; leave "
            "one of them out"
        )
    data = contract.model_dump(mode="json")
    data.setdefault("numerics", {})["device"] = device
    try:
        return replace(loaded, contract=Contract.model_validate(data))
    except ValidationError as error:
        fault = next(fault for fault, _ in explain(error))
        raise ValueError(f"{fault.message}, expected {fault.expected}") from error


def require_cpu(contract: Contract, device: str) -> None:
    """Refuse a model where a device computes by itself.

    Raises:
        UnsupportedError: the run is not on a CPU.
    """
    asked = contract.numerics.device
    if asked is not None and device != "cpu":
        raise UnsupportedError(
            f"numerics.device is {asked}, whose products are modelled on a CPU alone, and the run "
            f"is on {device}; use --device cpu, or leave the device out"
        )
