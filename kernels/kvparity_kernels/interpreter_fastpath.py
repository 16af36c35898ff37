"""A fast path for Triton's CPU interpreter that changes no value.

Interpreting a tile of attention is some two thousand Python calls and hardly any arithmetic. The
hooks here halve that. Each is installed only where Triton has the expected shape; without them
the results are the same, only slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kvparity_kernels.relied import triton as relied
from kvparity_kernels.tile_functions import TileFunctions

# Two operands of one of these types are computed in it, by any operation.
FRACTIONS = frozenset({"fp32", "fp64"})
NUMBERS = FRACTIONS | {"int32", "int64"}
PLAIN = NUMBERS | {"int1"}


def install() -> None:
    """Install what fits into Triton's interpreter. To be called once."""
    module: Any = relied.interpreter()
    core, semantic = module.tl.core, "TritonSemantic."
    stand_ins: dict[str, Callable[[Any], Any]] = {
        "GridExecutor._restore_args_dev": _restore,
        "_get_np_dtype": lambda original: _np_dtype(original, core.pointer_type),
        "tl.core.block_type.__init__": lambda original: _block_type(original, core.constexpr),
        "tl.core.tensor.__init__": _tensor,
        f"{semantic}broadcast_impl_value": lambda original: _broadcast(original, module),
        f"{semantic}binary_op_sanitize_overflow_impl": lambda original: _overflow(
            original, module.InterpreterBuilder
        ),
        f"{semantic}binary_op_type_checking_impl": lambda original: _operands(
            original, core.tensor
        ),
    }
    found = relied.quick_hooks()
    unset = relied.UNSET.find()
    if unset is not None and {"_patch_lang", "_LangPatchScope.restore"} <= found.keys():
        semantic = relied.SEMANTIC.find()
        instead = TileFunctions(module, semantic).instead if semantic is not None else None
        stand_ins["_patch_lang"] = lambda original: Patches(original, module.tl, unset, instead)
    for path, stand_in in stand_ins.items():
        if path in found:
            relied.set_quick(path, stand_in(found[path]))


def _np_dtype(original: Callable[[Any], Any], pointer_type: Any) -> Callable[[Any], Any]:
    """Remember the dtype by name; Triton builds a table of all dtypes at each question."""
    known: dict[str, Any] = {}

    def get_np_dtype(tt_dtype: Any) -> Any:
        scalar = tt_dtype.scalar
        if isinstance(tt_dtype, pointer_type) or isinstance(scalar, pointer_type):
            return original(tt_dtype)
        if scalar.name not in known:
            known[scalar.name] = original(tt_dtype)
        return known[scalar.name]

    return get_np_dtype


