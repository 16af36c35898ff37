"""On the device: each backend of the decoder attends to the right keys, or says why it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kvparity.subjects.base import SubjectError
from kvparity.subjects.decoder.backends import ATTENTION, attention_ops
from kvparity.subjects.events import counting
from kvparity_kernels.attention import naive
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

pytestmark = pytest.mark.gpu
HEADS, GROUP, DIM, PAGE, SCALE = 2, 4, 64, 16, 0.125
LENGTHS, ROWS = (1, 63, 64, 64, 600), (1, 5, 64, 64, 1)
NEAR = 2e-2
"""Of results of size 1 in bfloat16, which has 8 bits."""
Parts = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def drawn() -> Parts:
    """Rows, keys and values of each sequence."""
    torch.manual_seed(0)
    return [
        tuple(
            torch.randn(n, heads, DIM, device="cuda").bfloat16()
            for n, heads in ((rows, HEADS * GROUP), (keys, HEADS), (keys, HEADS))
        )
        for rows, keys in zip(ROWS, LENGTHS, strict=True)
    ]  # type: ignore[return-value] # three each


def laid(parts: Parts, page: int) -> KeysValues:
    """Each sequence in slots of its own, in whole pages; what is unused holds NaN."""
    counts = [-(-n // PAGE) for n in LENGTHS]
    firsts = [sum(counts[:b]) for b in range(len(counts))]
    caches = []
    for which in (1, 2):
        shape = (sum(counts) * PAGE, HEADS, DIM)
        cache = torch.full(shape, float("nan"), dtype=torch.bfloat16, device="cuda")
        for first, part in zip(firsts, parts, strict=True):
            cache[first * PAGE : first * PAGE + len(part[which])] = part[which]
        caches.append(cache)
    lens = torch.tensor(LENGTHS, dtype=torch.int32, device="cuda")
    if not page:
        starts = torch.tensor(firsts, device="cuda") * PAGE
        return KeysValues(*caches, lens, starts=starts)
    table = [
        [first + min(i, count - 1) for i in range(max(counts))]
        for first, count in zip(firsts, counts, strict=True)
    ]
    return KeysValues(
        *caches, lens, block_table=torch.tensor(table, dtype=torch.int32, device="cuda"), page=page
    )


def attended(name: str, parts: Parts, kv: KeysValues) -> tuple[torch.Tensor, torch.Tensor]:
    """Prefill of all rows, and decode of each last one."""
    ops, order = attention_ops(name), ReductionOrder()
    lens = torch.tensor(ROWS, dtype=torch.int32, device="cuda")
    filled, _ = ops.prefill(
        torch.cat([q for q, _, _ in parts]), kv, q_starts=(lens.cumsum(0) - lens).int(),
        q_lens=lens, max_q=max(ROWS), scale=SCALE, order=order,
    )  # fmt: skip
    last = torch.stack([q[-1] for q, _, _ in parts])
    return filled, ops.decode(last, kv, max_kv=max(LENGTHS), scale=SCALE, order=order)[0]


def off(filled: torch.Tensor, decoded: torch.Tensor, parts: Parts) -> float:
    """The largest distance from float64; NaN is infinitely far."""
    wanted = [naive.attend(*part, scale=SCALE)[0] for part in parts]
    found = torch.cat([filled - torch.cat(wanted), decoded - torch.stack([w[-1] for w in wanted])])
    return float(found.abs().nan_to_num(nan=torch.inf).max())


@pytest.mark.parametrize("page", [0, PAGE], ids=["contiguous", "paged"])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_backend_attends_to_the_right_keys_or_says_why_it_cannot(name, page):
    parts = drawn()
    with counting() as ran:
        try:
            results = attended(name, parts, laid(parts, page))
        except SubjectError as error:
            print(error)  # torch's or FlashInfer's own words: an answer of this device
            assert name not in ("fixed-order", "sdpa", "sdpa-math")
            return
    assert off(*results, parts) < NEAR
    backends = {key.removeprefix("backend.") for key in ran if key.startswith("backend.")}
    if name not in ("fixed-order", "sdpa"):
        assert backends == {name}


def test_a_length_that_is_one_short_is_seen():
    parts = drawn()
    kv = laid(parts, PAGE)
    short = replace(kv, kv_lens=(kv.kv_lens - 1).clamp(min=1))
    ops = attention_ops("sdpa-math")
    last = torch.stack([q[-1] for q, _, _ in parts])
    decoded, _ = ops.decode(last, short, max_kv=max(LENGTHS), scale=SCALE)
    wanted = torch.stack([naive.attend(*part, scale=SCALE)[0][-1] for part in parts])
    assert float((decoded - wanted).abs().max()) > NEAR
