"""The table of checks: what a contract may ask for. :func:`register` adds a relation."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from kvparity_contracts.check_base import Check, KernelCheck, PathCheck
from kvparity_contracts.kernel_checks import ARCHITECTURES, AuditCheck, OrderCheck
from kvparity_contracts.parity_check import ParityCheck
from kvparity_contracts.path_checks import (
    Accuracy,
    CacheCheck,
    Invariance,
    LivenessCheck,
    ReproductionCheck,
    TraceCheck,
)
from kvparity_contracts.ranks_check import TpInvariance

__all__ = [
    "ARCHITECTURES", "CHECKS", "Accuracy", "AuditCheck", "CacheCheck", "Check",
    "Invariance", "KernelCheck", "LivenessCheck", "OneCheck", "OrderCheck", "ParityCheck",
    "PathCheck", "ReproductionCheck", "TpInvariance", "TraceCheck", "register", "withdraw",
]  # fmt: skip

CHECKS: dict[str, type[Check]] = {
    each.TAG: each
    for each in (
        Invariance, Accuracy, CacheCheck, LivenessCheck, TraceCheck, OrderCheck, AuditCheck,
        ParityCheck, TpInvariance, ReproductionCheck,
    )
}  # fmt: skip
"""The model of a check by the name of its relation, in the order in which they are listed."""


def register(model: type[Check]) -> None:
    """Let contracts ask for the relation of ``model``, in this process.

    Raises:
        ValueError: the name is taken.
    """
    if model.TAG in CHECKS:
        raise ValueError(f"the relation {model.TAG!r} is registered already")
    CHECKS[model.TAG] = model


def withdraw(relation: str) -> None:
    """Undo :func:`register`."""
    del CHECKS[relation]


@lru_cache
def _union(models: tuple[type[Check], ...]) -> TypeAdapter[Check]:
    every = Union[models]  # type: ignore[valid-type] # noqa: UP007 # known at run time alone
    return TypeAdapter(Annotated[every, Field(discriminator="relation")])


class _Registered:
    """A check of any relation that is in the table when a contract is read."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: _union(tuple(CHECKS.values())).validate_python(value)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(_union(tuple(CHECKS.values())).core_schema)


if TYPE_CHECKING:
    OneCheck = Check
else:
    OneCheck = Annotated[Check, _Registered()]
