"""How the kvparity attention calls its kernels, which here are plain loops in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mask_batches import BATCHES, Batch
from plain_kernels import HEADS, ORDER, SINKS, Kernels, attend, dense, draw, masked, module, same
from torch import Tensor

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import attention as fixed
from kvparity.subjects.hf.run_counts import Observation, observing


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    return Kernels(monkeypatch)


STEPS = {n: b for n, b in BATCHES.items() if b.queries > 1 or all(r[-1] == "#" for r in b.rows)}


@pytest.mark.parametrize(
    "more",
    [{}, {"scaling": 0.3}, {"softcap": 2.0}, {"s_aux": SINKS}, {"s_aux": SINKS.reshape(1, 4, 1)}],
    ids=["nothing more", "a scale", "a cap", "sinks", "sinks of another shape"],
)
@pytest.mark.parametrize("batch", STEPS.values(), ids=STEPS)
def test_each_row_is_what_its_mask_shows(
    kernels: Kernels, batch: Batch, more: dict[str, Any]
) -> None:
    q, k, v = draw(batch)
    flat = {name: x.reshape(-1) if isinstance(x, Tensor) else x for name, x in more.items()}
    assert same(attend(batch, q, k, v, **more), dense(batch, q, k, v, **flat))
    ((name, kv, given),) = kernels.called
    assert name == ("decode" if batch.queries == 1 and batch.first + batch.begin else "prefill")
    if name == "decode":
        assert given["max_kv"] == max(kv.kv_lens.tolist())
    else:
        assert given["max_q"] == batch.queries
    assert (given["first_key"] is None) == (not batch.chunk)
    assert given["window"] == batch.window
    # A table of positions only where keys may have left the cache or rows begin elsewhere.
    assert (kv.block_table is None) == (not batch.window and not batch.chunk)


def cut(x: Tensor, n: int = 3) -> Tensor:
    """The same in a cache with room for more."""
    return torch.cat([x, x[:, :, :1].expand(-1, -1, n, -1)], dim=2)[:, :, : x.shape[2]]


def pairs(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=3)[..., ::2]


STRIDES: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "as it is": (lambda x: x, True),
    "by token": (lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), True),
    "every other slot": (lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2], True),
    "room for more": (cut, True),
    "a fused tensor": (lambda x: torch.cat([x, x], dim=3)[..., : x.shape[3]], True),
    "every other number": (pairs, False),
    "slots within a row apart": (lambda x: cut(x.transpose(2, 3)).transpose(2, 3), False),
    "rows apart": (
        lambda x: torch.cat([x.flatten(1), x[:, 0, 0, :3]], dim=1)[:, :-3].view(x.shape), False
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRIDES)
@pytest.mark.parametrize("name", ["pads before", "a window that rolls", "pads between, a chunk"])
@pytest.mark.parametrize("which", ["k", "v", "both"])
def test_a_cache_in_any_strides_is_read_in_place_or_copied(
    kernels: Kernels, kind: str, name: str, which: str
) -> None:
    batch, (change, in_place) = BATCHES[name], STRIDES[kind]
    q, k, v = draw(batch)
    expected = dense(batch, q, k, v)
    k, v = change(k) if which != "v" else k, change(v) if which != "k" else v
    assert same(attend(batch, q, k, v), expected)
    ((_, kv, _),) = kernels.called
    if which == "both" and name != "pads between, a chunk" and (len(q) > 1 or kind != "rows apart"):
        assert (kv.k.data_ptr(), kv.v.data_ptr()) == (k.data_ptr(), v.data_ptr()) or not in_place
        assert in_place or (kv.k.data_ptr() != k.data_ptr() and kv.v.data_ptr() != v.data_ptr())


@pytest.mark.parametrize("dim", [0, 2], ids=["rows", "keys"])
def test_one_key_for_all_is_one_in_memory(kernels: Kernels, dim: int) -> None:
    batch = BATCHES["a decoding step"]
    q, k, v = draw(batch)
    k, v = (x.narrow(dim, 0, 1).expand_as(x) for x in (k, v))
    assert same(attend(batch, q, k, v), dense(batch, q, k, v))
    ((_, kv, _),) = kernels.called
    assert (kv.k.data_ptr() == k.data_ptr()) == (dim == 0)


# What is refused, and what is not

PLAIN = BATCHES["one row"]


@pytest.mark.parametrize("own", [True, False, None])
@pytest.mark.parametrize("given", [True, False, None, "nothing"])
def test_causal_is_what_the_call_says_and_else_the_module(
    kernels: Kernels, own: Any, given: Any
) -> None:
    layer = SimpleNamespace() if own is None else SimpleNamespace(is_causal=own)
    more = {} if given == "nothing" else {"is_causal": given}
    right = given if isinstance(given, bool) else own is not False
    with observing(Observation(order=ORDER)):
        if right:
            fixed.attention(layer, *draw(PLAIN), masked(PLAIN), **more)
            return
        with pytest.raises(UnsupportedError, match="non-causal"):
            fixed.attention(layer, *draw(PLAIN), masked(PLAIN), **more)


@pytest.mark.parametrize(
    "more",
    [
        {"surprise": None}, {"surprise": False}, {"dropout": 0.0}, {"output_attentions": False},
        {"position_ids": torch.zeros(1)}, {"use_cache": True, "cache_position": 3},
        {"softcap": None},
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_let_through(kernels: Kernels, more: dict[str, Any]) -> None:
    q, k, v = draw(PLAIN)
    assert same(attend(PLAIN, q, k, v, **more), dense(PLAIN, q, k, v))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"scaling": "0.3"}, "scaling of attention is a str, not a number"),
        ({"softcap": [2.0]}, "softcap of attention is a list, not a number"),
        ({"sliding_window": (4,)}, "sliding_window of attention is a tuple, not a number"),
        ({"s_aux": 0.5}, "s_aux of attention is a float, not a tensor"),
    ],
)  # fmt: skip
def test_a_setting_of_another_type_is_refused(
    kernels: Kernels, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedError, match=said):
        attend(PLAIN, *draw(PLAIN), **more)
    assert not kernels.called


@pytest.mark.parametrize("asked", [0, 0.0, 1, "", [], torch.zeros(1)], ids=repr)
def test_what_is_not_known_is_refused_whatever_it_says(kernels: Kernels, asked: Any) -> None:
    with pytest.raises(UnsupportedError, match="surprise, which SimpleNamespace asks for"):
        attend(PLAIN, *draw(PLAIN), surprise=asked)


@pytest.mark.parametrize(("dim", "right"), [(15, False), (16, True), (256, True), (257, False)])
def test_heads_have_16_to_256_numbers(kernels: Kernels, dim: int, right: bool) -> None:
    q, k, v = draw(PLAIN, dim)
    if right:
        assert attend(PLAIN, q, k, v).shape == (1, 5, HEADS, dim)
        return
    with pytest.raises(UnsupportedError, match=f"heads of {dim}, only of 16 to 256"):
        attend(PLAIN, q, k, v)


@pytest.mark.parametrize("wrong", ["q", "k", "v"])
def test_heads_of_another_size_are_refused(kernels: Kernels, wrong: str) -> None:
    found = dict(zip("qkv", draw(PLAIN, 32), strict=True))
    found[wrong] = found[wrong][..., :16]
    with pytest.raises(UnsupportedError, match="heads of different size"):
        attend(PLAIN, *found.values())


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        ({"queries": 4}, {}), ({"keys": 6}, {"queries": 4}), ({"keys": 6}, {}),
        ({"queries": 4, "keys": 7}, {"keys": 7}),
    ],
)  # fmt: skip
def test_a_mask_of_other_sizes_is_refused(
    kernels: Kernels, layer: dict[str, Any], shown: dict[str, Any]
) -> None:
    one, other = replace(PLAIN, **layer), replace(PLAIN, **shown)
    with pytest.raises(UnsupportedError, match="the kvparity attention needs them equal"):
        fixed.attention(module(one), *draw(one), masked(other))


@pytest.mark.parametrize(
    ("name", "window", "chunk", "right"),
    [
        ("one row", 0, 0, True), ("one row", 5, 0, True), ("one row", 4, 0, False),
        ("one row", 0, 3, True), ("a window", 3, 0, True), ("a window", 0, 0, False),
        ("a window", 2, 0, False), ("a window", 4, 3, False), ("chunks", 0, 3, True),
        ("chunks", 0, 0, False), ("chunks", 3, 3, False), ("a window", 3, 2, True),
    ],
)  # fmt: skip
def test_the_window_is_what_the_mask_shows(
    kernels: Kernels, name: str, window: int, chunk: int, right: bool
) -> None:
    """Rows may begin elsewhere only where the layer says that it attends in chunks."""
    layer, batch = module(replace(PLAIN, chunk=chunk)), BATCHES[name]
    arguments, more = (layer, *draw(batch), masked(batch)), {"sliding_window": window}
    with observing(Observation(order=ORDER)):
        if right:
            out, _ = fixed.attention(*arguments, **more)
            assert same(out, dense(batch, *draw(batch)))
            assert (kernels.called[0][2]["first_key"] is None) == (name != "chunks")
            return
        said = f"its window is {window or 'everything'}, but the mask"
        with pytest.raises(UnsupportedError, match=said):
            fixed.attention(*arguments, **more)


@pytest.mark.parametrize("rows", [("###.", "####"), ("....", "####")])
def test_a_step_of_decoding_with_a_pad_is_refused(kernels: Kernels, rows: tuple[str, ...]) -> None:
    batch = Batch(rows, 1, 4)
    with pytest.raises(UnsupportedError, match="every sequence of the batch must decode"):
        attend(batch, *draw(batch))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"dropout": 0.1}, r"dropout \(0.1\)"),
        ({"output_attentions": True}, "output_attentions, bec"),
    ],
)
def test_what_the_kernels_do_not_write_is_refused(
    kernels: Kernels, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        attend(PLAIN, *draw(PLAIN), **more)


@pytest.mark.parametrize(("heads", "right"), [(1, False), (2, True), (3, False), (4, True)])
def test_query_heads_share_key_heads(kernels: Kernels, heads: int, right: bool) -> None:
    q, k, v = draw(PLAIN)
    if right:
        assert same(attend(PLAIN, q[:, :heads], k, v), dense(PLAIN, q[:, :heads], k, v))
        return
    with pytest.raises(UnsupportedError, match=f"{heads} query heads over 2 key heads"):
        attend(PLAIN, q[:, :heads], k, v)


def test_it_is_known_to_transformers_with_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[Any] = []
    stand_in = SimpleNamespace(register=lambda *given: known.append(given))
    monkeypatch.setattr(fixed, "AttentionInterface", stand_in)
    monkeypatch.setattr(fixed, "AttentionMaskInterface", stand_in)
    fixed.register()
    assert known == [("kvparity", fixed.attention), ("kvparity", fixed.masks.make)]