def _block_type(original: Callable[..., None], constexpr: Any) -> Callable[..., None]:
    """Check a shape once, not each time it occurs."""
    known: dict[Any, dict[str, Any]] = {}

    def init(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple([s.value if isinstance(s, constexpr) else s for s in shape])
        key = (element_ty.name, getattr(element_ty, "address_space", None), sizes)
        facts = known.get(key)
        if facts is None:
            original(self, element_ty, shape)
            known[key] = dict(self.__dict__)
        else:
            self.__dict__.update(facts)

    return init


def _tensor(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap the sizes of a shape into constants once for each type."""
    known: dict[Any, dict[str, Any]] = {}

    def init(self: Any, handle: Any, type: Any) -> None:
        key = (type.__class__, type.name, getattr(type.scalar, "address_space", None))
        facts = known.get(key)
        if facts is None:
            original(self, handle, type)
            known[key] = {name: it for name, it in self.__dict__.items() if name != "handle"}
        else:
            self.__dict__.update(facts)
            self.handle = handle

    return init


def _broadcast(original: Callable[..., Any], module: Any) -> Callable[..., Any]:
    """Return at once where two blocks have the same shape; else ask numpy for the common one."""
    block_type, handle = module.tl.core.block_type, module.TensorHandle
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]] = {}

    def wide(self: Any, value: Any, shape: tuple[int, ...]) -> Any:
        old = value.handle.data
        if not value.type.is_block():
            new = np.full(shape, old, dtype=old.dtype)
        elif old.shape == shape:
            return value
        else:
            new = np.broadcast_to(old, shape)
        scalar = value.type.scalar
        return self.tensor(handle(new, value.handle.dtype.scalar), block_type(scalar, list(shape)))

    def broadcast_impl_value(self: Any, lhs: Any, rhs: Any) -> Any:
        left, right = lhs.type.is_block(), rhs.type.is_block()
        if not (left or right):
            return lhs, rhs
        if not isinstance(self.builder, module.InterpreterBuilder):
            return original(self, lhs, rhs)
        a, b = lhs.handle.data, rhs.handle.data
        if left and right and a.shape == b.shape:
            return lhs, rhs
        if left and right and a.ndim != b.ndim:
            return original(self, lhs, rhs)
        shape = known.get((a.shape, b.shape))
        if shape is None:
            try:
                shape = np.broadcast_shapes(a.shape, b.shape)
            except ValueError:
                return original(self, lhs, rhs)  # which says what does not fit
            known[a.shape, b.shape] = shape
        return wide(self, lhs, shape), wide(self, rhs, shape)

    return broadcast_impl_value


def _operands(original: Callable[..., Any], tensor: Any) -> Callable[..., Any]:
    """Work out no common type where one operand has that of the other, or takes it."""

    def fits(value: Any, dtype: Any) -> bool:
        """Whether a number of Python takes ``dtype``, as small ones do, and fractions of floats."""
        if type(value) is int:
            return dtype.name in NUMBERS and -(2**31) <= value < 2**31
        return type(value) is float and dtype.name in FRACTIONS

    def binary_op_type_checking_impl(
        self: Any,
        lhs: Any,
        rhs: Any,
        allow_lhs_ptr: bool = False,
        allow_rhs_ptr: bool = False,
        arithmetic_check: bool = True,
        div_or_mod: bool = False,
    ) -> Any:
        left, right = isinstance(lhs, tensor), isinstance(rhs, tensor)
        if left and right:
            a, b = lhs.dtype, rhs.dtype
            address = allow_lhs_ptr and a.is_ptr() and b.name in NUMBERS and not b.is_floating()
            if address or (a.name in PLAIN and a.name == b.name):
                return self.broadcast_impl_value(lhs, rhs)
        elif arithmetic_check and left and fits(rhs, lhs.dtype):
            return self.broadcast_impl_value(lhs, self.scalar_constant(rhs, dtype=lhs.dtype))
        elif arithmetic_check and right and fits(lhs, rhs.dtype):
            return self.broadcast_impl_value(self.scalar_constant(lhs, dtype=rhs.dtype), rhs)
        return original(self, lhs, rhs, allow_lhs_ptr, allow_rhs_ptr, arithmetic_check, div_or_mod)

    return binary_op_type_checking_impl


def _overflow(original: Callable[..., None], builder: Any) -> Callable[..., None]:
    """Do not work out an assertion about integers that only a debug build would make."""

    def binary_op_sanitize_overflow_impl(self: Any, lhs: Any, rhs: Any, binary_op: Any) -> None:
        if isinstance(self.builder, builder) and not self.builder.options.debug:
            return
        original(self, lhs, rhs, binary_op)

    return binary_op_sanitize_overflow_impl


def _restore(original: Callable[..., Any]) -> Callable[..., Any]:
    def _restore_args_dev(
        self: Any, args_dev: Any, args_hst: Any, kwargs: Any, kwargs_hst: Any
    ) -> None:
        """Do not copy a CPU tensor's whole storage onto itself.

        Besides the time, such a copy would make every page of a memory-mapped checkpoint private.
        """
        pairs = [*zip(args_dev, args_hst, strict=True)]
        pairs += [(value, kwargs_hst[name]) for name, value in kwargs.items()]
        others = [pair for pair in pairs if not isinstance(pair[0], (int, float, type(None)))]
        if all(hasattr(a, "data_ptr") and a.data_ptr() == b.data_ptr() for a, b in others):
            return
        original(self, args_dev, args_hst, kwargs, kwargs_hst)

    return _restore_args_dev


class Scope:
    """One application of the patches, or none."""

    def __init__(self, patches: Patches | None) -> None:
        self.patches = patches

    def restore(self) -> None:
        """Undo it; Triton calls this when a kernel ends, with or without an exception."""
        if self.patches is not None:
            self.patches.remove()


class Patches:
    """Patches ``triton.language`` once per launch instead of once per device-function call.

    The patches are the same for every kernel, so they are worked out once, for both names under
    which kernels see the language, and afterwards only set and reset.
    """

    def __init__(
        self,
        original: Callable[[Any], Any],
        language: Any,
        missing: Any,
        instead: Callable[[Any, str, Any, Any], Any] | None = None,
    ) -> None:
        self.original = original
        self.language = language
        self.missing = missing
        self.instead = instead or (lambda thing, name, before, after: after)
        self.changes: list[tuple[Any, str, Any, Any]] = []  # object, name, before, after
        self.active = False

    def __call__(self, fn: Any) -> Scope:
        """Stand in for ``_patch_lang``: patch at a launch, do nothing inside one."""
        if self.active:
            return Scope(None)
        if self.changes:
            for thing, name, _, after in self.changes:
                setattr(thing, name, after)
        else:
            self.work_out()
        self.active = True
        return Scope(self)

    def work_out(self) -> None:
        """Patch for the first time, and note what changed."""
        names = {"tl": self.language, "core": self.language.core}
        scope = self.original(type("Names", (), {"__globals__": names}))
        for thing, name, before in relied.changes(scope):
            after = self.instead(thing, name, before, getattr(thing, name))
            self.changes.append((thing, name, before, after))
            setattr(thing, name, after)

    def remove(self) -> None:
        """Put everything back."""
        for thing, name, before, _ in reversed(self.changes):
            if before is self.missing:
                if hasattr(thing, name):
                    delattr(thing, name)
            else:
                setattr(thing, name, before)
        self.active = False
