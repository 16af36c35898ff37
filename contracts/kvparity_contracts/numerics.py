"""Number formats and temperatures. A list gives one case per value."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from kvparity_contracts.base import DType, Fault, Model, OneOrMore, or_list, refusal, show
from kvparity_contracts.stores import Stores


def _only_false(value: object) -> object:
    # Literal[False] alone would take 0, because 0 == False.
    if value is not False:
        raise refusal(
            Fault((), f"found {show(value)}", "false: TF32 rounds every product", "false")
        )
    return value


Device = Literal["sm_80", "sm_89", "sm_90", "sm_100"]
"""An architecture whose products are modelled."""
ARCHITECTURES: tuple[Device, ...] = get_args(Device)
DTypes = Annotated[
    OneOrMore[DType], WithJsonSchema(or_list({"enum": ["float32", "float16", "bfloat16"]}))
]
Temperatures = Annotated[
    OneOrMore[Annotated[float, Field(gt=0)]],
    WithJsonSchema(or_list({"type": "number", "exclusiveMinimum": 0})),
]


class Numerics(Model):
    """In which number formats everything runs. Each combination of listed values is a case."""

    execution: DTypes
    """Format of weights and activations: float32, float16, bfloat16, or a list of them."""
    accumulation: Literal["float32"] = "float32"
    """Format in which products are summed."""
    kv_cache: Stores | None = None
    """What the cache stores, or a list; left out, the format of execution. A number format; fp8
    with one scale per layer (tensor) or per head; int8(g), int4(g): a scale for each g elements."""
    tf32: Annotated[Literal[False], BeforeValidator(_only_false)] = False
    """TF32 is off: it would round every float32 product."""
    temperatures: Temperatures = (1.0,)
    """Sampling temperatures, above 0. Logprobs are those of the logits divided by it."""
    device: Device | None = None
    """On a CPU, compute products as this architecture's matrix instructions do; left out, as a
    chain of additions."""

    def formats(self) -> tuple[tuple[DType, str], ...]:
        """All pairs (execution, kv_cache), in the order of the contract."""
        if self.kv_cache is None:
            return tuple((each, each) for each in self.execution)
        return tuple((each, cache) for each in self.execution for cache in self.kv_cache)
