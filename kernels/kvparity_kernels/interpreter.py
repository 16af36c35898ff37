"""What Triton's CPU interpreter must be given before its results can stand for the algorithm.

The interpreter's own ``tl.dot`` goes through BLAS (whose bits depend on the CPU, on the number of
rows and on a row's position) and multiplies the bit patterns of bfloat16 as integers; its
conversion to bfloat16 truncates; its sums follow the memory layout; and it patches
``triton.language`` anew at each call of a device function, which is most of its time. The hooks
are private to Triton, so their shape is checked first: where it differs, nothing runs.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter

from kvparity_kernels import fixed

# The hooks, with the parameters that they must have.
HOOKS: dict[str, tuple[str, ...]] = {
    "InterpreterBuilder.create_dot": (
        "self",
        "a",
        "b",
        "d",
        "input_precision",
        "max_num_imprecise_acc",
    ),
    "InterpreterBuilder.cast_impl": ("self", "src", "dst_type"),
    "InterpreterBuilder.create_fp_to_fp": ("self", "src", "dst_type", "rounding_mode"),
    "ReduceOps.sum": ("self", "input"),
    "GridExecutor.__call__": ("self", "args_dev", "kwargs"),
    "GridExecutor._restore_args_dev": ("self", "args_dev", "args_hst", "kwargs", "kwargs_hst"),
    "InterpretedFunction.__call__": ("self", "args", "kwargs"),
    "_LangPatchScope.set_attr": ("self", "obj", "name", "value"),
    "_LangPatchScope.restore": ("self",),
    "_patch_lang": ("fn",),
    "TensorHandle": ("data", "dtype", "attr"),
}

_installed = False


def install() -> None:
    """Put the fixed-order arithmetic into Triton's interpreter; a second call does nothing.

    Raises ``RuntimeError`` on a Triton version whose interpreter has not the hooks expected.
    """
    global _installed
    if _installed:
        return
    check_hooks(triton_interpreter)
    builder = triton_interpreter.InterpreterBuilder
    builder.create_dot = _dot
    builder.cast_impl = _cast(builder.cast_impl)
    builder.create_fp_to_fp = _convert(builder.create_fp_to_fp)
    triton_interpreter.ReduceOps.sum = _sum
    executor = triton_interpreter.GridExecutor
    executor._restore_args_dev = _restore(executor._restore_args_dev)
    triton_interpreter._patch_lang = _Patches(triton_interpreter._patch_lang)
    _installed = True


def check_hooks(module: Any) -> None:
    """Raise ``RuntimeError`` unless ``module`` has every hook with the parameters expected."""
    for path, expected in HOOKS.items():
        found: Any = module
        for name in path.split("."):
            found = getattr(found, name, None)
        actual = tuple(inspect.signature(found).parameters) if callable(found) else None
        if actual != expected:
            shape = "is missing" if actual is None else f"takes ({', '.join(actual)})"
            raise RuntimeError(
                f"Triton {triton.__version__}: its interpreter's {path} {shape}, expected "
                f"({', '.join(expected)}), so the fixed-order arithmetic cannot be installed; "
                "use Triton 3.6 to 3.9, or a CUDA device"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings for infinities and NaN: on a GPU they are values like any other."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's nanmax warns past errstate
        warnings.simplefilter("ignore", DeprecationWarning)  # Triton 3.6 turns arrays to scalars
        yield


def _handle(data: fixed.Array, dtype: Any) -> Any:
    return triton_interpreter.TensorHandle(data, dtype.scalar)


def _wide(data: fixed.Array, dtype: Any) -> fixed.Array:
    """The numbers that a handle means: bfloat16 and float8 are kept as integers."""
    scalar = dtype.scalar
    if scalar == tl.bfloat16:
        return fixed.bfloat16_to_float32(data)
    if scalar.name in fixed.FLOAT8:
        return fixed.float8_to_float32(data, scalar.name)
    if scalar.is_floating() and scalar.primitive_bitwidth == 8:
        raise NotImplementedError(f"kvparity's interpreter arithmetic does not know {scalar}")
    return data


def _dot(
    self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
) -> Any:
    if d.data.dtype == np.float16 or d.dtype.scalar == tl.bfloat16:
        raise NotImplementedError("tl.dot accumulates in float32 here, not in a 16-bit float")
    return _handle(fixed.dot(_wide(a.data, a.dtype), _wide(b.data, b.dtype), d.data), d.dtype)


def _cast(original: Callable[..., Any]) -> Callable[..., Any]:
    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        old, new = src.dtype.scalar, dst_type.scalar
        if old == tl.bfloat16 and new == tl.float32:
            return _handle(fixed.bfloat16_to_float32(src.data), new)
        if old == tl.float32 and new == tl.bfloat16:
            return _handle(fixed.float32_to_bfloat16(src.data), new)
        return original(self, src, dst_type)

    return cast_impl


def _convert(original: Callable[..., Any]) -> Callable[..., Any]:
    nearest = (None, triton_interpreter._ir.ROUNDING_MODE.RTNE)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        old, new = src.dtype.scalar, dst_type.scalar
        if rounding_mode not in nearest:
            return original(self, src, dst_type, rounding_mode)
        wide = _wide(src.data, old)
        if new == tl.bfloat16:
            return _handle(fixed.float32_to_bfloat16(wide), new)
        if new.name in fixed.FLOAT8:
            return _handle(fixed.float32_to_float8(wide, new.name), new)
        if new in (tl.float16, tl.float32, tl.float64):
            return _handle(wide.astype(f"float{new.primitive_bitwidth}"), new)
        return original(self, src, dst_type, rounding_mode)

    return create_fp_to_fp


def _sum(self: Any, input: Any) -> Any:
    data = input.handle.data
    axis = self.axis
    if axis is None:
        total = fixed.tree_sum(data.reshape(-1), 0)
        total = total.reshape((1,) * data.ndim) if self.keep_dims else total
    else:
        total = fixed.tree_sum(data, axis)
        total = np.expand_dims(total, axis) if self.keep_dims else total
    return self.to_tensor(total, input.dtype)


def _restore(original: Callable[..., Any]) -> Callable[..., Any]:
    def _restore_args_dev(
        self: Any, args_dev: Any, args_hst: Any, kwargs: Any, kwargs_hst: Any
    ) -> None:
        """Do not copy a CPU tensor's whole storage onto itself.

        Besides the time, such a copy would make every page of a memory-mapped checkpoint private.
        """
        pairs = [*zip(args_dev, args_hst, strict=True)]
        pairs += [(value, kwargs_hst[name]) for name, value in kwargs.items()]
        tensors = [(a, b) for a, b in pairs if hasattr(a, "data_ptr")]
        plain = all(not isinstance(a, tuple) for a, _ in pairs)
        if plain and all(a.data_ptr() == b.data_ptr() for a, b in tensors):
            return
        original(self, args_dev, args_hst, kwargs, kwargs_hst)

    return _restore_args_dev


class _Scope:
    """One application of the patches; ``restore`` is what Triton calls when a kernel ends."""

    def __init__(self, patches: _Patches | None) -> None:
        self.patches = patches

    def restore(self) -> None:
        if self.patches is not None:
            self.patches.remove()


class _Patches:
    """Patches ``triton.language`` once per launch instead of once per device-function call.

    The patches are the same for every kernel, so they are worked out once, for both names under
    which kernels see the language, and afterwards only set and reset.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.changes: list[tuple[Any, str, Any, Any]] = []  # object, name, before, after
        self.active = False

    def __call__(self, fn: Any) -> _Scope:
        if self.active:
            return _Scope(None)
        if self.changes:
            for thing, name, _, after in self.changes:
                setattr(thing, name, after)
        else:
            self.work_out()
        self.active = True
        return _Scope(self)

    def work_out(self) -> None:
        seen = {"tl": tl, "core": tl.core}
        scope = self.original(type("Names", (), {"__globals__": seen}))
        missing = triton_interpreter._MISSING
        self.changes = [
            (thing, name, missing if before is missing else before, getattr(thing, name))
            for thing, name, before in scope._changes
        ]

    def remove(self) -> None:
        for thing, name, before, _ in reversed(self.changes):
            if before is triton_interpreter._MISSING:
                if hasattr(thing, name):
                    delattr(thing, name)
            else:
                setattr(thing, name, before)
        self.active = False
