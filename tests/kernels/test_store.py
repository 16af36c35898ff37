"""What a cache stores: which formats are exact, what each rounds to, what becomes of odd values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kvparity_kernels import fixed_arithmetic
from kvparity_kernels.store import StoreFormat, decode, encode, poisoned, round_trip

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
FORMATS = (
    *("float32", "float16", "bfloat16", "fp8_e4m3(tensor)", "fp8_e4m3(head)"),
    *("fp8_e5m2(tensor)", "fp8_e5m2(head)", "int8(16)", "int8(4)", "int4(8)"),
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LIMITS = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0, "int8": 127, "int4": 7}
HALF_STEP = {"fp8_e4m3": 2.0**-4, "fp8_e5m2": 2.0**-3}  # relative, of normal numbers


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(INTEGERS[x.element_size()])


def same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(bits(a), bits(b))


def draw(n: int, dtype: torch.dtype = torch.float32, heads: int = 3, dim: int = 16) -> Tensor:
    return torch.randn(n, heads, dim, generator=torch.Generator().manual_seed(n)).to(dtype)


def scale_of(format: StoreFormat, heads: int = 3) -> Tensor | None:
    """Scales that are no powers of two and, where there is one per head, all different."""
    if not format.static:
        return None
    return torch.tensor([0.011 * (1 + h * format.per_head) for h in range(heads)])


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_is_exact_and_the_rest_is_not(text: str, dtype: torch.dtype) -> None:
    format = StoreFormat.parse(text)
    x = draw(40, dtype)
    x[7, 1, 2] = torch.finfo(dtype).tiny  # beyond float16 where it is not float16's own
    back = round_trip(x, format, scale_of(format), dtype)
    assert back.dtype == dtype
    assert same(back, x) == format.exact_for(dtype)
    if format.exact_for(dtype):
        odd = torch.tensor([0.0, -0.0, math.inf, -math.inf, torch.finfo(dtype).tiny / 2]).to(dtype)
        odd = odd.repeat(3)[None, :, None].expand(1, 15, 16)
        assert same(round_trip(odd, format, None, dtype), odd)


def test_which_formats_are_exact() -> None:
    assert not any(StoreFormat.parse(text).exact_for(torch.float64) for text in FORMATS)
    exact = {
        (text, dtype)
        for text in FORMATS
        for dtype in DTYPES
        if StoreFormat.parse(text).exact_for(dtype)
    }
    assert exact == {("float32", dtype) for dtype in DTYPES} | {
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
    }


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
def test_fp8_rounds_once_and_saturates(name: str) -> None:
    format = StoreFormat(name)
    limit, kind = LIMITS[name], {"fp8_e4m3": "fp8e4nv", "fp8_e5m2": "fp8e5"}[name]
    values = np.unique(fixed_arithmetic.FLOAT8[kind][0][: fixed_arithmetic.FLOAT8[kind][1] + 1])
    middles = (values[1:] + values[:-1]) / 2  # ties, and one step to both sides of each
    near = np.concatenate([values, middles, np.nextafter(middles, 0), np.nextafter(middles, 9e9)])
    odd = [limit * 1.06, 1e30, math.inf, 1e-30, 0.0]
    numbers = np.concatenate([near, odd, -near, np.negative(odd), [math.nan]]).astype(np.float32)
    codes, scales = encode(torch.from_numpy(numbers)[:, None, None], format)
    assert scales is None
    # The other implementation: by search in the table of all values, in numpy.
    expected = torch.from_numpy(fixed_arithmetic.float32_to_float8(numbers, kind))
    assert torch.equal(codes.view(torch.uint8).flatten(), expected)
    back = decode(codes, None, format, torch.float32).flatten()
    assert back[:-1].abs().max() == limit
    assert back[-1].isnan()


@pytest.mark.parametrize("text", ["fp8_e4m3(head)", "fp8_e5m2(tensor)"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fp8_is_a_quotient_and_a_product(text: str, dtype: torch.dtype) -> None:
    format = StoreFormat.parse(text)
    x, scale = draw(20, dtype), scale_of(format)
    assert scale is not None
    codes, _ = encode(x, format, scale)
    steps = scale.numpy()[None, :, None]
    kind = {"fp8_e4m3": "fp8e4nv", "fp8_e5m2": "fp8e5"}[format.name]
    theirs = fixed_arithmetic.float32_to_float8(x.float().numpy() / steps, kind)
    assert torch.equal(codes.view(torch.uint8), torch.from_numpy(theirs))
    product = torch.from_numpy(fixed_arithmetic.float8_to_float32(theirs, kind) * steps)
    assert product.dtype == torch.float32
    assert same(decode(codes, scale, format, dtype), product.to(dtype))
    # Half a step of the format, of numbers in its normal range.
    normal = (x.float() / scale[:, None]).abs() > 2.0**-6
    error = (product - x.float()).abs()
    assert (error <= HALF_STEP[format.name] * (1 + 1e-6) * x.float().abs())[normal].all()


@pytest.mark.parametrize("text", ["int8(16)", "int8(4)", "int4(8)", "int4(16)"])
def test_integers_have_a_scale_per_token_head_and_group(text: str) -> None:
    format = StoreFormat.parse(text)
    x = draw(20) * torch.logspace(-3, 3, 20)[:, None, None]
    codes, scales = encode(x, format)
    assert scales is not None
    groups = 16 // format.group
    assert scales.shape == (20, 3, groups)
    grouped = x.numpy().reshape(20, 3, groups, format.group)
    limit = np.float32(LIMITS[format.name])
    steps = np.abs(grouped).max(-1) / limit
    assert np.array_equal(scales.numpy().view(np.int32), steps.view(np.int32))
    numbers = np.clip(np.rint(grouped / steps[..., None]), -limit, limit)
    assert np.abs(numbers).max() == limit
    back = (numbers.astype(np.float32) * steps[..., None]).reshape(20, 3, 16)
    assert same(decode(codes, scales, format, torch.float32), torch.from_numpy(back + 0.0))
    # Half a step, and the roundings of quotient, product and scale.
    bound = np.repeat(steps, format.group, -1) * (0.5 + 4 * limit * 2.0**-24)
    assert (np.abs(back - x.numpy()) <= bound).all()


def test_two_int4_share_a_byte() -> None:
    numbers = torch.tensor([1.0, -1.0, 7.0, -7.0, 0.0, 3.0, -2.0, -0.0])[None, None]
    codes, scales = encode(numbers, StoreFormat("int4", group=8))
    assert codes.dtype == torch.uint8
    assert codes.flatten().tolist() == [0xF1, 0x97, 0x30, 0x0E]  # low nibble = even column
    assert scales is not None
    assert scales.tolist() == [[[1.0]]]
    assert same(decode(codes, scales, StoreFormat("int4", group=8), torch.float32), numbers + 0.0)


def test_an_int4_code_of_minus_eight_is_read() -> None:
    one = torch.ones(1, 1, 1)
    format = StoreFormat("int4", group=2)
    codes = torch.full((1, 1, 1), 0x78, dtype=torch.uint8)
    assert decode(codes, one, format, torch.float32).flatten().tolist() == [-8.0, 7.0]


def test_odd_values_of_integers() -> None:
    tiny, format = 2.0**-149, StoreFormat("int8", group=4)
    x = torch.zeros(6, 1, 8)
    x[1, 0, :2] = torch.tensor([-0.0, tiny])
    x[2, 0, 1], x[3, 0, 1], x[4, 0, 6] = math.nan, math.inf, -math.inf
    x[5, 0, 0] = torch.finfo(torch.float32).max
    codes, scales = encode(x, format)
    assert scales is not None
    back = decode(codes, scales, format, torch.float32)
    assert not bits(back[:2]).any()  # +0
    for token, group in ((2, 0), (3, 0), (4, 1)):  # the whole group, and no other
        bad = torch.zeros(8, dtype=torch.bool)
        bad[group * 4 : group * 4 + 4] = True
        assert torch.equal(back[token, 0].isnan(), bad)
        assert not bits(back[token, 0][~bad]).any()
    assert codes[5, 0, 0] == 127
    assert not codes[:2].any()  # -127 times a scale of 0 would be -0
    assert not codes[2].any()


def test_odd_values_of_floats() -> None:
    x = torch.tensor([math.nan, math.inf, 1e30, -0.0, -1e-30])[:, None, None]
    half = round_trip(x, StoreFormat("float16"), None, torch.float32).flatten()
    assert half[0].isnan()
    assert half[1:].tolist() == [math.inf, math.inf, -0.0, -0.0]
    assert half[3:].signbit().all()
    brain = round_trip(x, StoreFormat("bfloat16"), None, torch.float32).flatten()
    assert brain[2].item() == float(torch.tensor(1e30).bfloat16())


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_depend_on_neither_number_nor_place(text: str, dtype: torch.dtype) -> None:
    format = StoreFormat.parse(text)
    x, scale = draw(37, dtype), scale_of(format)
    codes, scales = encode(x, format, scale)
    used = scales if format.dynamic else scale
    back = decode(codes, used, format, dtype)
    shuffled = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    strided = torch.empty(37, 5, 3, 19, dtype=dtype)[:, 2, :, 1:17]
    strided.copy_(x)
    for rows, part in (
        (slice(4, 5), x[4:5]),
        (slice(1, 8), x[1:8]),
        (slice(1, 8), x[1:8].clone()),
        (shuffled, x[shuffled]),
        (slice(None), strided),
    ):
        some, some_scales = encode(part, format, scale)
        assert same(some, codes[rows])
        assert same(some_scales, None if scales is None else scales[rows])
        again = decode(some, some_scales if format.dynamic else scale, format, dtype)
        assert same(again, back[rows])


@pytest.mark.parametrize("text", ["fp8_e4m3(head)", "fp8_e5m2(head)"])
def test_scales_of_heads_are_not_mixed_up(text: str) -> None:
    format = StoreFormat.parse(text)
    x, scale = draw(9), scale_of(format)
    assert scale is not None
    codes, _ = encode(x, format, scale)
    alone = [encode(x[:, h : h + 1], format, scale[h : h + 1])[0] for h in range(3)]
    assert same(torch.cat(alone, 1), codes)
    wrong = scale.roll(1)  # the control
    assert not same(encode(x, format, wrong)[0], codes)
    assert not same(
        decode(codes, wrong, format, torch.float32), decode(codes, scale, format, torch.float32)
    )


@pytest.mark.parametrize("text", FORMATS)
def test_sizes_are_those_of_the_tensors(text: str) -> None:
    format = StoreFormat.parse(text)
    codes, scales = encode(draw(5), format, scale_of(format))
    assert codes.dtype == format.storage_dtype
    assert codes.shape == (5, 3, format.storage_width(16))
    assert codes.is_contiguous()
    total = codes.nbytes + (0 if scales is None else scales.nbytes)
    assert total == 5 * format.bytes_per_token(3, 16)
    empty, none = encode(draw(5)[:0], format, scale_of(format))
    assert empty.shape == (0, 3, format.storage_width(16))
    assert (none is None) == (scales is None)


@pytest.mark.parametrize("text", FORMATS)
def test_poison_reads_as_nan(text: str) -> None:
    format = StoreFormat.parse(text)
    codes, scales = poisoned(4, 3, 16, format, "cpu")
    good, good_scales = encode(draw(4), format, scale_of(format))
    assert (codes.dtype, codes.shape) == (good.dtype, good.shape)
    assert (scales is None) == (good_scales is None)
    used = scales if format.dynamic else scale_of(format)
    assert decode(codes, used, format, torch.bfloat16).isnan().all()
    if format.static or format.dynamic:
        assert codes.view(torch.uint8).unique().tolist() == [127 if format.static else 255]
