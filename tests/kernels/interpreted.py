"""Tensors of Triton's CPU interpreter, and what its own functions and ours give of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kvparity_kernels.launch import kernel, launch

# isort: split
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter

from kvparity_kernels import interpreter_fastpath
from kvparity_kernels.tile_functions import TileFunctions

RANDOM = np.random.default_rng(0)
NUMPYS = {
    **{tl.float32: np.float32, tl.float64: np.float64, tl.float16: np.float16, tl.int1: np.bool_},
    **{tl.int32: np.int32, tl.int64: np.int64, tl.int8: np.int8},
}
POINTERS = [tl.pointer_type(tl.float32), tl.pointer_type(tl.int1), tl.pointer_type(tl.int64)]
TYPES = [*NUMPYS, *POINTERS]
SHAPES: list[tuple[int, ...] | None] = [None, (4,), (1, 4), (8, 1), (8, 4), (8, 2), (2, 1, 4)]


@kernel
def weigh(X, Y, N: tl.constexpr):
    lane = tl.arange(0, N)
    x = tl.load(X + lane)
    tl.store(Y + lane, tl.where(x < 0.5, x * 2 - 1, 1 / x))


def operand(dtype: Any, shape: tuple[int, ...] | None = (4,)) -> Any:
    """A tensor of the interpreter: a block, or a scalar where there is no shape."""
    data: NDArray[Any] = RANDOM.integers(0, 9, shape or (1,))
    if not dtype.is_ptr() and dtype.is_floating():
        data = data * 0.3 - 1
    data = data.astype(np.uint64 if dtype.is_ptr() else NUMPYS[dtype])
    kind = dtype if shape is None else tl.block_type(dtype, list(shape))
    return tl.tensor(triton_interpreter.TensorHandle(data, dtype), kind)


def told(function: Callable[..., Any], *operands: Any, **more: Any) -> Any:
    """What a function of the language gives, as far as a kernel can see it, or why it does not."""
    try:
        with np.errstate(all="ignore"):
            it = function(*operands, **more)
    except Exception as error:
        return type(error), str(error)
    data, facts = np.asarray(it.handle.data), {k: str(v) for k, v in vars(it).items()}
    del facts["handle"]
    return facts, str(it.handle.dtype), data.dtype, data.shape, data.tobytes()


def changes() -> dict[tuple[Any, str], tuple[Any, Any]]:
    """(thing, name): what Triton puts there at a launch, and what stands in for it."""
    patches = triton_interpreter._patch_lang
    assert isinstance(patches, interpreter_fastpath.Patches)
    if not patches.changes:
        launch(weigh, (1,), torch.zeros(4), torch.zeros(4), N=4)
    semantic = triton_interpreter.interpreter_semantic
    return {
        (thing, name): (
            lambda *given, of=before, **more: of(*given, **more, _semantic=semantic),
            stand_in(thing, name, before),
        )
        for thing, name, before, _ in patches.changes
        if tl.core.is_builtin(before)
    }


def stand_in(thing: Any, name: str, before: Any) -> Any:
    """Made anew: those of the launches before were made of the code as it was then."""

    def after(*given: Any, member: Any = before) -> None: ...

    operators = TileFunctions(triton_interpreter, triton_interpreter.interpreter_semantic)
    return operators.instead(thing, name, before, after)
