"""The kvparity attention of transformers, alone: bits along every path, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers_masks import make_mask, packed, window

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf.attention import attention
from kvparity.subjects.hf.run_counts import Observation, observing
from kvparity_kernels.order import ReductionOrder

LENGTHS = (5, 34, 20)
HEADS, KV_HEADS, DIM = 4, 2, 16
ORDER = ReductionOrder(split=32, tile=16, block_m=16)
MODULE = SimpleNamespace(is_causal=True)


def run(q: Tensor, k: Tensor, v: Tensor, mask: Any, order: ReductionOrder = ORDER) -> Tensor:
    with observing(Observation(order=order)):
        out, weights = attention(MODULE, q, k, v, mask, scaling=0.3, sliding_window=None)
    assert weights is None
    return out


def draw(length: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    sizes = (HEADS, KV_HEADS, KV_HEADS)
    # As a model hands them on: [1, heads, tokens, dim], a view of [1, tokens, heads, dim].
    return tuple(  # type: ignore[return-value] # three of them
        torch.randn(1, length, n, DIM, generator=generator).bfloat16().transpose(1, 2)
        for n in sizes
    )


@pytest.fixture(scope="module")
def alone() -> list[Tensor]:
    """Each sequence by itself, in one prefill: ``[length, heads, dim]``."""
    return [run(*draw(n), make_mask(n, n, 0))[0] for n in LENGTHS]


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int16)


def padded(side: str, slots: int = 0) -> tuple[list[Tensor], Tensor, list[slice]]:
    """q, k, v of all sequences in one rectangle (NaN where padded), the 2D mask, the places."""
    width, places = max(LENGTHS), []
    boxes = [
        torch.full((len(LENGTHS), n, width + slots, DIM), float("nan")).bfloat16()
        for n in (HEADS, KV_HEADS, KV_HEADS)
    ]
    real = torch.zeros(len(LENGTHS), width + slots, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        start = width - length if side == "left" else 0
        places.append(slice(start, start + length))
        for box, x in zip(boxes, draw(length), strict=True):
            box[row, :, places[-1]] = x[0]
        real[row, places[-1]] = True
    return boxes, real, places


def test_one_prefill_is_close_to_float64(alone: list[Tensor]) -> None:
    for length, out in zip(LENGTHS, alone, strict=True):
        q, k, v = (x.double() for x in draw(length))
        exact = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=0.3, enable_gqa=True
        ).transpose(1, 2)[0]
        # The output is rounded to bfloat16 (2**-9 relative), P to bfloat16 before PV (as much).
        assert (out.double() - exact).abs().max() < 2**-8 * float(v.abs().max())
        shifted = (out.double() - exact.roll(1, 0)).abs().max()
        assert shifted > 2**-8 * float(v.abs().max())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_the_same_bits(side: str, alone: list[Tensor]) -> None:
    (q, k, v), real, places = padded(side)
    out = run(q, k, v, make_mask(34, 34, 0, real))
    for row, place in enumerate(places):
        assert bits(out[row, place]).equal(bits(alone[row]))
        pads = torch.ones(34, dtype=torch.bool)
        pads[place] = False
        assert out[row, pads].isnan().all()


def test_padding_that_is_not_masked_shows() -> None:
    (q, k, v), real, places = padded("left")
    k, v = k.nan_to_num(1.0), v.nan_to_num(1.0)
    right = run(q, k, v, make_mask(34, 34, 0, real))[0, places[0]]
    wrong = run(q, k, v, make_mask(34, 34, 0, torch.ones_like(real)))[0, places[0]]
    assert not bits(right).equal(bits(wrong))


@pytest.mark.parametrize("capacity", [34, 50])
def test_decode_and_chunks_give_the_bits_of_prefill(capacity: int, alone: list[Tensor]) -> None:
    q, k, v = draw(34)
    box = torch.full((2, 1, KV_HEADS, capacity, DIM), float("nan")).bfloat16()
    differing = 0
    for start, stop in ((0, 1), (1, 2), (2, 20), (20, 33), (33, 34)):
        box[0, :, :, start:stop], box[1, :, :, start:stop] = (
            k[:, :, start:stop],
            v[:, :, start:stop],
        )
        keys = stop if capacity == 34 else capacity
        mask = make_mask(stop - start, keys, start)
        args = q[:, :, start:stop], box[0, :, :, :keys], box[1, :, :, :keys], mask
        assert bits(run(*args)[0]).equal(bits(alone[1][start:stop]))
        other = run(*args, order=ReductionOrder(split=16, tile=16, block_m=16))
        differing += int((bits(other[0]) != bits(alone[1][start:stop])).sum())
    assert differing > 0  # the control: another order, other bits


@pytest.mark.parametrize("side", ["left", "right"])
def test_decode_after_padding_gives_the_bits_of_prefill(side: str, alone: list[Tensor]) -> None:
    """On the right the pads lie between the prompt and the new key."""
    (q, k, v), real, places = padded(side, slots=1)
    last = torch.zeros(3, HEADS, 1, DIM).bfloat16()
    for row, place in enumerate(places):  # move the last token of each to the new column
        for x in (k, v):
            x[row, :, 34] = x[row, :, place.stop - 1]
            x[row, :, place.stop - 1] = float("nan")
        last[row, :, 0] = q[row, :, place.stop - 1]
        real[row, place.stop - 1], real[row, 34] = False, True
    with observing(seen := Observation(order=ORDER)):
        out, _ = attention(MODULE, last, k, v, make_mask(1, 35, 34, real), scaling=0.3)
    for row, expected in enumerate(alone):
        assert bits(out[row, 0]).equal(bits(expected[-1]))
    assert any("decode" in name for name in seen.counts)
    assert not any("prefill" in name for name in seen.counts)


def test_a_row_of_pads_only_cannot_decode() -> None:
    real = torch.tensor([[True] * 4, [True, True, True, False]])
    q, k = torch.ones(2, HEADS, 1, DIM), torch.ones(2, KV_HEADS, 4, DIM)
    with pytest.raises(UnsupportedError, match="every sequence of the batch must decode"):
        run(q, k, k, make_mask(1, 4, 3, real))


def test_keys_in_any_strides(alone: list[Tensor]) -> None:
    q, k, v = draw(20)
    mask = make_mask(20, 20, 0)
    for change in (
        lambda x: x.contiguous(),
        lambda x: x.repeat(1, 1, 1, 2)[..., :DIM],
        lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    ):
        assert bits(run(q, change(k), v, mask)[0]).equal(bits(alone[2]))
        assert bits(run(q, k, change(v), mask)[0]).equal(bits(alone[2]))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"position_ids": torch.zeros(1), "bias": 1}, "bias, which SimpleNamespace asks for"),
        ({"sliding_window": 3}, "its window is 3, but the mask .* shows its rows other keys"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "non-causal"),
        ({"output_attentions": True}, "output_attentions"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_it_cannot_do_is_refused(more: dict[str, Any], words: str) -> None:
    q, k, v = draw(5)
    with pytest.raises(UnsupportedError, match=words):
        attention(MODULE, q, k, v, make_mask(5, 5, 0), **more)


def test_a_module_that_is_not_causal_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="non-causal"):
        attention(SimpleNamespace(is_causal=False), *draw(5), make_mask(5, 5, 0))


def test_heads_that_do_not_fit_are_refused() -> None:
    q, k, v = draw(5)
    with pytest.raises(UnsupportedError, match="different size"):
        attention(MODULE, q, k, v[..., :8], make_mask(5, 5, 0))
    with pytest.raises(UnsupportedError, match="heads of 8, only of 16 to 256"):
        attention(MODULE, q[..., :8], k[..., :8], v[..., :8], make_mask(5, 5, 0))
    with pytest.raises(UnsupportedError, match="3 query heads over 2"):
        attention(MODULE, q[:, :3], k, v, make_mask(5, 5, 0))


@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 5, 5, dtype=torch.bool)])
def test_a_mask_of_somebody_else_is_refused(mask: Any) -> None:
    with pytest.raises(UnsupportedError, match="did not pass on the attention mask"):
        attention(MODULE, *draw(5), mask)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="5 queries and 6 keys, the layer has 5 and 5"):
        attention(MODULE, *draw(5), make_mask(5, 6, 0))


# windows, caps and sinks

SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0])


def exact(length: int, size: int, softcap: float, sinks: Tensor | None) -> Tensor:
    """``[length, heads, dim]`` in float64."""
    q, k, v = (x[0].double() for x in draw(length))
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=0) for x in (k, v))
    scores = torch.einsum("htd,hnd->htn", q, k) * 0.3
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    place = torch.arange(length)
    far = place[:, None] - place[None]
    scores = scores.masked_fill((far < 0) | (far >= size), -float("inf"))
    if sinks is not None:
        extra = sinks.double()[:, None, None].expand(-1, length, 1)
        scores = torch.cat([scores, extra], dim=2)
    return torch.einsum("htn,hnd->thd", scores.softmax(2)[..., :length], v)


@pytest.mark.parametrize("more", [{}, {"softcap": 2.0}, {"s_aux": SINKS.bfloat16()}])
@pytest.mark.parametrize("rolling", [False, True])
def test_a_window_over_a_cache_that_drops_keys_gives_the_bits_of_prefill(
    more: dict[str, Any], rolling: bool
) -> None:
    """As ``DynamicCache`` keeps the last W - 1 keys, and ``StaticCache`` rolls W of them."""
    size, length = 7, 34
    q, k, v = draw(length)

    def part(start: int, stop: int, begin: int, *, size: int = size) -> Tensor:
        mask = make_mask(
            stop - start, stop - begin, start, kv_offset=begin, mask_function=window(size)
        )
        cut = (q[:, :, start:stop], k[:, :, begin:stop].clone(), v[:, :, begin:stop].clone(), mask)
        with observing(Observation(order=ORDER)):
            out, _ = attention(MODULE, *cut, scaling=0.3, sliding_window=size, **more)
        return out[0]

    whole = part(0, length, 0)
    # Rounded to bfloat16 (2**-9 relative), P to bfloat16 before PV (as much).
    near = exact(length, size, more.get("softcap", 0.0), more.get("s_aux"))
    assert (whole.double() - near).abs().max() < 2**-8 * float(v.abs().max())
    far = exact(length, size + 1, more.get("softcap", 0.0), more.get("s_aux"))
    assert (whole.double() - far).abs().max() > 2**-8 * float(v.abs().max())
    differing = 0
    for start, stop in ((5, 7), (7, 8), (16, 17), (20, 33), (33, 34)):
        rolled = rolling and stop == start + 1  # a slot more, that nobody sees
        begin = max(0, start - size + (0 if rolled else 1))
        assert bits(part(start, stop, begin)).equal(bits(whole[start:stop]))
        differing += int((bits(part(start, stop, 0, size=6)) != bits(whole[start:stop])).sum())
    assert differing > 0  # the control: a window of one key less


def test_a_padded_window_gives_the_same_bits() -> None:
    size = 7
    for side in ("left", "right"):
        (q, k, v), real, places = padded(side)
        mask = make_mask(34, 34, 0, real, mask_function=window(size))
        with observing(Observation(order=ORDER)):
            out, _ = attention(MODULE, q, k, v, mask, scaling=0.3, sliding_window=size)
            for row, (length, place) in enumerate(zip(LENGTHS, places, strict=True)):
                one = make_mask(length, length, 0, mask_function=window(size))
                expected, _ = attention(
                    MODULE, *draw(length), one, scaling=0.3, sliding_window=size
                )
                assert bits(out[row, place]).equal(bits(expected[0]))


@pytest.mark.parametrize(("function", "size"), [(window(3), 4), (window(3), 0), (packed, 0)])
def test_a_window_that_the_mask_does_not_show_is_refused(
    function: Callable[..., Any], size: int
) -> None:
    q, k, v = draw(6)
    mask = make_mask(6, 6, 0, mask_function=function)
    with pytest.raises(UnsupportedError, match="shows its rows other keys"):
        attention(MODULE, q, k, v, mask, sliding_window=size or None)
