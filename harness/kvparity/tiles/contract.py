"""Which rules a contract relies on, and their check before its cases run."""

from __future__ import annotations

import torch

from kvparity.core.errors import SubjectError
from kvparity.tiles.check import TilesCheck, require
from kvparity.tiles.force import describe
from kvparity_contracts import Contract
from kvparity_contracts.sides import Sides
from kvparity_contracts.subjects import Attention, Decoder, Transformers, order_of
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rules import RulesError

_OTHERS = "kvparity.pairs."  # PyTorch's and FlashInfer's attention
_NONE = "no rule is asked: the subject has another order, or none of the kernels with rules"


def formats(contract: Contract) -> tuple[str, ...]:
    """The formats in which a contract may launch attention or linear layers of this project.

    Whatever cannot be known, such as what a pair in somebody's file calls, is taken to do so. Under
    another order than the default no rule is in force, so none is relied on.
    """
    subject = contract.subject
    if isinstance(subject, Attention):
        own = not all(name.startswith(_OTHERS) for name in (subject.prefill, subject.decode))
    elif isinstance(subject, Decoder):
        own = "fixed-order" in (subject.attention, subject.operations)
    elif isinstance(subject, Transformers):
        own = subject.invariant or subject.attention == "kvparity"
    elif isinstance(subject, Sides):
        own = any(each.invariant for each in subject.models)
    else:
        own = True
    order = order_of(subject)
    default = order is None or ReductionOrder(**order.model_dump()) == ReductionOrder()
    return tuple(contract.numerics.execution) if own and default else ()


def in_force(contract: Contract, device: torch.device) -> dict[str, str]:
    """The tiles that a contract relies on, by format, in words. Raises ``SubjectError``."""
    try:
        return describe(device, formats(contract))["in_force"]
    except RulesError as error:
        raise SubjectError(str(error)) from error


def checked(contract: Contract, device: torch.device) -> TilesCheck:
    """The tiles that a contract relies on, checked on the device: as ``check`` says it.

    Raises ``SubjectError`` if a row of the table does not hold there.
    """
    asked = formats(contract)
    found = require(device, asked)
    return found if asked or device.type != "cuda" else found.saying(_NONE)
