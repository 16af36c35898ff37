"""The operators that stand in for the interpreter's: the same bits, types, shapes and errors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import interpreted
import numpy as np
import pytest
import torch
from interpreted import NUMPYS, POINTERS, SHAPES, TYPES, operand, stand_in, told, weigh

from kvparity_kernels.launch import launch

# isort: split
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter

from kvparity_kernels import operators
from kvparity_kernels.operators import BINARY, Operators

NUMBERS = [
    0,
    1,
    -3,
    2**31,
    2**40,
    0.0,
    -0.0,
    0.1,
    1e-40,
    1e300,
    float("inf"),
    float("nan"),
    True,
    "x",
]


@pytest.fixture(scope="module")
def changes() -> dict[tuple[Any, str], tuple[Any, Any]]:
    return interpreted.changes()


NAMES = [f"__{name}__" for name in BINARY] + ["__radd__", "__rsub__", "__rmul__", "__rtruediv__"]
NAMES += ["__rfloordiv__", "__rmod__", "__rand__", "__ror__"]


def pairs() -> Iterator[tuple[Any, Any]]:
    """All types beside each other, all shapes beside each other, and numbers of Python."""
    for a, b in itertools.product(TYPES, repeat=2):
        for left, right in (((8, 1), (1, 4)), (None, None), ((4,), None)):
            yield operand(a, left), operand(b, right)
    for left, right in itertools.product(SHAPES, repeat=2):
        for a, b in ((tl.float32, tl.float32), (tl.int32, tl.int64), (POINTERS[0], tl.int32)):
            yield operand(a, left), operand(b, right)
    for dtype, number in itertools.product(TYPES, NUMBERS):
        yield operand(dtype), number
        yield operand(dtype, None), tl.constexpr(number)


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_gives_what_tritons_gives(name: str, changes: Any) -> None:
    theirs, ours = changes[tl.core.tensor, name]
    seen = set()
    for pair in pairs():
        expected = told(theirs, *pair)
        assert told(ours, *pair) == expected, (name, *pair)
        seen.add(len(expected) > 2)
    assert seen == {True, False}  # there were pairs that fit, and pairs that do not


def answered() -> Iterator[tuple[Any, str, tuple[Any, ...]]]:
    """What most kernels ask for, of each operator: by thing and name, its operands."""
    for name in NAMES:
        kind, reflected = name.strip("_"), name not in {f"__{each}__" for each in BINARY}
        types = BINARY[kind[1:] if reflected else kind][1]
        for dtype in (each for each in NUMPYS if each.name in types):
            if not reflected:
                yield tl.core.tensor, name, (operand(dtype, (8, 1)), operand(dtype, (1, 4)))
            if dtype.name in operators.NUMBERS:
                yield tl.core.tensor, name, (operand(dtype), 3)
                yield tl.core.tensor, name, (operand(dtype, None), tl.constexpr(3))
    yield tl.core.tensor, "__add__", (operand(POINTERS[0], None), operand(tl.int32))
    yield tl.core.tensor, "__mul__", (operand(tl.int32), operand(tl.int64, None))
    x, whole = operand(tl.float32, (8, 4)), slice(None)
    for slices in ((whole, whole), (whole, None, whole), (None, whole)):
        yield tl.core.tensor, "__getitem__", (x, slices)
    for pair in ((x, x), (x, 0.5), (tl.constexpr(1), x)):
        yield tl, "where", (operand(tl.int1, (8, 1)), *pair)


def test_what_most_kernels_ask_for_needs_no_rules_of_triton() -> None:
    def rules(*given: Any, _semantic: Any) -> None:
        raise AssertionError("Triton's own function is asked")

    for thing, name, given in answered():
        with np.errstate(all="ignore"):
            stand_in(thing, name, tl.core.builtin(rules))(*given)


def test_a_selection_is_tritons(changes: Any) -> None:
    theirs, ours = changes[tl, "where"]
    conditions = [operand(tl.int1, shape) for shape in SHAPES]
    given = [(c, *pair) for c in conditions[:3] for pair in pairs()]
    given += [(operand(kind), *pair) for kind in TYPES for pair in itertools.islice(pairs(), 8)]
    given += [(c, *pair) for c in (True, tl.constexpr(1), None) for _, *pair in given[:900:300]]
    given += [(conditions[1], a, b) for a, b in itertools.product(NUMBERS, repeat=2)]
    given += [(c, n, it) for c in conditions for it, n in itertools.islice(pairs(), 400, None)]
    given += [(c, *pair[::-1]) for c in conditions for pair in itertools.islice(pairs(), 300, 340)]
    for each in given:
        assert told(ours, *each) == told(theirs, *each), each


def test_axes_are_added_as_triton_adds_them(changes: Any) -> None:
    theirs, ours = changes[tl.core.tensor, "__getitem__"]
    whole = slice(None)
    indices = [None, whole, (None, whole), (whole, None), (whole, whole), (None,), (whole,)]
    indices += [(whole, None, whole), (whole, whole, None), (None, None), (0, whole), (slice(1),)]
    indices += [(operand(tl.int32), whole), (tl.constexpr(0), whole)]
    for dtype, shape, index in itertools.product(TYPES, SHAPES, indices):
        it = operand(dtype, shape)
        assert told(ours, it, index) == told(theirs, it, index), (it, index)


def test_what_a_comparison_gives_can_be_used_further(changes: Any) -> None:
    """The handle of a truth value says the type of what was compared: so it does here."""
    (less, fast_less), (both, fast_both) = (
        changes[tl.core.tensor, name] for name in ("__lt__", "__and__")
    )
    x, y = operand(tl.float32, (8, 1)), operand(tl.float32, (1, 4))
    made = fast_less(x, y)
    assert told(fast_both, made, made) == told(both, less(x, y), less(x, y))


def test_a_launch_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    made = Operators._made
    monkeypatch.setattr(Operators, "_made", lambda *given: (asked.append(given), made(*given))[1])
    x, y = torch.tensor([0.25, 0.5, 4.0, -1.0]), torch.zeros(4)
    launch(weigh, (1,), x, y, N=4)
    assert y.tolist() == [-0.5, 2.0, 0.25, -3.0]
    assert len(asked) >= 6  # two pointers, a comparison, two products or quotients, a selection


def test_the_control_another_function_is_seen(
    changes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    semantic = triton_interpreter.interpreter_semantic
    wrong = Operators(triton_interpreter, semantic)
    theirs, _ = changes[tl.core.tensor, "__sub__"]
    ours = wrong._binary(theirs, np.add, operators.NUMBERS, False, reflected=False)
    pair = operand(tl.float32, (8, 4)), operand(tl.float32, (8, 4))
    assert told(ours, *pair) != told(theirs, *pair)


@pytest.mark.parametrize(
    ("value", "name", "known"),
    [
        (7, "int32", True),
        (-(2**31), "int64", True),
        (2**31, "int64", False),
        (-(2**31) - 1, "fp64", False),
        (3, "fp32", True),
        (True, "int32", False),
        (1, "int1", False),
        (0.5, "fp64", False),  # Triton 3.6 rounds it to float32 first
        (0.5, "fp32", True),
        (0.0, "fp32", True),
        (-0.0, "fp32", False),  # which Triton 3.6 takes for 0
        (-(2.0**-126), "fp32", True),
        (-(2.0**-127), "fp32", False),  # which Triton 3.6 takes for a float64
        ((2 - 2.0**-23) * 2.0**127, "fp32", True),
        ((2 - 2.0**-24) * 2.0**127, "fp32", False),
        (2.0**128, "fp32", False),
        (float("-inf"), "fp32", True),
        (float("nan"), "fp32", False),
    ],
)
def test_numbers_whose_type_is_the_same_in_every_triton(
    value: float, name: str, known: bool
) -> None:
    assert (operators.number(value, name) is not None) == known


def test_data_of_another_dtype_than_its_type_are_left_to_triton(changes: Any) -> None:
    """On either side: what is computed of them would not be of the type that it is called."""
    flag = operand(tl.int1)
    for dtype, wide in ((tl.float32, np.float64), (tl.int32, np.int64)):
        odd = operand(dtype)
        odd.handle.data = odd.handle.data.astype(wide) + 2**40
        for pair in ((odd, operand(dtype)), (operand(dtype), odd)):
            for name in ("__add__", "__mul__", "__lt__"):
                theirs, ours = changes[tl.core.tensor, name]
                assert told(ours, *pair) == told(theirs, *pair), name
            theirs, ours = changes[tl, "where"]
            assert told(ours, flag, *pair) == told(theirs, flag, *pair)


def test_what_does_more_than_pass_a_builtin_on_is_left_as_it_is() -> None:
    """As another Triton may put there: nothing stands in for it."""
    stand_ins = Operators(triton_interpreter, triton_interpreter.interpreter_semantic)
    before = tl.core.tensor.__add__

    def plain(*given: Any) -> Any: ...

    def of_another(*given: Any, member: Any = tl.core.tensor.__sub__) -> Any: ...

    def no_builtin(*given: Any, member: Any = len) -> Any: ...

    def keyword(*given: Any, member: Any = before) -> Any: ...

    for after in (plain, of_another):
        assert stand_ins.instead(tl.core.tensor, "__add__", before, after) is after
    assert stand_ins.instead(tl.core.tensor, "__add__", len, no_builtin) is no_builtin
    assert stand_ins.instead(tl.core.tensor, "__add__", before, keyword) is not keyword
