"""Attention over a cache of codes is attention over what the cache gives back: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_cases import (
    DTYPES,
    LAYOUTS,
    Case,
    chunk,
    last,
    lay,
    reference,
    unequal,
    whole,
    wrong,
)

from kvparity_kernels.attention import attend_decode, decode, prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import StoreFormat, encode

Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
STORES = (
    *("float32", "float16", "bfloat16", "fp8_e4m3(tensor)", "fp8_e4m3(head)"),
    *("fp8_e5m2(tensor)", "fp8_e5m2(head)", "int8(16)", "int8(4)", "int4(8)"),
)
CODED = STORES[3:]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("store", STORES)
def test_the_same_bits_as_over_plain_floats(store: str, layout: str) -> None:
    dtype = DTYPES[(STORES.index(store) + LAYOUTS.index(layout)) % 3]
    case = Case(n=41, store=store, layout=layout, dtype=dtype)
    assert wrong(case, [(33, 41)], [15, 32]) == (0, 0)


@pytest.mark.parametrize("store", ["fp8_e4m3(head)", "int4(8)"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_every_dtype_with_all_that_a_model_may_have(store: str, dtype: torch.dtype) -> None:
    case = Case(
        store=store, dtype=dtype, layout="paged 8", window=20, softcap=1.5, sinks=True, first=True
    )
    assert wrong(case, [(42, 49), (70, 75)], [0, 40, 74], rings=(26, 20)) == (0, 0)


@pytest.mark.parametrize("store", CODED)
def test_an_odd_head_dimension(store: str) -> None:
    case = Case(n=20, store=store.replace("int4(8)", "int4(6)").replace("(16)", "(24)"), dim=24)
    assert wrong(case, [(9, 20)], [10]) == (0, 0)


@pytest.mark.parametrize("store", CODED)
def test_the_store_makes_a_difference(store: str) -> None:
    # Else the tests above would compare plain floats with plain floats.
    case = Case(n=41, store=store)
    assert unequal(whole(case), whole(replace(case, store=""))) > 0


SWAPS = {
    "the next head's": "kv_head * s_ksh.to(tl.int64)",
    "those of k for v": "V_SCALE + kv_head * s_vsh.to(tl.int64)",
}


@pytest.mark.parametrize("store", ["fp8_e4m3(head)", "int8(4)", "int4(8)"])
@pytest.mark.parametrize("swap", SWAPS)
def test_other_scales_are_seen(mutate: Mutate, store: str, swap: str) -> None:
    new = {
        "the next head's": "(1 - kv_head) * s_ksh.to(tl.int64)",
        "those of k for v": "K_SCALE + kv_head * s_ksh.to(tl.int64)",
    }[swap]
    mutant = mutate({"kernels.py": [(SWAPS[swap], new)]})
    chunks, alone = wrong(Case(n=41, store=store), [(33, 41)], [32], mutant)
    assert chunks > 0
    assert alone > 0


def test_one_scale_for_all_heads_hides_a_swap(mutate: Mutate) -> None:
    # Why the scales of a seeded cache must differ between heads.
    mutant = mutate(
        {"kernels.py": [(SWAPS["the next head's"], "(1 - kv_head) * s_ksh.to(tl.int64)")]}
    )
    assert wrong(Case(n=41, store="fp8_e4m3(tensor)"), [(33, 41)], [32], mutant) == (0, 0)


def test_every_code_is_read_as_it_is_decoded() -> None:
    # All 256 patterns, NaN and infinities included, as the only key of 16 rows.
    for text in ("fp8_e4m3", "fp8_e5m2"):
        format = StoreFormat.parse(text)
        codes = torch.arange(256).to(torch.uint8).reshape(16, 1, 16).view(format.storage_dtype)
        scale = torch.tensor([0.37])
        kv = KeysValues(
            torch.zeros_like(codes.view(torch.uint8)).view(format.storage_dtype),
            codes,
            torch.ones(16, dtype=torch.int32),
            starts=torch.arange(16),
            format=format,
            v_scale=scale,
        )
        order = Case().order
        out, _ = attend_decode(torch.zeros(16, 1, 16), kv, max_kv=1, scale=1.0, order=order)
        told = codes.float() * scale
        assert torch.equal(out.isnan(), told.isnan())
        seen = ~told.isnan()
        assert torch.equal(
            (out + 0.0)[seen].view(torch.int32), (told + 0.0)[seen].view(torch.int32)
        )


def test_the_public_pair_takes_codes() -> None:
    case = Case(n=41, store="int4(8)")
    format, (q, k, v) = StoreFormat.parse(case.store), case.rows
    (k, k_scale), (v, v_scale) = encode(k, format), encode(v, format)
    assert k_scale is not None
    assert v_scale is not None
    more: dict[str, Any] = {"format": format, "scale": case.scale, "order": case.order}
    offsets = torch.tensor([0, 41], dtype=torch.int32)
    found = prefill(
        q,
        k,
        v,
        cu_seqlens_q=offsets,
        cu_seqlens_k=offsets,
        k_scale=k_scale,
        v_scale=v_scale,
        **more,
    )
    assert unequal(reference(case), found) == 0
    lens = torch.tensor([41, 17], dtype=torch.int32)

    def batch(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x, x.roll(1, 0)])[:, :41]

    rows = torch.stack([q[40], q[40]])
    alone = decode(
        rows,
        batch(k),
        batch(v),
        kv_lens=lens,
        k_scale=batch(k_scale),
        v_scale=batch(v_scale),
        **more,
    )
    assert unequal(tuple(x[40:] for x in reference(case)), tuple(x[:1] for x in alone)) == 0


def test_fp8_without_scales_is_scaled_by_one() -> None:
    case = Case(n=20, store="fp8_e5m2(tensor)")
    kv = lay(case, [20], [0])
    ones = torch.ones(2)
    by = [
        KeysValues(kv.k, kv.v, kv.kv_lens, starts=kv.starts, format=kv.format, k_scale=s, v_scale=s)
        for s in (None, ones)
    ]
    more: dict[str, Any] = {"max_kv": 20, "scale": 1.0, "order": case.order}
    first, second = (attend_decode(case.rows[0][19:], each, **more) for each in by)
    assert unequal(first, second) == 0


CODES = torch.zeros(8, 2, 16, dtype=torch.int8)
SCALES = torch.ones(8, 2, 2)
INT8 = StoreFormat("int8", group=8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": None}, "float32, float16 or bfloat16, or have a format"),
        (
            {"format": StoreFormat("fp8_e4m3")},
            r"must agree and be torch.float8_e4m3fn for fp8_e4m3",
        ),
        ({"k_scale": None}, r"k_scale is missing; int8\(8\) needs torch.float32 \(8, 2, 2\)"),
        ({"v_scale": SCALES[:4]}, r"v_scale is torch.float32 \(4, 2, 2\); int8\(8\) needs"),
        ({"v_scale": SCALES.half()}, "v_scale is torch.float16"),
        ({"v_scale": SCALES.mT.contiguous().mT}, "last dimension of v_scale must be contiguous"),
        ({"k_scale": SCALES.to("meta")}, "k_scale is on meta, k is on cpu"),
        ({"format": StoreFormat("int8", group=5)}, "cannot store head dimension 16: 5 does not"),
        (
            {"format": StoreFormat("float32"), "k": CODES.float(), "v": CODES.float()},
            "k_scale is given, but float32 has no scales",
        ),
        (
            {"format": None, "k": CODES.float(), "v": CODES.float()},
            "k_scale is given, but a plain float has no scales",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {
        "k": CODES,
        "v": CODES,
        "kv_lens": torch.tensor([3], dtype=torch.int32),
        "starts": torch.tensor([0]),
        "format": INT8,
        "k_scale": SCALES,
        "v_scale": SCALES,
    }
    assert KeysValues(**good).head_dim == 16
    with pytest.raises(ValueError, match=says):
        KeysValues(**good | changes)


def test_an_unread_scale_does_not_matter() -> None:
    # Poison of integers is in the scales; a row that sees one is NaN.
    case = Case(n=41, store="int8(8)")
    assert chunk(case, 33, 41)[0].isfinite().all()
    kv = lay(case, [41], [1])  # key 0 is poison
    more: dict[str, Any] = {"max_kv": 41, "scale": 1.0, "order": case.order}
    assert attend_decode(case.rows[0][40:], kv, **more)[0].isnan().any()
    assert attend_decode(case.rows[0][40:], kv, window=40, **more)[0].isfinite().all()
    assert last(case, [40])[0].isfinite().all()


@pytest.mark.parametrize("store", ["float32", "int8(8)"])
@pytest.mark.parametrize("page", [1, 8])
def test_a_pair_reads_pages_as_it_reads_caches(store: str, page: int) -> None:
    format, lens = StoreFormat.parse(store), torch.tensor([19, 6], dtype=torch.int32)
    x = torch.randn(3, 2, 24, 1, 16, generator=torch.Generator().manual_seed(0))
    parts = [encode(each.flatten(0, 1), format, None) for each in x[1:]]
    caches = [y if y is None else y.view(2, 24, *y.shape[1:]) for part in parts for y in part]
    table = torch.randperm(48 // page, generator=torch.Generator().manual_seed(1)).view(2, -1)

    def paged(cache: Any) -> Any:
        found = torch.full_like(cache.flatten(0, 1), 0).view(-1, page, *cache.shape[2:])
        found[table.flatten()] = cache.reshape(found.shape)
        return found

    def call(k: Any, k_scale: Any, v: Any, v_scale: Any, **more: Any) -> Any:
        coded = {"format": format, "k_scale": k_scale, "v_scale": v_scale} if format.dynamic else {}
        return decode(x[0, :, :2].flatten(1, 2), k, v, kv_lens=lens, scale=0.25, **coded, **more)

    plain = call(*caches)
    own = call(*(y if y is None else paged(y) for y in caches), block_table=table.int())
    assert all(torch.equal(a, b) for a, b in zip(plain, own, strict=True))
    apart = [y if y is None else paged(y).repeat_interleave(2, 0)[::2] for y in caches]
    with pytest.raises(ValueError, match="pages of k_cache do not lie one behind the other"):
        call(*apart, block_table=table.int())
