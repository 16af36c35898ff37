"""Texts of store formats, and what is refused in words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kvparity_kernels.store import StoreFormat, decode, encode

FORMATS = (
    *("float32", "float16", "bfloat16", "fp8_e4m3(tensor)", "fp8_e4m3(head)"),
    *("fp8_e5m2(tensor)", "fp8_e5m2(head)", "int8(16)", "int8(4)", "int4(8)"),
)


@pytest.mark.parametrize("text", FORMATS)
def test_the_text_of_a_format_is_read_back(text: str) -> None:
    assert str(StoreFormat.parse(text)) == text
    assert StoreFormat.parse(text) == StoreFormat.parse(str(StoreFormat.parse(text)))


def test_an_fp8_alone_is_per_tensor() -> None:
    assert StoreFormat.parse("fp8_e4m3") == StoreFormat("fp8_e4m3")
    assert str(StoreFormat.parse("fp8_e5m2")) == "fp8_e5m2(tensor)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fp8", r"store format 'fp8' is unknown; expected one of float32, .*int4\(G\)"),
        ("", "store format '' is unknown"),
        ("Int8(4)", "is unknown"),
        ("int7(4)", r"store format 'int7\(4\)' is unknown"),
        ("int8", r"int8 needs the number of elements that share a scale, such as int8\(32\)"),
        ("int8(0)", "int8 takes a positive number in brackets, not '0'"),
        ("int4(head)", "int4 takes a positive number in brackets, not 'head'"),
        ("fp8_e4m3(16)", "fp8_e4m3 takes tensor or head in brackets, not '16'"),
        ("float16(head)", "float16 takes nothing in brackets; write float16"),
    ],
)
def test_texts_that_are_no_format(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StoreFormat.parse(text)


def test_values_that_are_no_format() -> None:
    with pytest.raises(ValueError, match="'int7' is unknown"):
        StoreFormat("int7")
    with pytest.raises(ValueError, match="int8 has no scales per head"):
        StoreFormat("int8", per_head=True, group=4)
    with pytest.raises(ValueError, match="float32 has no groups"):
        StoreFormat("float32", group=4)
    with pytest.raises(ValueError, match="the group of int8 is -1"):
        StoreFormat("int8", group=-1)
    for group in (8.0, True):
        with pytest.raises(ValueError, match=f"the group of int8 is {group}"):
            StoreFormat("int8", group=group)  # type: ignore[arg-type] # that is the point
    with pytest.raises(ValueError, match="head dimension 5 is odd"):
        StoreFormat("int4", group=5).storage_width(5)


X = torch.zeros(2, 3, 16)
ONE = torch.ones(3)
E4M3, E4M3_HEAD, INT8, INT4 = (
    StoreFormat("fp8_e4m3"),
    StoreFormat("fp8_e4m3", per_head=True),
    StoreFormat("int8", group=8),
    StoreFormat("int4", group=5),
)


@pytest.mark.parametrize(
    ("x", "format", "scale", "says"),
    [
        (X[0], E4M3, None, r"x is torch.float32 \[3, 16\], expected float32, float16 or"),
        (X.double(), E4M3, None, "x is torch.float64"),
        (X, E4M3, ONE[:2], r"the scales are torch.float32 \[2\] on cpu, expected float32 \[3\]"),
        (X, E4M3, ONE.half(), "the scales are torch.float16"),
        (X, E4M3, ONE.to("meta"), r"\[3\] on meta, expected float32 \[3\] on cpu"),
        (X, E4M3, ONE * 0, "every scale must be positive and finite"),
        (X, E4M3, ONE * math.inf, "every scale must be positive and finite"),
        (X, E4M3, torch.tensor([1.0, 2.0, 1.0]), r"has one scale, .*; write fp8_e4m3\(head\)"),
        (X, E4M3_HEAD, torch.tensor([1.0, 0.0, 1.0]), "every scale must be positive and finite"),
        (X, INT8, ONE, r"int8\(8\) computes its scales; give none"),
        (X, StoreFormat("float32"), ONE, "float32 is stored without scales; give none"),
        (X[..., :12], INT8, None, "cannot store head dimension 12: 8 does not divide it"),
        (X[..., :5], INT4, None, "int4 stores pairs; head dimension 5 is odd"),
    ],
)
def test_what_cannot_be_encoded(
    x: Tensor, format: StoreFormat, scale: Tensor | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        encode(x, format, scale)


def test_what_holds_no_numbers_is_encoded() -> None:
    codes, _ = encode(X[:, :0], E4M3, ONE[:0])
    assert codes.shape == (2, 0, 16)
    codes, _ = encode(X[:, :1], E4M3, ONE[:1])
    assert codes.shape == (2, 1, 16)
    codes, _ = encode(X.to("meta"), E4M3, ONE.to("meta"))  # nothing there can be looked at
    assert (codes.shape, codes.device.type) == ((2, 3, 16), "meta")


def test_a_tracer_is_not_asked_for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    codes, _ = encode(X, E4M3, ONE * 0)
    assert codes.shape == X.shape


@pytest.mark.parametrize(
    ("codes", "scale", "format", "dtype", "says"),
    [
        (X, None, E4M3, torch.float32, "codes are torch.float32 .*stored as torch.float8_e4m3fn"),
        (X[0], None, StoreFormat("float32"), torch.float32, r"codes are torch.float32 \[3, 16\]"),
        (X, None, StoreFormat("float32"), torch.float64, "decode: to torch.float64"),
        (X, ONE, StoreFormat("float32"), torch.float32, "float32 is stored without scales"),
        (X.to(torch.int8), None, INT8, torch.float32, r"needs float32 scales \[2, 3, 2\] .* none"),
        (X.to(torch.int8), X[..., :2].half(), INT8, torch.float32, "found torch.float16"),
        (X.to(torch.int8), X[..., :2].to("meta"), INT8, torch.float32, r"found .* on meta"),
        (X.to(torch.int8), X, INT8, torch.float32, r"found torch.float32 \[2, 3, 16\]"),
        (X.to(torch.float8_e4m3fn), ONE[:1], E4M3, torch.float32, r"expected float32 \[3\]"),
    ],
)
def test_what_cannot_be_decoded(
    codes: Tensor, scale: Tensor | None, format: StoreFormat, dtype: torch.dtype, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        decode(codes, scale, format, dtype)
