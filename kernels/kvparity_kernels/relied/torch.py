"""What kvparity relies on in torch beyond its documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import Module

from kvparity_kernels.relied import ReliedItem, gone, needed

if TYPE_CHECKING:
    from torch._C import AliasInfo as AliasInfo
    from torch._C import FunctionSchema as FunctionSchema

_OPERATION = "read which operation was called, and with which arguments"

with needed(
    "torch", "`torch.utils._python_dispatch.TorchDispatchMode`", "see every operation as it runs"
):
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
with needed("torch", "`tree_leaves` or `tree_map_only` of `torch.utils._pytree`", _OPERATION):
    from torch.utils._pytree import tree_leaves as tree_leaves
    from torch.utils._pytree import tree_map_only as tree_map_only
with needed("torch", "`torch._ops.OpOverload`", _OPERATION):
    from torch._ops import OpOverload as OpOverload

HAS_KERNEL = ReliedItem(
    "torch",
    ("torch:_C._dispatch_has_kernel_for_dispatch_key",),
    "tell which operations torch makes of others",
)
COMPOSITE = ReliedItem(
    "torch",
    ("torch:_C.DispatchKey.CompositeImplicitAutograd",),
    "tell which operations torch makes of others",
)
INDUCTOR = ReliedItem(
    "torch",
    ("torch._inductor.compile_fx:compile_fx",),
    "count the runs of what torch.compile compiled",
)

BUILTINS = ReliedItem(
    "torch",
    ("torch:_C._VariableFunctions",),
    "see which of torch's functions were replaced",
)
BUILTIN_LAYERS = ReliedItem(
    "torch",
    ("torch:_C._nn",),
    "see which of torch's functions were replaced",
)
MODES_OFF = ReliedItem(
    "torch",
    ("torch.utils._python_dispatch:_disable_current_modes",),
    "make a mask, or look at one, while operations are watched",
)


def lower_right(rows: int, keys: int) -> Tensor:
    """torch's ``causal_lower_right``, which cannot be made where a mode sees every operation."""
    # torch imports its compiler with it, in seconds: who never asks for it does not wait.
    from torch.nn.attention.bias import causal_lower_right

    with MODES_OFF.get()():
        return causal_lower_right(rows, keys)


def schema(operation: OpOverload) -> FunctionSchema:
    """The schema of an operator.

    Raises:
        GoneError: it has none that can be read.
    """
    try:
        found: FunctionSchema = operation._schema
        return found
    except AttributeError:
        raise gone("torch", f"`_schema` of {type(operation).__name__}", _OPERATION) from None


def target_schema(target: object) -> FunctionSchema | None:
    """The schema of what a node of a graph calls; None if that is no operator of torch."""
    return schema(target) if isinstance(target, OpOverload) else None


@cache
def composite(operation: OpOverload) -> bool:
    """Whether torch defines the operation by others."""
    found = schema(operation)
    name = f"{found.name}.{found.overload_name}" if found.overload_name else found.name
    return bool(HAS_KERNEL.get()(name, COMPOSITE.get()))


@contextmanager
def without_pre_hooks(module: Any) -> Iterator[None]:
    """``module`` without what ``register_forward_pre_hook`` hung on it.

    Raises:
        GoneError: the hooks are kept elsewhere.
    """
    hooks = getattr(module, "_forward_pre_hooks", None)
    if hooks is None:
        use = "trace a forward without the hook that counts it"
        raise gone("torch", f"`_forward_pre_hooks` of {type(module).__name__}", use)
    kept = dict(hooks)
    hooks.clear()
    try:
        yield
    finally:
        hooks.update(kept)


def hooked(module: Module) -> bool:
    """Whether something hangs on its forward.

    Raises:
        GoneError: the hooks are kept elsewhere.
    """
    names = ("_forward_hooks", "_forward_pre_hooks")
    hooks = [getattr(module, name, None) for name in names]
    if None in hooks:
        missing = names[hooks.index(None)]
        use = "see what hangs on a forward and no checkpoint keeps"
        raise gone("torch", f"`{missing}` of {type(module).__name__}", use)
    return any(hooks)


def compile_fx(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
    """inductor's own compiler."""
    made: Callable[..., Any] = INDUCTOR.get()(graph, inputs)
    return made
