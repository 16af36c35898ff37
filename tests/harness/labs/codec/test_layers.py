"""Layer plans against the caches that transformers really makes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from codec_models import TINY, tiny_config
from tiny_transformers import needs
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvparity.core.bits import differing
from kvparity.core.relied.transformers import cache_argument
from kvparity.labs.codec.families import FAMILIES
from kvparity.labs.codec.layers import LayerKV, layer_plan, stored
from kvparity.subjects.base import UnsupportedError

KIND = {
    "DynamicLayer": "full",
    "DynamicSlidingWindowLayer": "window",
    "LinearAttentionLayer": "state",
    "DummyLayer": "shared",
}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """transformers warns of token ids in some of its own defaults."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def caches(config: Any) -> list[tuple[str, int]]:
    """Kind and window of every layer of the cache that transformers makes."""
    layers = DynamicCache(config=config).layers
    kinds = [(KIND[type(x).__name__], int(getattr(x, "sliding_window", 0))) for x in layers]
    # Before transformers 5 a layer that shares has no place in the cache.
    return kinds + [("shared", 0)] * (config.num_hidden_layers - len(kinds))


def planned(plan: tuple[LayerKV, ...]) -> list[tuple[str, int]]:
    return [(x.kind, x.window if x.stores else 0) for x in plan]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_plan_has_the_kinds_and_windows_of_the_cache(name: str) -> None:
    needs(name)
    config = CONFIG_MAPPING[name]()
    plan = layer_plan(config)
    assert planned(plan) == caches(config)
    assert plan == layer_plan(config.to_dict())
    assert plan == layer_plan(json.loads(config.to_json_string(use_diff=False)))


@pytest.mark.parametrize("name", sorted(n for n in FAMILIES if FAMILIES[n].types is not None))
def test_what_a_class_fills_in_is_filled_in(name: str) -> None:
    """The least that a config.json may say: everything with a default is left out."""
    needs(name)
    whole = CONFIG_MAPPING[name]().to_dict()
    family = FAMILIES[name]
    assert {k: whole[k] for k in family.defaults} == {
        k: None if k == "sliding_window" and name in ("qwen2", "qwen3") else v
        for k, v in family.defaults.items()
    }
    left_out = {"layer_types", "per_layer_config", *family.defaults}
    assert layer_plan({k: v for k, v in whole.items() if k not in left_out}) == layer_plan(whole)


OLD: dict[str, dict[str, Any]] = {
    "a Gemma 3 by its pattern": {"model_type": "gemma3_text", "sliding_window_pattern": 3},
    "a Cohere 2 by its pattern": {"model_type": "cohere2", "sliding_window_pattern": 2},
    "a Qwen 3 Next by its interval": {"model_type": "qwen3_next", "full_attention_interval": 3},
    "a Qwen 2 with its switch on": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 77,
        "max_window_layers": 2,
    },
    "a Qwen 2 with its switch off": {
        "model_type": "qwen2",
        "use_sliding_window": False,
        "sliding_window": 77,
        "max_window_layers": 2,
    },
    "a Mistral without a window": {"model_type": "mistral", "sliding_window": None},
    "a Phi 3 with a window": {"model_type": "phi3", "sliding_window": 33},
    "a Gemma 4 with wide heads": {
        "model_type": "gemma4_text",
        "global_head_dim": 64,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
    },
    "a Gemma 4 whose wide heads are as many": {
        "model_type": "gemma4_text",
        "global_head_dim": 64,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": False,
    },
    "a Gemma 4 that ends in a window": {
        "model_type": "gemma4_text",
        "layer_types": ["full_attention", *["sliding_attention"] * 6],
    },
}


@pytest.mark.parametrize("case", sorted(OLD))
def test_keys_of_older_files_are_read_as_transformers_reads_them(case: str) -> None:
    needs(OLD[case]["model_type"])
    data = {
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 64,
        "head_dim": 16,
        **OLD[case],
    }
    given = {k: v for k, v in data.items() if k != "model_type"}
    config = AutoConfig.for_model(data["model_type"], **given)
    assert layer_plan(data) == layer_plan(config)
    assert planned(layer_plan(data)) == caches(config)


