"""The dispatch mode: every operation of the thread, just before its kernel is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kvparity_kernels.arguments import FLOATS
from kvparity_kernels.overrides import tables
from kvparity_kernels.overrides.elementwise import ALONE, even
from kvparity_kernels.overrides.report import InvariantReport, NotInvariantError
from kvparity_kernels.relied.torch import OpOverload, TorchDispatchMode, composite, schema
from kvparity_kernels.relied.torch import tree_leaves as leaves

Planted = Mapping[str, Callable[..., Any]]


class FixedOrder(TorchDispatchMode):  # type: ignore[no-untyped-call] # so is all of the class
    """Computes what it can in the fixed order, lets through what cannot matter, refuses the rest.

    ``planted`` computes the operations of these names instead; that is for controls.
    """

    def __init__(self, report: InvariantReport, *, strict: bool, planted: Planted) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # see above
        self.report, self.strict, self.planted = report, strict, planted
        self.paused = False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if func.namespace not in ("aten", "prim", "prims"):
            return self._unanswered(func, args, kwargs, f"{func} is not an operation of torch's")
        name, base = names(func)
        if name in self.planted:
            replacement = self.planted[name]
            return replacement(func, *args, **kwargs)
        tensors = [x for x in leaves((args, kwargs)) if isinstance(x, Tensor)]
        floats = [x for x in tensors if x.is_floating_point() or x.is_complex()]
        made = kwargs.get("dtype")
        counts = bool(floats) or (made is not None and made.is_floating_point)
        if counts and name in tables.OVERRIDES:
            return self._override(func, name, args, kwargs, floats)
        if any(part in base for part in tables.ATTENTION) and not composite(func):
            raise NotInvariantError(
                f"{base} fuses attention in an order of its own; call "
                "scaled_dot_product_attention, which is supported, or set the model's attention to "
                "sdpa, eager or this project's"
            )
        if composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if self._harmless(func, base, args, kwargs):
            return func(*args, **kwargs)
        if exact(base, args, kwargs):
            return func(*args, **kwargs)
        if torch.Tag.pointwise in func.tags:
            return self._elementwise(func, name, base, args, kwargs, tensors)
        if not counts:
            result = func(*args, **kwargs)  # of integers: exact, unless floats come of it
            if not any(isinstance(y, Tensor) and y.is_floating_point() for y in leaves(result)):
                return result
        known = base in tables.REDUCES or base in tables.ADDS_IF
        words = "adds" if known else "is not known here and may add"
        return self._unanswered(func, args, kwargs, f"{name} {words} in an order of torch's own")

    def _override(
        self,
        func: OpOverload,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        floats: list[Tensor],
    ) -> Any:
        for x in floats:
            if x.device.type == "meta":
                return func(*args, **kwargs)
            if x.dtype not in FLOATS or x.device.type not in ("cpu", "cuda"):
                words = f"{name} of {x.dtype} on {x.device} has no fixed-order operation"
                return self._unanswered(func, args, kwargs, words)
        self.report.overridden[name] += 1
        return written(tables.OVERRIDES[name], func, args, kwargs)

    def _elementwise(
        self,
        func: OpOverload,
        name: str,
        base: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> Any:
        if any(x.device.type != "cpu" for x in tensors if x.dim()):
            return func(*args, **kwargs)  # a GPU computes all elements with the same code
        plain = functional(func)
        if plain is None or len(schema(plain).returns) != 1:
            return self._unanswered(func, args, kwargs, f"{name} has no plain form to compute")
        self.report.even[name] += 1

        def compute(*a: Any, **k: Any) -> Tensor:
            return even(plain, a, k, alone=base in ALONE)

        return written(compute, func, args, kwargs)

    @staticmethod
    def _harmless(
        func: OpOverload, base: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        plain = functional(func)  # squeeze_ is no view, but squeeze is
        if (plain is not None and plain.is_view) or torch.Tag.nondeterministic_seeded in func.tags:
            return True
        if base in tables.ADDS_IF:
            return not argument(func, tables.ADDS_IF[base], args, kwargs)
        if base == "arange":  # other steps are rounded, by vector code and scalar code
            return all(float(x).is_integer() for x in args if isinstance(x, (int, float)))
        if base == "scatter":
            return "reduce" not in schema(func).overload_name
        return base in tables.MOVES or base in tables.SELECTS

    def _unanswered(
        self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], words: str
    ) -> Any:
        if self.strict:
            raise NotInvariantError(
                f"invariant(): {words}; compute it outside, in other operations, or count it with "
                "strict=False"
            )
        self.report.passed[names(func)[0]] += 1
        return func(*args, **kwargs)


@cache
def names(func: OpOverload) -> tuple[str, str]:
    """The name with its overload, and without; both of the form that is not in place."""
    base = schema(func).name.partition("::")[2]
    if base.endswith("_") and not base.endswith("__"):
        base = base[:-1]
    overload = schema(func).overload_name
    overload = "" if overload == "out" else overload.removesuffix("_out")
    return (f"{base}.{overload}" if overload else base), base


@cache
def functional(func: OpOverload) -> OpOverload | None:
    """The form of an operation that takes the same and makes its result; None if there is none."""
    if not schema(func).is_mutable:
        return func
    packet = getattr(torch.ops.aten, names(func)[1], None)
    forms = [] if packet is None else [getattr(packet, each) for each in packet.overloads()]
    takes = _takes(func)
    return next((f for f in forms if not schema(f).is_mutable and _takes(f) == takes), None)


def _takes(func: OpOverload) -> list[tuple[str, str]]:
    """Names and types of what an operation is given, but for where its result is put."""
    return [(each.name, str(each.type)) for each in schema(func).arguments if not each.is_out]


def exact(base: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether IEEE 754 settles every bit of this elementwise call, or it adds whole numbers."""
    made = kwargs.get("dtype")
    if base in ("cumsum", "cumprod") and made is not None and not made.is_floating_point:
        return not made.is_complex  # the numbers are made whole first
    factor = args[2] if base in ("add", "sub", "rsub") and len(args) > 2 else kwargs.get("alpha", 1)
    if factor not in (1, -1):
        return False  # a product and a sum, which vector code may contract
    if kwargs.get("rounding_mode") is not None or "decimals" in kwargs:
        return False
    return base in tables.EXACT


def argument(func: OpOverload, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of a named argument, wherever it was given."""
    for place, each in enumerate(schema(func).arguments):
        if each.name == name:
            return kwargs.get(name, args[place] if place < len(args) else each.default_value)
    return None


def written(
    function: Callable[..., Any], func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``function`` with the arguments of ``func``, its result where ``func`` would put it."""
    if not schema(func).is_mutable:
        return function(*args, **kwargs)
    rest = dict(kwargs)
    out: Tensor = rest.pop("out") if "out" in rest else args[0]
    result = function(*args, **rest)
    if out.shape != result.shape:
        out.resize_(result.shape)
    return out.copy_(result)
