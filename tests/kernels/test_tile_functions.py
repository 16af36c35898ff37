"""The functions that stand in for the interpreter's: the same bits, types, shapes and errors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import interpreted
import numpy as np
import pytest
import torch
from interpreted import NUMPYS, POINTERS, SHAPES, operand, stand_in, told

from kvparity_kernels import launch
from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter

from kvparity_kernels.tile_functions import CASTS, LOADED

Given = tuple[tuple[Any, ...], dict[str, Any]]
WHOLE = {each.name: each for each in (*NUMPYS, tl.bfloat16, tl.uint8, tl.uint16)}
MEMORY = np.arange(64, dtype=np.uint64)
"""What pointers point to."""


def block(name: str, *shape: int) -> Any:
    """Numbers of that type."""
    dtype = WHOLE[name]
    if dtype in NUMPYS:
        return operand(dtype, shape or None)
    data = interpreted.RANDOM.integers(0, 127, shape or (1,)).astype(LOADED.get(name, np.uint16))
    kind = tl.block_type(dtype, list(shape)) if shape else dtype
    return tl.tensor(triton_interpreter.TensorHandle(data, dtype), kind)


def places(name: str, *shape: int) -> Any:
    """Pointers to numbers of that type."""
    kind = tl.pointer_type(WHOLE[name])
    pointers = operand(kind, shape or None)
    pointers.handle.data = np.uint64(MEMORY.ctypes.data) + pointers.handle.data * np.uint64(8)
    return pointers


def constants() -> Iterator[Given]:
    for value in (0, 0.0, -0.0, 3, 0.1, float("nan"), True, None, "x"):
        for dtype in (tl.float32, tl.bfloat16, tl.int64, tl.constexpr(tl.int32), tl.int1, "fp32"):
            for shape in ((), (4,), [tl.constexpr(8), 1], (tl.constexpr(2), 4), 4, (3,), ("x",)):
                yield (shape, value, dtype), {}
    yield ((4,), -float("nan"), tl.float32), {}
    yield ((4,), block("fp32"), tl.float32), {}
    yield ((4,), 1.0), {"dtype": tl.float32}


def ranges() -> Iterator[Given]:
    for start, end in ((0, 8), (8, 16), (0, tl.constexpr(4)), (0, 3), (4, 0), (0, 2**40), (0.0, 8)):
        yield (start, end), {}
    yield (0,), {"end": 8}


def elements(operands: int) -> Iterator[Given]:
    for shape in SHAPES:
        for dtype in (*NUMPYS, *POINTERS[:1]):
            yield tuple(operand(dtype, shape) for _ in range(operands)), {}
    yield tuple(operand(tl.float32, (4, 1)[-n % 2 :]) for n in range(operands)), {}
    yield tuple(block("fp32", *(8, 4)[: 2 - n % 2]) for n in range(operands)), {}
    yield tuple(block("fp32", 8, 1 + 3 * (n % 2)) for n in range(operands)), {}
    yield (0.5,) * operands, {}
    nan = block("fp32", 8, 4)
    nan.handle.data[::2] = np.nan
    yield (nan, *(block("fp32", 8, 4) for _ in range(operands - 1))), {}
    odd = block("fp32", 4)
    odd.handle.data = odd.handle.data.astype(np.float64) / 3
    yield (odd,) * operands, {}


def casts() -> Iterator[Given]:
    for old, new in itertools.product(WHOLE, WHOLE.values()):
        yield (block(old, 4, 2), new), {}
        yield (block(old), tl.constexpr(new)), {}
        yield (block(old, 4), new), {"bitcast": True}
    yield (block("fp32", 4), tl.float16, "rtz"), {}
    yield (operand(POINTERS[0]), POINTERS[0]), {}
    yield (operand(POINTERS[0]), tl.int64), {}
    odd = block("fp32", 4)
    odd.handle.data = odd.handle.data.astype(np.float64) / 3
    yield (odd, tl.float16), {}


def loads() -> Iterator[Given]:
    masks = [None, *(block("int1", *shape) for shape in ((), (4,), (8, 1), (1, 4), (8, 4), (2, 4)))]
    masks += [block("int32", 8, 4), True, tl.constexpr(1)]
    others = (None, 0, 0.0, -0.0, 3, 0.5, tl.constexpr(2), float("nan"), True, "x")
    for mask, other in itertools.product(masks, others):
        for name, shape in itertools.product(("fp32", "int64"), ((), (4,), (8, 1), (8, 4))):
            yield (places(name, *shape), mask, other), {}
    for name in WHOLE:
        for other in (0, 0.0, 0.3, block(name, 4), block("fp32")):
            yield (places(name, 4), block("int1", 4)), {"other": other}
        yield (places(name, 4),), {}
    yield (places("fp32", 4),), {"volatile": True}
    yield (places("fp32", 4), None, None, (), "", "", "", True), {}
    for nan in (float("nan"), -float("nan")):
        yield (places("fp32", 4), block("int1", 4), nan), {}
    yield (block("fp32", 4), block("int1", 4)), {}


def products() -> Iterator[Given]:
    ieee = {"input_precision": "ieee"}
    for a, b in itertools.product(("fp32", "fp16", "bf16", "fp64", "int8", "int32"), repeat=2):
        for start in ("fp32", "fp16"):
            yield (block(a, 4, 8), block(b, 8, 2), block(start, 4, 2)), ieee
    for shapes in (
        ((4, 8), (4, 2), (4, 2)), ((4, 8), (8, 2), (4, 1)), ((4, 8), (8, 2), (1, 2)),
        ((2, 4, 8), (2, 8, 2), (2, 4, 2)), ((8,), (8, 2), (1, 2)), ((4, 8), (8,), (4, 2)),
    ):  # fmt: skip
        yield tuple(block("fp32", *shape) for shape in shapes), ieee
    right = block("fp32", 4, 8), block("fp32", 8, 2), block("fp32", 4, 2)
    for more in ({}, {"input_precision": tl.constexpr("ieee")}, {"input_precision": "tf32"},
                 ieee | {"out_dtype": tl.float32}):  # fmt: skip
        yield right, more
    yield right[:2], ieee


FUNCTIONS = {
    "full": ((tl, "full"), constants),
    "arange": ((tl, "arange"), ranges),
    "exp2": ((tl, "exp2"), lambda: elements(1)),
    "maximum": ((tl, "maximum"), lambda: elements(2)),
    "minimum": ((tl, "minimum"), lambda: elements(2)),
    "fma": ((tl, "fma"), lambda: elements(3)),
    "to": ((tl.core.tensor, "to"), casts),
    "load": ((tl, "load"), loads),
    "dot": ((tl, "dot"), products),
}


@pytest.fixture(scope="module")
def changes() -> dict[tuple[Any, str], tuple[Any, Any]]:
    return interpreted.changes()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_what_tritons_gives(name: str, changes: Any) -> None:
    place, given = FUNCTIONS[name]
    theirs, ours = changes[place]
    seen = set()
    for operands, more in given():
        expected = told(theirs, *operands, **more)
        for _ in range(2):  # constants are kept
            assert told(ours, *operands, **more) == expected, (operands, more)
        seen.add(len(expected) > 2)
    assert seen == {True, False}  # there was what fits, and what does not


def answered() -> Iterator[tuple[str, Given]]:
    """What most kernels ask for."""
    yield from (("exp2", ((block("fp32", 4, 2),), {})), ("fma", ((block("fp32", 4, 2),) * 3, {})))
    yield from ((name, ((block("fp32", 4),) * 2, {})) for name in ("maximum", "minimum"))
    for old, new in (*CASTS, ("fp32", "fp32")):
        yield "to", ((block(old, 4), WHOLE[new]), {})
        yield "to", ((block(old), tl.constexpr(WHOLE[new])), {})
    for name in LOADED:
        yield "load", ((places(name, 4),), {})
        yield "load", ((places(name),), {})
        yield "load", ((places(name, 8, 1), block("int1", 1, 4)), {})
    for name in ("fp32", "fp16", "bf16"):
        given = block(name, 4, 8), block(name, 8, 2), block("fp32", 4, 2)
        yield "dot", (given, {"input_precision": tl.constexpr("ieee")})


def test_what_most_kernels_ask_for_needs_no_rules_of_triton() -> None:
    def rules(*given: Any, _semantic: Any, **more: Any) -> None:
        raise AssertionError("Triton's own function is asked")

    for name, (operands, more) in answered():
        (thing, called), _ = FUNCTIONS[name]
        stand_in(thing, called, tl.core.builtin(rules))(*operands, **more)


@kernel
def add_one(X, Y):
    source = tl.make_tensor_descriptor(X, shape=[2, 8], strides=[8, 1], block_shape=[2, 4])
    target = tl.make_tensor_descriptor(Y, shape=[2, 8], strides=[8, 1], block_shape=[2, 4])
    target.store([0, 0], source.load([0, 4]) + 1)


def test_a_descriptor_loads_by_itself() -> None:
    x, y = torch.arange(16.0).reshape(2, 8), torch.zeros(2, 8)
    launch.launch(add_one, (1,), x, y)
    assert torch.equal(y[:, :4], x[:, 4:] + 1)


def test_constants_are_made_once_and_written_by_nobody(changes: Any) -> None:
    _, full = changes[tl, "full"]
    first, again = (full((4,), 1.5, tl.float32) for _ in range(2))
    assert first is not again
    assert first.handle is not again.handle  # what is said of one is not said of the other
    assert first.handle.data is again.handle.data
    with pytest.raises(ValueError, match="read-only"):
        first.handle.data[0] = 2


def test_a_product_of_another_precision_is_left_to_triton() -> None:
    """Which rounds to it where a device is asked for."""
    asked = []

    def theirs(*given: Any, _semantic: Any, **more: Any) -> None:
        asked.append(more)

    dot = stand_in(tl, "dot", tl.core.builtin(theirs))
    given = block("fp32", 4, 8), block("fp32", 8, 2), block("fp32", 4, 2)
    for precision in ("tf32", "ieee", "bf16x3"):
        dot(*given, input_precision=precision)
    assert [each["input_precision"] for each in asked] == ["tf32", "bf16x3"]
