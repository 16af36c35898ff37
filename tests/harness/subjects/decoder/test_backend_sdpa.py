"""SDPA over the decoder's caches: what it reads, what it computes, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from backend_cases import DIM, HEADS, LENGTHS, NAN, SCALE, contiguous, drawn, paged, ratio
from torch import Tensor

from kvparity.subjects.attention_calls import DecodeCall, PrefillCall
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.decoder.backends import attention_ops, operations
from kvparity.subjects.events import counting
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat

HERE = ("sdpa", "sdpa-math", "sdpa-flash")
"""Those that torch has on a CPU."""
ROWS = (1, 3, 16, 2, 1)


def queries(rows: tuple[int, ...] = ROWS, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Rows with a pad row between two sequences, which belongs to none."""
    torch.manual_seed(1)
    starts = [sum(rows[:b]) + b for b in range(len(rows))]
    return {
        "q": torch.randn(sum(rows) + len(rows), 2 * HEADS, DIM).to(dtype),
        "q_starts": torch.tensor(starts, dtype=torch.int32),
        "q_lens": torch.tensor(rows, dtype=torch.int32),
        "max_q": max(rows),
    }


def prefill(name: str, kv: KeysValues, given: dict[str, Any], **more: Any) -> Tensor:
    call = PrefillCall(**given, kv=kv, scale=SCALE, order=ReductionOrder(), **more)
    out, lse = attention_ops(name).prefill(call)
    assert lse.shape == (len(given["q"]), 0)
    return out


def decode(name: str, q: Tensor, kv: KeysValues, **more: Any) -> Tensor:
    call = DecodeCall(q=q, kv=kv, scale=SCALE, order=ReductionOrder(), **{"max_kv": 40, **more})
    out, lse = attention_ops(name).decode(call)
    assert lse.shape == (len(q), 0)
    return out


def alike(left: Tensor, right: Tensor) -> bool:
    return left.view(torch.int32).equal(right.view(torch.int32))


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("window", [0, 5])
def test_prefill_is_as_near_to_float64_as_rounding_allows(name, dtype, window):
    parts, given = drawn(dtype=dtype), queries(dtype=dtype)
    more = {"window": window} if window else {}
    out = prefill(name, contiguous(parts), given, **more)
    for start, rows, (k, v) in zip(given["q_starts"].tolist(), ROWS, parts, strict=True):
        own = slice(start, start + rows)
        assert out[start + rows].isnan().all()  # the pad row behind it
        assert ratio(given["q"][own], k, v, out[own], window=window) <= 1


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("window", [0, 5])
def test_decode_is_as_near_to_float64_as_rounding_allows(name, window):
    parts, q = drawn(), torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    more = {"window": window} if window else {}
    out = decode(name, q, contiguous(parts), **more)
    for b, (k, v) in enumerate(parts):
        assert ratio(q[b : b + 1], k, v, out[b : b + 1], window=window) <= 1


@pytest.mark.parametrize("change", ["one too few", "one too many"])
def test_the_bound_sees_a_key_too_few_or_too_many(change):
    parts, q = drawn((7, 16, 33)), torch.randn(3, 2 * HEADS, DIM)
    if change == "one too few":
        wrong = [(k[1:], v[1:]) for k, v in parts]
    else:
        wrong = [(torch.cat([k[:1], k]), torch.cat([v[:1], v])) for k, v in parts]
    out = decode("sdpa", q, contiguous(wrong))
    far = [ratio(q[b : b + 1], k, v, out[b : b + 1]) for b, (k, v) in enumerate(parts)]
    assert min(far) > 1000


@pytest.mark.parametrize("name", HERE)
def test_pages_and_runs_of_slots_give_the_same_bits(name):
    """What is handed over is equal, so the library has no reason to add in another order."""
    parts, given = drawn(), queries()
    q = torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    for more in ({}, {"window": 5}):
        caches = contiguous(parts), paged(parts), paged(parts, 1)
        decoded = [decode(name, q, kv, **more) for kv in caches]
        filled = [prefill(name, kv, given, **more) for kv in caches]
        for rows in (decoded, filled):
            assert all(alike(rows[0], each) for each in rows[1:])


def test_heads_before_slots_are_read_as_they_lie():
    parts, given = drawn(), queries()
    plain = contiguous(parts)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (plain.k, plain.v)]
    other = KeysValues(*turned, plain.kv_lens, starts=plain.starts)
    assert other.k.stride() != plain.k.stride()
    for name in HERE:
        out = prefill(name, other, given)
        for start, rows, (k, v) in zip(given["q_starts"].tolist(), ROWS, parts, strict=True):
            own = slice(start, start + rows)
            assert ratio(given["q"][own], k, v, out[own]) <= 1


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("window", [0, 5])
def test_no_slot_past_the_keys_reaches_a_result(name, window):
    """NaN there is as good as zero, as infinity, and as another sequence's keys."""
    parts, given = drawn(), queries()
    q = torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    more = {"window": window} if window else {}
    for lay in (contiguous, paged):
        found = []
        for filling in (NAN, 0.0, float("inf"), 1e4):
            kv = lay(parts)
            for x in (kv.k, kv.v):
                x[x.isnan()] = filling
            found.append(
                torch.cat(
                    [
                        prefill(name, kv, given, **more).nan_to_num(7.0),
                        decode(name, q, kv, **more),
                    ]
                )
            )
        assert found[0].isfinite().all()
        assert all(alike(found[0], each) for each in found[1:])


