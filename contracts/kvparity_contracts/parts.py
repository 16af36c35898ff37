"""The parts of a contract, each checked alone; :mod:`contract` checks them together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticKnownError

from kvparity_contracts.base import (
    Fault,
    Model,
    Several,
    Slug,
    closest,
    list_of,
    refusal,
    refuse,
    repeated,
    show,
)
from kvparity_contracts.checks import Check, OneCheck, PathCheck
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.paths import PathName
from kvparity_contracts.sides import Sides
from kvparity_contracts.subjects import Subject
from kvparity_contracts.workloads import Workload

VERSION = 1


def _version(value: object) -> object:
    # Literal[1] alone would take true and 1.0, because they equal 1.
    if type(value) is not int or value != VERSION:
        expected = f"{VERSION}, the version that this kvparity reads"
        if value == str(VERSION):
            expected += ", without quotes"
        raise refusal(Fault((), f"found {show(value)}", expected))
    return value


def _controls(value: object) -> object:
    if value == "all":
        return value
    if not isinstance(value, (list, tuple)) or not value:
        suggestion = "all" if closest(value, ["all"]) else ""
        if isinstance(value, str) and value in CONTROLS:
            suggestion = f"[{value}]"
        message = f"found {show(value)}"
        raise refusal(Fault((), message, "'all' or a list of controls", suggestion))
    names = ", ".join(CONTROLS)
    faults = [
        Fault(
            (i,), f"found the unknown control {name!r}", f"one of {names}", closest(name, CONTROLS)
        )
        for i, name in enumerate(value)
        if not isinstance(name, str) or name not in CONTROLS
    ]
    faults += [Fault((i,), f"{value[i]!r} is listed twice") for i in repeated(value)]
    refuse(faults)
    return tuple(value)


Controls = Annotated[
    Literal["all"] | tuple[str, ...],
    BeforeValidator(_controls),
    WithJsonSchema({"anyOf": [{"const": "all"}, list_of({"enum": list(CONTROLS)})]}),
]


_UNSAID = Numerics(execution=("float32",))
"""Of two sides, which say their formats themselves: their logprobs are compared as float32."""
_DUMPED: tuple[object, ...] = (_UNSAID.model_dump(), _UNSAID.model_dump(mode="json"), [])
"""What is left out, as a contract that was read is written again."""


def _unless_sides(
    value: object, check: ValidatorFunctionWrapHandler, info: ValidationInfo
) -> object:
    name, subject = info.field_name, info.data.get("subject")
    unset = _UNSAID if name == "numerics" else ()
    # A subject with faults of its own is not in what is valid: whether it draws is not known.
    faulty = subject is None and info.context == Sides.TAG
    own = isinstance(subject, Sides) and not (name == "workloads" and subject.draws)
    if value is unset and not own and not faulty:
        raise PydanticKnownError("missing")
    if not own and not (faulty and (name == "numerics" or value is unset)):
        return check(value)
    if value != unset and value not in _DUMPED:
        found = f"found {name} beside a subject of kind sides, which needs none"
        if name == "workloads":
            found = "found workloads beside two sides whose tokens are given"
        raise refusal(Fault((), found, f"no {name}"))
    return unset


_UnlessSides = WrapValidator(_unless_sides)


class Parts(Model):
    """What a contract holds, before its parts are checked against each other."""

    version: Annotated[Literal[1], BeforeValidator(_version)]
    """Version of this format: 1."""
    name: Slug
    """Name of the contract: lower-case letters, digits, hyphens and underscores."""
    about: str = ""
    """What the contract is for, in a sentence."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, prompts and sampling."""
    subject: Subject
    """What is under verification."""
    numerics: Annotated[Numerics, _UnlessSides] = Field(
        default_factory=lambda: _UNSAID, validate_default=True
    )
    """Number formats and temperatures: required, but beside two sides, which say their own."""
    workloads: Annotated[Several[Workload], _UnlessSides] = Field(
        default_factory=tuple, validate_default=True
    )
    """Prompts, and how much is generated from them: required, but beside two sides whose tokens
    are given."""
    checks: Several[OneCheck]
    """What must hold."""
    controls: Controls = "all"
    """Planted defects that must be caught: all that this contract can show, or a list of names."""

    @property
    def path_checks(self) -> tuple[PathCheck, ...]:
        """The checks that run workloads on paths; the others look at kernels."""
        return tuple(each for each in self.checks if isinstance(each, PathCheck))

    def workloads_of(self, check: PathCheck) -> tuple[Workload, ...]:
        """The workloads that a check runs on, in the order of the contract."""
        if check.workloads is None:
            return self.workloads
        return tuple(each for each in self.workloads if each.name in check.workloads)

    def paths_of(self, check: PathCheck, workload: Workload) -> tuple[PathName, ...]:
        """The paths that a check runs on a workload, each once, with ``padded`` expanded."""
        expanded = (one for path in check.paths for one in path.expand(workload.pad))
        return tuple(dict.fromkeys(expanded))

    def counted(self, workload: Workload) -> bool:
        """Whether the number of its tokens is known: texts may go through a tokenizer."""
        spoken = workload.texts is not None or workload.chats is not None
        return not spoken or getattr(self.subject, "checkpoint", None) is None

    def check(self, name: str) -> Check:
        """The check of this name."""
        return next(each for each in self.checks if each.name == name)

    def checks_of(self, relation: str) -> list[Check]:
        """The checks of one relation."""
        return [each for each in self.checks if each.relation == relation]
