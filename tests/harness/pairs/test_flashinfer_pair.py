"""What FlashInfer is told, against a stand-in that reads pages as its documentation says."""

from __future__ import annotations

import pytest
import torch

from kvparity.pairs import flashinfer as pairs
from kvparity_kernels.attention import naive

LENGTHS = (1, 15, 16, 17, 40)


def sequences(dim=8, heads=2):
    torch.manual_seed(0)
    return [
        (torch.randn(n, 4, dim), torch.randn(n, heads, dim), torch.randn(n, heads, dim))
        for n in LENGTHS
    ]


def wanted(q, k, v):
    out, lse = naive.attend(q, k, v, scale=0.3)
    return out.float(), lse.float()


@pytest.mark.parametrize("rows", [1, 3, None])
def test_prefill_hands_over_pages_that_hold_the_keys(flashinfer, rows):
    drawn = [(q if rows is None else q[-rows:], k, v) for q, k, v in sequences()]
    ends = [torch.tensor([0, *(len(x[i]) for x in drawn)]).cumsum(0).int() for i in (0, 1)]
    out, lse = pairs.prefill(
        *(torch.cat([x[i] for x in drawn]) for i in range(3)),
        cu_seqlens_q=ends[0], cu_seqlens_k=ends[1], scale=0.3,
    )  # fmt: skip
    expected = [wanted(*x) for x in drawn]
    torch.testing.assert_close(out, torch.cat([x[0] for x in expected]))
    torch.testing.assert_close(lse, torch.cat([x[1] for x in expected]))
    assert flashinfer[0][1] == (4, 2, 8, 16)


def test_decode_hands_over_the_visible_keys_and_no_poison(flashinfer):
    drawn = sequences()
    caches = [torch.full((len(LENGTHS), 48, 2, 8), float("nan")) for _ in "kv"]
    for b, (_, *kv) in enumerate(drawn):
        for cache, x in zip(caches, kv, strict=True):
            cache[b, : len(x)] = x
    lens = torch.tensor(LENGTHS, dtype=torch.int32)
    q = torch.stack([q[-1] for q, _, _ in drawn])
    out, lse = pairs.decode(q, *caches, kv_lens=lens, scale=0.3)
    expected = [wanted(q[-1:], k, v) for q, k, v in drawn]
    torch.testing.assert_close(out, torch.cat([x[0] for x in expected]))
    torch.testing.assert_close(lse, torch.cat([x[1] for x in expected]))


@pytest.mark.parametrize(
    ("prefix", "asked"),
    [("", {}), ("fixed_", {"fixed_split_size": 16}), ("whole_", {"disable_split_kv": True})],
)
def test_each_pair_asks_for_its_cut_on_both_sides(flashinfer, prefix, asked):
    """256 keys a split are 16 pages of 16: FlashInfer counts pages."""
    (q, k, v) = sequences()[-1]
    ends = torch.tensor([0, 40], dtype=torch.int32)
    lens = ends[1:]
    getattr(pairs, f"{prefix}prefill")(q, k, v, cu_seqlens_q=ends, cu_seqlens_k=ends, scale=0.3)
    getattr(pairs, f"{prefix}decode")(q[-1:], k[None], v[None], kv_lens=lens, scale=0.3)
    kept = {"fixed_split_size", "disable_split_kv"}
    for _, _, options in flashinfer:
        assert {name: options[name] for name in kept & options.keys()} == asked
    assert len(flashinfer) == 2


def test_a_wrong_last_page_would_be_seen(flashinfer, monkeypatch):
    """The control: with every last page taken for full, the comparison above is red."""
    right = pairs._table
    monkeypatch.setattr(
        pairs, "_table", lambda n, device: (*right(n, device)[:2], torch.full((len(n),), 16))
    )
    (q, k, v) = sequences()[-1]
    out, _ = pairs.decode(
        q[-1:], k[None], v[None], kv_lens=torch.tensor([40], dtype=torch.int32), scale=0.3
    )
    assert (out - wanted(q[-1:], k, v)[0]).abs().max() > 1e-3


def test_on_a_cpu_it_says_so():
    ends = torch.tensor([0, 2], dtype=torch.int32)
    x = torch.randn(2, 2, 8)
    with pytest.raises(RuntimeError, match="FlashInfer computes on CUDA only"):
        pairs.prefill(x, x, x, cu_seqlens_q=ends, cu_seqlens_k=ends, scale=1.0)
