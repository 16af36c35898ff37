"""What makes the interpreter quicker gives what Triton gives."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

# isort: split
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter

from kvparity_kernels import interpreter_fastpath
from kvparity_kernels.relied import triton as triton_relied

RANDOM = np.random.default_rng(0)
NUMPYS = {
    **{tl.float32: np.float32, tl.float16: np.float16, tl.int1: np.bool_},
    **{tl.int32: np.int32, tl.int64: np.int64, tl.int8: np.int8},
}
SHAPES: list[tuple[int, ...] | None] = [
    None,
    (4,),
    (1, 4),
    (8, 1),
    (8, 4),
    (1, 1),
    (2, 1, 4),
    (8, 2),
]


def operand(dtype: Any, shape: tuple[int, ...] | None) -> Any:
    """A tensor of the interpreter: a block, or a scalar where there is no shape."""
    numbers = np.uint64 if dtype.is_ptr() else NUMPYS[dtype]
    data = RANDOM.integers(0, 9, shape or (1,)).astype(numbers)
    kind = dtype if shape is None else tl.block_type(dtype, list(shape))
    return tl.tensor(triton_interpreter.TensorHandle(data, dtype), kind)


def told(function: Any, *operands: Any) -> Any:
    """What a semantic function returns, as far as a kernel can see it, or why it does not."""
    try:
        results = function(triton_interpreter.interpreter_semantic, *operands)
    except Exception as error:
        return type(error), str(error)
    handles = [(it.handle.data, it.handle.dtype) for it in results]
    return [
        (str(it.type), str(dtype), data.dtype, data.shape, data.tobytes())
        for it, (data, dtype) in zip(results, handles, strict=True)
    ]


def operands() -> Iterator[tuple[Any, Any]]:
    """Pairs of tensors of every shape and type, of pointers too."""
    pointers = [tl.pointer_type(tl.float32), tl.pointer_type(tl.int32)]
    for a, b in itertools.product([*NUMPYS, *pointers], repeat=2):
        for left, right in itertools.product(SHAPES, repeat=2):
            yield operand(a, left), operand(b, right)


def original(name: str) -> Callable[..., Any]:
    hook = getattr(triton_interpreter.TritonSemantic, name)
    assert hook.__module__ == "kvparity_kernels.interpreter_fastpath"
    found: Callable[..., Any] = inspect.getclosurevars(hook).nonlocals["original"]
    return found


def test_quick_shapes_are_those_of_triton() -> None:
    name = "broadcast_impl_value"
    seen = set()
    for pair in operands():
        expected = told(original(name), *pair)
        assert told(getattr(triton_interpreter.TritonSemantic, name), *pair) == expected, pair
        seen.add(type(expected))
    assert seen == {list, tuple}  # there were pairs that fit, and pairs that do not


NUMBERS = [0, 1, -3, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63, 0.0, -0.0, 0.1, 1e-45, 1e300, True]


def test_quick_types_are_those_of_triton() -> None:
    name = "binary_op_type_checking_impl"
    pairs = list(operands())
    for dtype, number in itertools.product([*NUMPYS, tl.pointer_type(tl.float32)], NUMBERS):
        for shape in ((8, 4), None):
            tensor = operand(dtype, shape)
            pairs += [(tensor, number), (number, tensor)]
    seen = set()
    for pair in pairs:
        for flags in ((), (True, True), (True, False), (False, False, True, True), (0, 0, False)):
            expected = told(original(name), *pair, *flags)
            found = told(getattr(triton_interpreter.TritonSemantic, name), *pair, *flags)
            assert found == expected, (pair, flags)
            seen.add(expected[0] if isinstance(expected, tuple) else list)
    assert len(seen) > 3  # what fits, and errors of several kinds


def test_assertions_about_overflow_stay_where_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    semantic = triton_interpreter.interpreter_semantic
    large = tl.tensor(
        triton_interpreter.TensorHandle(np.array([2**31 - 1], dtype=np.int32), tl.int32), tl.int32
    )
    total = semantic.add(large, large, True)
    assert total.handle.data.item() == -2  # as on a device without assertions
    options = dataclasses.replace(semantic.builder.options, debug=True)
    monkeypatch.setattr(semantic.builder, "options", options)
    with pytest.raises(AssertionError, match="overflow"):
        semantic.add(large, large, True)


def test_all_quick_hooks_fit_this_version() -> None:
    # They are optional; this says when a new Triton has left one behind.
    assert triton_relied.quick_hooks().keys() == triton_relied.QUICK.keys()
    for name in ("_np_dtype", "_restore", "_broadcast", "_overflow", "_operands"):
        assert hasattr(interpreter_fastpath, name)
    hooked = [
        triton_interpreter._get_np_dtype,
        triton_interpreter.GridExecutor._restore_args_dev,
        triton_interpreter.TritonSemantic.broadcast_impl_value,
        triton_interpreter.TritonSemantic.binary_op_sanitize_overflow_impl,
        triton_interpreter.TritonSemantic.binary_op_type_checking_impl,
        tl.core.tensor.__init__,
        tl.core.block_type.__init__,
    ]
    assert {hook.__module__ for hook in hooked} == {"kvparity_kernels.interpreter_fastpath"}
