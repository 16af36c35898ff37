from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kvparity.core.bits import bits, differing, pattern, ulps

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def from_bits(word: int, dtype: torch.dtype) -> Tensor:
    """A one-element tensor with these bits."""
    size = torch.empty((), dtype=dtype).element_size()
    signed = word - 2 ** (8 * size) if word >= 2 ** (8 * size - 1) else word
    return torch.tensor([signed], dtype=WORDS[size]).view(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_both_zeros_differ_and_equal_zeros_do_not(dtype: torch.dtype) -> None:
    zero, minus = torch.zeros(1, dtype=dtype), -torch.zeros(1, dtype=dtype)
    assert bool((zero == minus).all())  # what a comparison of values would say
    assert bool(differing(zero, minus).all())
    assert not bool(differing(minus, minus.clone()).any())
    assert int(ulps(zero, minus)) == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_is_compared_by_its_payload(dtype: torch.dtype) -> None:
    nan = torch.full((1,), torch.nan, dtype=dtype)
    other = (bits(nan) + 1).view(dtype)
    assert bool(torch.isnan(other).all())
    assert not bool(differing(nan, nan.clone()).any())
    assert bool(differing(nan, other).all())


@pytest.mark.parametrize(("dtype", "numpy"), [(torch.float32, np.float32), (torch.float64, float)])
def test_ulps_count_the_steps_of_nextafter(dtype: torch.dtype, numpy: type) -> None:
    tiny = float(np.finfo(numpy).smallest_subnormal)
    for start in (1.0, -1.0, 0.9999999, 1024.0, tiny, 3 * tiny, -2 * tiny):
        value = numpy(start)
        for steps in range(1, 8):
            value = np.nextafter(value, numpy(np.inf))
            apart = ulps(
                torch.tensor([start], dtype=dtype), torch.tensor([float(value)], dtype=dtype)
            )
            # nextafter knows one zero; the bits have two, so passing it is one step more.
            crossed = start < 0 and (value > 0 or (value == 0 and not np.signbit(value)))
            assert int(apart) == steps + crossed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ulps_order_every_half(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    finite = every[torch.isfinite(every)]
    sign = torch.where(torch.signbit(finite), -1.0, 1.0).double()  # orders the two zeros
    by_value = torch.argsort(finite.double() + 1e-60 * sign)
    ordered = finite[by_value]
    assert bool((ulps(ordered[1:], ordered[:-1]) == 1).all())
    assert int(ulps(ordered[:1], ordered[-1:])) == len(finite) - 1


def test_ulps_of_float64_do_not_wrap() -> None:
    top = torch.tensor([torch.finfo(torch.float64).max], dtype=torch.float64)
    assert int(ulps(top, -top)) == torch.iinfo(torch.int64).max
    assert int(ulps(top, top)) == 0


@pytest.mark.parametrize(
    ("dtype", "one"),
    [
        (torch.float64, "0x3ff0000000000000"),
        (torch.float32, "0x3f800000"),
        (torch.float16, "0x3c00"),
        (torch.bfloat16, "0x3f80"),
    ],
)
def test_patterns_show_all_digits(dtype: torch.dtype, one: str) -> None:
    assert pattern(torch.ones((), dtype=dtype)) == one
    assert pattern(torch.zeros(1, dtype=dtype)) == "0x" + "0" * (len(one) - 2)
    assert pattern(-torch.zeros(1, dtype=dtype)) == "0x8" + "0" * (len(one) - 3)
    assert pattern(from_bits(0x7FC1, torch.bfloat16)) == "0x7fc1"


def test_bits_of_a_strided_tensor_are_its_own() -> None:
    x = torch.arange(12, dtype=torch.float32).reshape(3, 4).T
    assert torch.equal(bits(x), bits(x.clone(memory_format=torch.contiguous_format)))


def test_only_floats_of_one_kind_can_be_compared() -> None:
    one = torch.ones(2)
    with pytest.raises(TypeError, match=r"no bit view for torch\.int32"):
        bits(torch.ones(2, dtype=torch.int32))
    with pytest.raises(TypeError, match=r"float32 .* against torch\.float64"):
        differing(one, one.double())
    with pytest.raises(TypeError, match=r"\(2,\) against torch\.float32 \(1,\)"):
        differing(one, one[:1])
