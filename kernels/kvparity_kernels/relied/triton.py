"""What kvparity relies on in Triton beyond its documentation: the CPU interpreter's inside.

A hook that decides values (``HOOKS``) must be there with the parameters expected, or nothing runs.
One that only makes the interpreter faster (``QUICK``) is taken where it fits.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from kvparity_kernels.relied import ReliedItem, gone, needed, parameters

_ARITHMETIC = "put its fixed-order arithmetic into the interpreter"
_AUDIT = "compile kernels without a GPU (kvparity audit)"
_TILES = "tell tiles that a device refuses from other errors"


def _hook(path: str, *takes: str) -> ReliedItem:
    return ReliedItem("triton", (f"triton.runtime.interpreter:{path}",), _ARITHMETIC, takes)


HOOKS = (
    _hook(
        "InterpreterBuilder.create_dot",
        "self",
        "a",
        "b",
        "d",
        "input_precision",
        "max_num_imprecise_acc",
    ),
    _hook("InterpreterBuilder.cast_impl", "self", "src", "dst_type"),
    _hook("InterpreterBuilder.create_fp_to_fp", "self", "src", "dst_type", "rounding_mode"),
    _hook("InterpreterBuilder.create_fma", "self", "x", "y", "z"),
    _hook("InterpreterBuilder.binary_op", "self", "lhs", "rhs", "op"),
    _hook("InterpreterBuilder.unary_op", "self", "arg", "op"),
    _hook("ReduceOps.sum", "self", "input"),
    _hook("ReduceOps.min_max", "self", "input", "val_reduce_op", "idx_reduce_op"),
    _hook("ScanOps.cumsum", "self", "input"),
    _hook("ScanOps.cumprod", "self", "input"),
    _hook("TensorHandle", "data", "dtype", "attr"),
)
NEAREST = ReliedItem("triton", ("triton.runtime.interpreter:_ir.ROUNDING_MODE.RTNE",), _ARITHMETIC)
IEEE = ReliedItem("triton", ("triton.runtime.interpreter:_ir.INPUT_PRECISION.IEEE",), _ARITHMETIC)
LOAD = ReliedItem("triton", ("triton.runtime.interpreter:_interpreter.load",), _ARITHMETIC)
UNSET = ReliedItem("triton", ("triton.runtime.interpreter:_MISSING",), _ARITHMETIC)
SEMANTIC = ReliedItem("triton", ("triton.runtime.interpreter:interpreter_semantic",), _ARITHMETIC)
SOURCE = ReliedItem("triton", ("triton.compiler:ASTSource",), _AUDIT)
TARGET = ReliedItem("triton", ("triton.backends.compiler:GPUTarget",), _AUDIT)
PTXAS = ReliedItem("triton", ("triton.backends.nvidia.compiler:get_ptxas",), _AUDIT)
NVDISASM = ReliedItem("triton", ("triton:knobs.nvidia.nvdisasm",), _AUDIT)
REFUSALS = (
    ReliedItem("triton", ("triton.compiler.errors:CompilationError",), _TILES),
    ReliedItem("triton", ("triton.runtime.errors:OutOfResources",), _TILES),
    ReliedItem("triton", ("triton.runtime.errors:PTXASError",), _TILES),
)

QUICK: dict[str, tuple[str, ...]] = {
    "_patch_lang": ("fn",),
    "_LangPatchScope.restore": ("self",),
    "GridExecutor._restore_args_dev": ("self", "args_dev", "args_hst", "kwargs", "kwargs_hst"),
    "_get_np_dtype": ("tt_dtype",),
    "tl.core.block_type.__init__": ("self", "element_ty", "shape"),
    "tl.core.tensor.__init__": ("self", "handle", "type"),
    "TritonSemantic.broadcast_impl_value": ("self", "lhs", "rhs"),
    "TritonSemantic.binary_op_sanitize_overflow_impl": ("self", "lhs", "rhs", "binary_op"),
    "TritonSemantic.binary_op_type_checking_impl": (
        "self",
        "lhs",
        "rhs",
        "allow_lhs_ptr",
        "allow_rhs_ptr",
        "arithmetic_check",
        "div_or_mod",
    ),
}
"""Path in the interpreter -> the parameters of what the fast path can stand in for."""

ELEMENTWISE = {
    "exp2": ("create_exp2", 1),
    "fma": ("create_fma", 3),
    "maximum": ("create_maxnumf", 2),
    "minimum": ("create_minnumf", 2),
}
"""What the language has, by what its builder makes it of float32, of how many operands."""


@cache
def interpreter() -> ModuleType:
    """Triton's CPU interpreter.

    Raises:
        GoneError: Triton has none.
    """
    with needed("triton", "`triton.runtime.interpreter`", _ARITHMETIC):
        return import_module("triton.runtime.interpreter")


def check_hooks() -> None:
    """Raise ``GoneError`` unless the interpreter has every hook with the parameters expected."""
    for hook in HOOKS:
        hook.get()
    NEAREST.get()


def quick_hooks() -> dict[str, Any]:
    """Those of ``QUICK`` that this Triton has with the parameters expected, by path."""
    found = {}
    for path, takes in QUICK.items():
        hook = _hook(path).find()
        if hook is not None and parameters(hook) == takes:
            found[path] = hook
    return found


def has_fma() -> bool:
    """Whether the interpreter's own fma rounds once; Triton 3.9's does, and 3.6 rounds twice."""
    return _hook("_interpreter.fma_fp32").find() is not None


def scaled_dot() -> Any:
    """What the interpreter computes ``tl.dot_scaled`` by, None where it cannot."""
    return _hook("InterpreterBuilder.create_dot_scaled").find()


def import_early() -> None:
    """Import now what Triton imports in the middle of its first launch.

    There ``triton.language`` is patched for the interpreter, and Gluon would wrap the patches for
    good; on Python 3.10 it cannot (it asks for the signature of ``print``, which stands in for
    ``static_print``).
    """
    with suppress(ImportError):  # where it is gone, no launch imports it
        import_module("triton.experimental.gluon")


def changes(scope: Any) -> list[tuple[Any, str, Any]]:
    """What one application of Triton's patches changed: object, name, value before.

    Raises:
        GoneError: it keeps no list of it.
    """
    try:
        return list(scope._changes)
    except AttributeError:
        what = f"`_changes` of {type(scope).__name__}"
        raise gone("triton", what, "patch its language once for each launch") from None


def set_quick(path: str, function: Any) -> None:
    """Put ``function`` into the interpreter at a path of ``QUICK``."""
    place: Any = interpreter()
    *inner, last = path.split(".")
    for name in inner:
        place = getattr(place, name)
    setattr(place, last, function)