def forward(config: Any, length: int) -> list[Any]:
    """The cache's layers after a prompt of ``length`` tokens, of a model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    cache = DynamicCache(config=model.config)
    ids = torch.arange(length)[None] % 100 + 3
    with torch.inference_mode():
        model(input_ids=ids, **{cache_argument(model): cache}, use_cache=True)
    return list(cache.layers)


LENGTH = 21  # past every window of the tiny models


def shapes_by_plan(plan: tuple[LayerKV, ...]) -> list[tuple[int, ...]]:
    """A growing cache keeps all of a window but the key that the next query brings along."""
    return [
        (1, x.kv_heads, min(LENGTH, x.window - 1) if x.window else LENGTH, x.head_dim)
        for x in stored(plan)
    ]


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_plan_has_the_shapes_that_a_model_stores(name: str) -> None:
    config = tiny_config(name)
    plan = layer_plan(config)
    assert planned(plan) == caches(config)
    layers = forward(config, LENGTH)
    found = [(tuple(x.keys.shape), tuple(x.values.shape)) for x in layers if has_keys(x)]
    assert found == [(shape, shape) for shape in shapes_by_plan(plan)]
    assert [i for i, x in enumerate(layers) if has_keys(x)] == [x.owner for x in stored(plan)]


def has_keys(layer: Any) -> bool:
    return getattr(layer, "keys", None) is not None


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and not bool(differing(a, b).any())


@pytest.mark.parametrize("name", ["gemma3n_text", "gemma4_text"])
def test_a_sharing_layer_is_given_the_keys_of_its_owner(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention is watched: the keys it is given are the owner's, and no other layer's."""
    config = tiny_config(name)
    plan = layer_plan(config)
    seen: dict[int, torch.Tensor] = {}
    real = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def watched(module: Any, q: Any, k: torch.Tensor, v: Any, *args: Any, **kwargs: Any) -> Any:
        seen[module.layer_idx] = k.clone()
        return real(module, q, k, v, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", watched)
    forward(config, LENGTH)
    followers = [i for i, x in enumerate(plan) if x.kind == "shared"]
    assert followers
    for number in followers:
        owners = [x.owner for x in stored(plan) if same_bits(seen[x.owner], seen[number])]
        assert owners == [plan[number].owner]


def test_a_static_cache_has_the_slots_of_the_plan() -> None:
    config = tiny_config("gemma3_text")
    plan = layer_plan(config)
    lengths = [x.max_cache_len for x in StaticCache(config=config, max_cache_len=LENGTH).layers]
    assert lengths == [x.tokens(LENGTH) for x in plan]


def test_composite_configurations_are_read_for_their_text_model() -> None:
    text = {"num_hidden_layers": 12, "sliding_window": 1024}
    plan = layer_plan({"model_type": "gemma3", "text_config": text})
    assert len(plan) == 12
    assert plan[0] == LayerKV("window", 0, kv_heads=4, head_dim=256, window=1024)
    assert plan[5] == LayerKV("full", 5, kv_heads=4, head_dim=256)
    whole = CONFIG_MAPPING["gemma3"](text_config={"model_type": "gemma3_text", **text})
    assert layer_plan(whole) == plan


GOOD: Mapping[str, Any] = {
    "model_type": "gemma2",
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_size": 64,
    "sliding_window": 8,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "no layer plan is known for model_type 'gpt2'"),
        ({"model_type": None}, "model_type None"),
        ({"num_hidden_layers": None}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
        ({"sliding_window": None}, "sliding_window must be a whole number"),
        ({"sliding_window": 0}, "sliding_window must be a whole number"),
        ({"layer_types": ["full_attention"]}, "1 layer_types for 4 layers"),
        ({"layer_types": ["full_attention"] * 3 + ["hybrid"]}, "layers of type 'hybrid'"),
        ({"kv_lora_rank": 64}, "has kv_lora_rank"),
        ({"v_head_dim": 8}, "has v_head_dim"),
        ({"is_encoder_decoder": True}, "does not decode token by token"),
        ({"num_kv_shared_layers": 3}, "none comes before the 3"),
        ({"num_kv_shared_layers": -1}, "whole number from 0 on"),
        ({"model_type": "smollm3"}, "has no layer_types"),
        ({"per_layer_config": [1]}, "per_layer_config is no mapping"),
    ],
)
def test_what_cannot_be_planned_is_refused(change: dict[str, Any], words: str) -> None:
    assert len(layer_plan(GOOD)) == 4
    with pytest.raises(UnsupportedError, match=words):
        layer_plan({**GOOD, **change})


def test_no_configuration_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="a int is no configuration"):
        layer_plan(3)


def test_tokens_stop_growing_at_the_window() -> None:
    full, window = LayerKV("full", 0, 2, 16), LayerKV("window", 1, 2, 16, window=8)
    shared = LayerKV("shared", 1, 2, 16, window=8)
    assert [full.tokens(n) for n in (1, 8, 9)] == [1, 8, 9]
    assert [window.tokens(n) for n in (1, 7, 8, 9, 900)] == [1, 7, 8, 8, 8]
    assert shared.tokens(900) == 0
