"""What FlashInfer is told of the decoder's caches, against the stand-in that the pairs use."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from backend_cases import DIM, HEADS, LENGTHS, SCALE, contiguous, decoder, drawn, paged, ratio
from decoder_cases import ids_of, plan, prompts, run
from flashinfer_stand_in import flashinfer

from kvparity.subjects.attention_calls import DecodeCall, PrefillCall
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.decoder.backends import attention_ops
from kvparity.subjects.decoder.backends.flashinfer import table
from kvparity.subjects.events import counting
from kvparity_kernels.attention import naive
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

__all__ = ["flashinfer"]  # the stand-in, a fixture

HALF = torch.bfloat16
ROWS = (1, 3, 16, 2, 1)
GIVEN = prompts(5, 17, generate=3)


def queries() -> dict[str, Any]:
    """Rows with a pad row behind each sequence, which belongs to none."""
    torch.manual_seed(1)
    starts = [sum(ROWS[:b]) + b for b in range(len(ROWS))]
    return {
        "q": torch.randn(sum(ROWS) + len(ROWS), 2 * HEADS, DIM).to(HALF),
        "q_starts": torch.tensor(starts, dtype=torch.int32),
        "q_lens": torch.tensor(ROWS, dtype=torch.int32),
        "max_q": max(ROWS),
    }


def decoding(q: torch.Tensor, kv: KeysValues, **more: Any) -> DecodeCall:
    return DecodeCall(q=q, kv=kv, max_kv=40, scale=SCALE, order=ReductionOrder(), **more)


@pytest.mark.parametrize("lay", [contiguous, paged])
@pytest.mark.parametrize("more", [{}, {"window": 5}, {"softcap": 2.0}])
def test_prefill_and_decode_hand_over_the_keys_and_no_poison(flashinfer, lay, more):
    parts, given, ops = drawn(dtype=HALF), queries(), attention_ops("flashinfer")
    kv = lay(parts)
    out, lse = ops.prefill(PrefillCall(**given, kv=kv, scale=SCALE, order=ReductionOrder(), **more))
    for start, rows, (k, v) in zip(given["q_starts"].tolist(), ROWS, parts, strict=True):
        own = slice(start, start + rows)
        assert out[start + rows].isnan().all()
        assert lse[start + rows].isnan().all()
        assert ratio(given["q"][own], k, v, out[own], **more) <= 1
        wanted = naive.attend(given["q"][own], k, v, scale=SCALE, **more)[1]
        torch.testing.assert_close(lse[own], wanted.float())
    q = given["q"][: len(LENGTHS)]
    out, lse = ops.decode(decoding(q, kv, **more))
    for b, (k, v) in enumerate(parts):
        assert ratio(q[b : b + 1], k, v, out[b : b + 1], **more) <= 1
    assert lse.isfinite().all()


def test_pages_are_its_own_and_runs_of_slots_are_pages_of_one():
    kv = paged(drawn())
    ends, indices, last = table(kv)
    assert ends.tolist() == [0, 1, 2, 4, 6, 11]
    assert indices.tolist() == [
        page for b, n in enumerate((1, 1, 2, 2, 5)) for page in kv.block_table[b, :n].tolist()
    ]
    assert last.tolist() == [1, 7, 8, 8, 1]
    ends, indices, last = table(contiguous(drawn()))
    assert ends.tolist() == [0, 1, 8, 24, 40, 73]
    assert indices.tolist()[1:8] == list(range(7, 14))
    assert set(last.tolist()) == {1}


def test_a_table_of_one_key_less_would_be_seen(flashinfer, monkeypatch):
    """The control: with every last page one key short, the bound is broken."""
    right = table
    monkeypatch.setattr(
        "kvparity.subjects.decoder.backends.flashinfer.table",
        lambda kv: (*right(kv)[:2], right(kv)[2] - 1),
    )
    parts = drawn((7, 15), dtype=HALF)
    q = queries()["q"][:2]
    out, _ = attention_ops("flashinfer").decode(decoding(q, paged(parts)))
    assert all(ratio(q[b : b + 1], *parts[b], out[b : b + 1]) > 1 for b in range(2))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("flashinfer", [{}, {}]),
        ("flashinfer-fixed", [{"fixed_split_size": 32}, {"fixed_split_size": 256}]),
        ("flashinfer-whole", [{"disable_split_kv": True}] * 2),
    ],
)
def test_each_name_asks_for_its_cut_on_both_sides(flashinfer, name, asked):
    """256 keys a split are 32 pages of 8, and 256 pages of one slot."""
    for kv, wanted in zip((paged(drawn(dtype=HALF)), contiguous(drawn(dtype=HALF))), asked,
                          strict=True):  # fmt: skip
        flashinfer.clear()
        ops, given = attention_ops(name), queries()
        ops.prefill(PrefillCall(**given, kv=kv, scale=SCALE, order=ReductionOrder()))
        ops.decode(decoding(given["q"][: len(LENGTHS)], kv))
        kept = {"fixed_split_size", "disable_split_kv"}
        cuts = [{n: options[n] for n in kept & options.keys()} for _, _, options in flashinfer]
        assert cuts == [wanted, wanted]


def test_a_step_is_planned_once_for_all_layers(flashinfer):
    subject = decoder("flashinfer", execution=HALF, layers=3)
    run(subject, "decode", GIVEN)
    steps = plan("decode", GIVEN).schedule
    assert len(flashinfer) == len(steps)
    windows = decoder(
        "flashinfer", execution=HALF, layers=4, sliding_window=8,
        layer_types=("sliding", "full", "sliding", "full"),
    )  # fmt: skip
    flashinfer.clear()
    run(windows, "decode", GIVEN)
    assert len(flashinfer) == 2 * len(steps)  # one for the window, one without


def test_a_decoder_on_it_agrees_with_the_oracle_on_every_path(flashinfer):
    subject = decoder("flashinfer-fixed", execution=HALF)
    members = plan("prefill", GIVEN).members
    for path in ("prefill", "decode", "chunked(4)", "batched", "paged(8)"):
        for (sequence, position), row in run(subject, path, GIVEN).items():
            ids = ids_of(members)[sequence]
            wanted = subject.oracle(members[sequence], ids, range(position, position + 1))[0]
            # Logits of size 1 to 10 in bfloat16, which has 8 bits: a few roundings of a row.
            assert float((row - wanted).abs().max()) < 0.3
    assert subject.describe()["used"]["attention"] == "flashinfer-fixed"


def test_another_backend_of_its_is_told(flashinfer, monkeypatch):
    monkeypatch.setattr(
        sys.modules["flashinfer"].BatchDecodeWithPagedKVCacheWrapper, "_backend", "fa3"
    )
    with counting() as counts:
        attention_ops("flashinfer").decode(
            decoding(queries()["q"][: len(LENGTHS)], paged(drawn(dtype=HALF)))
        )
    assert counts == {"backend.flashinfer on fa3": 1, "flashinfer.decode": 1}


def test_what_it_cannot_do_is_refused(flashinfer):
    q, kv = queries()["q"][: len(LENGTHS)], paged(drawn(dtype=HALF))
    odd = paged(drawn(dtype=HALF), page=7)
    runs = contiguous(drawn(dtype=HALF))
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (runs.k, runs.v)]
    cases: list[tuple[str, str, KeysValues, dict[str, Any]]] = [
        ("flashinfer", "no attention sinks", kv, {"sinks": torch.zeros(2 * HEADS)}),
        ("flashinfer", "cannot hide first keys", kv, {"first_key": kv.kv_lens}),
        ("flashinfer", "cannot wrap around a ring", replace(kv, ring=8), {"window": 4}),
        ("flashinfer", "all heads of a slot together", replace(runs, k=turned[0], v=turned[1]), {}),
        ("flashinfer-fixed", "cuts every 256 keys, which are not whole pages of 7", odd, {}),
        ("flashinfer", "not bfloat16 from float32", paged(drawn()), {}),
    ]
    for name, words, cache, more in cases:
        with pytest.raises(UnsupportedError, match=words):
            attention_ops(name).decode(decoding(q, cache, **more))


def test_its_own_refusal_is_told_in_its_words(flashinfer, monkeypatch):
    def plan(self, *sizes, **options):
        raise ValueError("Invalid configuration : NUM_MMA_Q=1")

    monkeypatch.setattr(sys.modules["flashinfer"].BatchDecodeWithPagedKVCacheWrapper, "plan", plan)
    with pytest.raises(SubjectError, match=r"flashinfer \(q \[5, 4, 16\], .*: Invalid configurati"):
        attention_ops("flashinfer").decode(
            decoding(queries()["q"][: len(LENGTHS)], paged(drawn(dtype=HALF)))
        )


def test_without_a_device_it_says_what_is_missing():
    with pytest.raises(SubjectError, match="FlashInfer computes on CUDA only, and the tensors are"):
        attention_ops("flashinfer-whole").decode(
            decoding(queries()["q"][: len(LENGTHS)], paged(drawn(dtype=HALF)))
        )