def test_a_key_past_the_end_would_be_seen():
    """The control of the last test: a length that is one too long reads the poison."""
    kv = contiguous(drawn())
    long = KeysValues(kv.k, kv.v, kv.kv_lens + 1, starts=kv.starts)
    q = torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    for name in HERE:
        out = decode(name, q, long)
        assert out.flatten(1).isnan().any(1).all()


@pytest.mark.parametrize("name", HERE)
def test_a_ring_gives_the_bits_of_a_cache_that_keeps_all(name):
    window, rows, size = 5, 3, 7  # window + rows - 1 slots
    (k, v), *_ = drawn((33,))
    rings = [torch.full((size + 2, HEADS, DIM), NAN) for _ in "kv"]
    for ring, x in zip(rings, (k, v), strict=True):
        for p in range(len(x)):
            ring[1 + p % size] = x[p]
    one = torch.ones(1, dtype=torch.int64)
    ring = KeysValues(*rings, torch.tensor([33], dtype=torch.int32), starts=one, ring=size)
    given = queries((rows,))
    whole = contiguous([(k, v)])
    assert alike(
        prefill(name, ring, given, window=window)[:rows],
        prefill(name, whole, given, window=window)[:rows],
    )


def test_a_row_sees_no_key_before_its_first():
    (k, v), *_ = drawn((9,))
    given = queries((3,))
    first = torch.tensor([4, 4, 4, 0], dtype=torch.int32)
    out = prefill("sdpa-math", contiguous([(k, v)]), given, first_key=first)
    assert ratio(given["q"][:3], k[4:], v[4:], out[:3]) <= 1


def test_a_cache_of_another_format_is_read_in_that_of_the_queries():
    parts, given = drawn(dtype=torch.bfloat16), queries()
    out = prefill("sdpa", contiguous(parts), given)
    assert out.dtype == torch.float32
    k, v = (x.float() for x in parts[2])
    start = int(given["q_starts"][2])
    assert ratio(given["q"][start : start + 16], k, v, out[start : start + 16]) <= 1


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize(
    ("name", "ran"), [("sdpa-math", "math"), ("sdpa-flash", "flash"), ("sdpa", "flash")]
)
def test_what_ran_is_seen_where_it_ran(name, ran, inference):
    q = torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    with counting() as counts, torch.inference_mode(inference):
        decode(name, q, contiguous(drawn()))
    # Two of the five sequences have as many keys as each other: one call for both.
    assert counts == {f"backend.sdpa-{ran}": 4, "sdpa.decode": 1}


def test_an_attention_that_nobody_knows_is_no_backend(monkeypatch):
    from kvparity.subjects.decoder.backends import sdpa

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", lambda q, k, v, **more: q * 2)
    q = torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    with (
        counting(),
        pytest.raises(SubjectError, match=r"ran none that is known \(mul\); expected one of cud"),
    ):
        decode("sdpa", q, contiguous(drawn()))


@pytest.mark.parametrize("name", ["sdpa-efficient", "sdpa-cudnn"])
def test_a_backend_that_torch_refuses_is_told_in_its_words(name):
    q = torch.randn(len(LENGTHS), 2 * HEADS, DIM)
    words = rf"{name} \(q \[1, 4, 1, 16\], .*float32 on cpu\): No viable backend for scaled_dot"
    with pytest.raises(SubjectError, match=words):
        decode(name, q, contiguous(drawn()))


def test_calls_that_it_cannot_compute_are_refused():
    kv, given = contiguous(drawn()), queries()
    with pytest.raises(UnsupportedError, match="attention sdpa has no soft cap of scores; use att"):
        prefill("sdpa", kv, given, softcap=20.0)
    with pytest.raises(UnsupportedError, match="attention sdpa-math has no attention sinks"):
        prefill("sdpa-math", kv, given, sinks=torch.zeros(2 * HEADS))
    codes = torch.zeros(4, HEADS, DIM, dtype=torch.int8)
    scales = torch.ones(4, HEADS, 2)
    coded = KeysValues(
        codes, codes, torch.tensor([3], dtype=torch.int32),
        starts=torch.zeros(1, dtype=torch.int64),
        format=StoreFormat.parse("int8(8)"), k_scale=scales, v_scale=scales,
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"but the cache stores int8\(8\); store float32"):
        decode("sdpa", torch.zeros(1, 4, DIM), coded, max_kv=3)
    more_rows = queries((9, 3, 16, 2, 1))
    with pytest.raises(ValueError, match="has 9 rows and 1 keys"):
        prefill("sdpa", kv, more_rows)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(UnsupportedError, match="attention 'sdpa-best' is unknown; expected one of"):
        attention_ops("sdpa-best")
    with pytest.raises(UnsupportedError, match="operations 'blas' are unknown; expected one of fi"):
        operations("blas")
