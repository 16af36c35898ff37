"""Layers that store and layers that read them, sizes of a cache, and what cannot be looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_host import CONFIG, WINDOW
from torch import Tensor
from transformers import DynamicCache, StaticCache

from kvparity.core.relied.transformers import counts_tokens
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import caches, layers
from kvparity.subjects.hf.caches import CacheRow, SessionCache


class Other:
    """A layer of a cache that stores no keys."""

    is_sliding = False


class Quantized(type(DynamicCache(config=CONFIG).layers[1])):  # type: ignore[misc]
    """A layer that keeps more than it was given."""


def cache(count: int = 3, tokens: int = 5, static: bool = False) -> Any:
    """Both kinds of layers with ``tokens`` keys, numbered by their column."""
    made = StaticCache(config=CONFIG, max_cache_len=9) if static else DynamicCache(config=CONFIG)
    told = torch.arange(float(tokens))[None, None, :, None].expand(count, 1, -1, 2)
    for layer in range(2):
        made.update(told, -told, layer)
    return made


@pytest.mark.parametrize(
    ("slots", "columns", "wanted"),
    [(3, 0, 0), (3, 2, 0), (3, 3, 0), (3, 4, 1), (3, 9, 6), (1, 1, 0)],
)
def test_the_first_column_follows_from_what_there_was(
    slots: int, columns: int, wanted: int
) -> None:
    assert layers.first_column(slots, columns) == wanted


def test_layers_that_store_are_numbered_as_in_the_model() -> None:
    sliding, full = cache().layers
    mixed = SimpleNamespace(layers=[Other(), sliding, layers.Nothing(), full])
    assert layers.holders(mixed) == {1: sliding, 3: full}
    assert layers.holders(SimpleNamespace()) == layers.holders(None) == {}
    assert all(map(layers.plain, [sliding, full, *cache(static=True).layers]))
    assert not layers.plain(Quantized())
    layers.Nothing().reset()


@pytest.mark.parametrize(
    ("modes", "types", "holding", "wanted"),
    [
        ([None, None], None, [0, 1], [0, 1]),
        (["store", "store", "reuse", "reuse"], ["s", "f", "s", "f"], [0, 1], [0, 1, 0, 1]),
        (["store", "store", "reuse", "reuse"], ["s", "f", "f", "s"], [0, 1], [0, 1, 1, 0]),
        (["store", None, "store", "reuse"], ["s", "s", "s", "s"], [0, 1, 2], [0, 1, 2, 2]),
        (["store", "store", "reuse"], None, [0, 1], [0, 1, 1]),
        ([None, None, "store", "reuse"], None, [0, 1, 2], [0, 1, 2, 2]),
        ([None, None], None, [0], "layer 1 of the model reads no layer that stores keys"),
        (["store", "reuse"], ["s", "f"], [0], "layer 1 of the model reads no layer"),
        ([None, None, None], None, [0, 2], "layer 1 of the model reads no layer"),
        (["store", "reuse"], ["s", "f"], [0, 1], [0, 1]),
    ],
)
def test_a_layer_reads_the_last_of_its_type_that_stores(
    modes: list[Any], types: Any, holding: list[int], wanted: Any
) -> None:
    config = SimpleNamespace(kv_sharing_modes=modes, layer_types=types)
    if isinstance(wanted, str):
        with pytest.raises(UnsupportedError, match=wanted):
            layers.owners(config, holding)
        return
    assert layers.owners(config, holding) == wanted
    if types is None:
        assert layers.owners(SimpleNamespace(kv_sharing_modes=modes), holding) == wanted


def test_what_is_left_of_a_static_layer_is_filled() -> None:
    for static in (False, True):
        made = cache(static=static)
        for layer in made.layers:
            before = layer.keys.clone()
            layers.clear(layer, 5.0)
            filled = 5.0 if counts_tokens(layer) else 0.0
            wanted = torch.full_like(before, filled) if static else before
            assert layer.keys.equal(wanted)
            assert layer.values.equal(wanted if static else -before)
    counting = SimpleNamespace(cumulative_length=0)
    assert (layers.unused(counting, 5.0), layers.unused(SimpleNamespace(), 5.0)) == (5.0, 0.0)
    for layer in StaticCache(config=CONFIG, max_cache_len=9).layers:
        layers.clear(layer, 5.0)  # nothing is there yet
    with pytest.raises(UnsupportedError, match="a Quantized of transformers' cache cannot go back"):
        layers.cut(Quantized(), 3, 2, None, 0.0)


def test_what_the_next_call_drops_is_kept_for_sliding_layers_alone() -> None:
    for static in (False, True):
        sliding, full = cache(static=static).layers
        assert layers.remember(full, 5) is None
        assert layers.remember(sliding, 0) is None
        kept = layers.remember(sliding, 5)
        assert kept is not None
        assert kept.columns == 5
        keys, values = sliding.keys.clone(), sliding.values.clone()
        sliding.update(torch.full((3, 1, 1, 2), 50.0), torch.full((3, 1, 1, 2), 60.0))
        assert kept.keys.equal(keys)
        assert kept.values.equal(values)


# Models and their sizes


class WithCache:
    """A model as far as its cache is concerned."""

    config = CONFIG
    dtype, device = torch.bfloat16, torch.device("cpu")

    def forward(self, past_key_values: Any = None) -> None: ...


class WithState(WithCache):
    def forward(self, cache_params: Any = None) -> None: ...


class Without(WithCache):
    def forward(self, input_ids: Any = None) -> None: ...


def test_a_model_must_keep_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    caches.require_keys(WithCache())
    with pytest.raises(UnsupportedError, match="WithState has no KV cache"):
        caches.require_keys(WithState())
    with pytest.raises(UnsupportedError, match="the forward of Without takes no cache"):
        caches.require_keys(Without())
    monkeypatch.setattr(caches, "dynamic", lambda model: SimpleNamespace(layers=[Other()]))
    with pytest.raises(UnsupportedError, match="WithCache has no KV cache"):
        caches.require_keys(WithCache())


def layer_of(**sizes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"num_attention_heads": 4, "hidden_size": 32} | sizes)


EACH = ([1, 4], [8, 8])


@pytest.mark.parametrize(
    ("config", "count", "wanted"),
    [
        (layer_of(), 2, (4, 8)), (layer_of(head_dim=16), 2, (4, 16)),
        (layer_of(head_dim=None, num_key_value_heads=None), 1, (4, 8)),
        (layer_of(num_key_value_heads=2), 3, (2, 8)),
        (layer_of(per_layer_config=[layer_of(), layer_of(head_dim=16)]), 2, ([4, 4], [8, 16])),
        (layer_of(per_layer_config=[layer_of(num_key_value_heads=1), layer_of()]), 2, EACH),
        (layer_of(per_layer_config=[layer_of(head_dim=4)] * 2), 2, (4, 4)),
    ],
)  # fmt: skip
def test_a_cache_has_the_heads_of_its_layers(config: Any, count: int, wanted: Any) -> None:
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda decoder: config if decoder else None)
    )
    assert caches._shapes(model, count) == wanted


@pytest.mark.parametrize("poison", [False, True])
def test_an_empty_static_cache_holds_nan_if_that_is_asked(poison: bool) -> None:
    made = caches.static(WithCache(), batch=3, capacity=9, poison=poison)
    assert type(made) is StaticCache
    for layer, slots in zip(made.layers, (WINDOW, 9), strict=True):
        if not poison or not counts_tokens(layer):
            assert not isinstance(layer.keys, Tensor)
            continue
        assert layer.keys.shape == layer.values.shape == (3, 1, slots, 2)
        assert layer.keys.dtype == torch.bfloat16
        assert bool((layer.keys.isnan() & layer.values.isnan()).all())


def test_a_static_cache_with_a_layer_that_counts_zeros_holds_zeros(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caches, "counts_tokens", lambda layer: layer.is_sliding)
    made = caches.static(WithCache(), batch=3, capacity=9, poison=True)
    assert not any(isinstance(layer.keys, Tensor) for layer in made.layers)


# What a view says


def view(*places: CacheRow, config: Any = CONFIG) -> SessionCache:
    return SessionCache(places, config)


def filled(static: bool = False, row: int = 0) -> CacheRow:
    return CacheRow(cache(static=static), row, [*range(5)], 5)


def test_a_view_has_the_layers_of_the_fullest_cache() -> None:
    assert view(CacheRow(None)).layers() == 2  # of one as it would be made
    empty = CacheRow(SimpleNamespace(layers=[]))
    one = CacheRow(SimpleNamespace(layers=cache().layers[:1]))
    assert view(empty, one).layers() == view(one, empty).layers() == 1
    assert view(one, filled()).layers() == view(filled(), one).layers() == 2


def test_the_window_of_a_layer_is_that_of_the_config() -> None:
    assert [view(filled()).window(layer) for layer in range(2)] == [WINDOW, None]
    each = [SimpleNamespace(sliding_window=11), SimpleNamespace(sliding_window=12)]
    config = SimpleNamespace(per_layer_config=each, sliding_window=3, model_type="mine")
    assert view(filled(), config=config).window(0) == 11
    config = SimpleNamespace(sliding_window=None, model_type="mine")
    with pytest.raises(UnsupportedError, match="layer 0 of this mine model attends in chunks"):
        view(filled(), config=config).window(0)
    assert view(filled(), config=config).window(1) is None


def test_a_layer_that_cannot_be_looked_at_says_so() -> None:
    with pytest.raises(UnsupportedError, match="layer 2 of the DynamicCache holds nothing for 0"):
        view(filled()).live(2, 0)
    fresh = CacheRow(StaticCache(config=CONFIG, max_cache_len=9), 0, [0], 1)
    with pytest.raises(UnsupportedError, match="layer 1 of the StaticCache holds nothing for 0"):
        view(fresh).live(1, 0)
    assert view(CacheRow(None)).live(0, 0) == range(0)
    more = filled()
    more.cache.layers[1].__class__ = Quantized
    assert view(more).live(0, 0) == range(5 - WINDOW + 1, 5)
    with pytest.raises(UnsupportedError, match="a Quantized, which keeps more than keys"):
        view(more).read(1, 0, 0, 1)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("row", [0, 2])
def test_what_is_written_is_read_in_its_row_alone(static: bool, row: int) -> None:
    place = filled(static, row)
    looks = view(place)
    before = [(x.keys.clone(), x.values.clone()) for x in place.cache.layers]
    k = torch.tensor([[[70.0, 71.0]], [[72.0, 73.0]]])
    looks.write(0, 0, 3, k, 2 * k)
    found = looks.read(0, 0, 3, 5)
    assert found[0].equal(k)
    assert found[1].equal(2 * k)
    assert all(x.is_contiguous() for x in found)
    assert looks.read(0, 0, 2, 3)[0].tolist() == [[[2.0, 2.0]]]
    first = layers.first_column(before[0][0].shape[2], 5)
    changed = [
        (x.keys != k0).nonzero()[:, [0, 2]]
        for x, (k0, _) in zip(place.cache.layers, before, strict=True)
    ]
    assert {tuple(each) for each in changed[0].tolist()} == {(row, 3 - first), (row, 4 - first)}
    assert len(changed[1]) == 0
    assert looks.round_trip(0, k, k) == (k, k)
    assert looks.owner(1) == 1


def test_a_place_without_a_cache_begins_again() -> None:
    place = CacheRow(None, 0, [0, 1], 2, lost={0: 1})
    place.reset(0.0)
    assert (place.slots, place.columns, place.before, place.lost) == ([], 0, {}, {})


def test_a_growing_cache_that_reset_does_not_empty_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caches, "unreset", lambda: "it keeps its keys")
    with pytest.raises(UnsupportedError, match="it keeps its keys"):
        filled().reset(0.0)
    place = filled(static=True)
    place.reset(3.0)
    assert place.cache.get_seq_length(1) == 0
    for layer in place.cache.layers:
        wanted = 3.0 if counts_tokens(layer) else 0.0
        assert bool((layer.keys == wanted).all())
        assert bool((layer.values == wanted).all())
