"""Which keys of a configuration are read, how large a model may be, and what would be fetched."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kvparity.core import offline
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import config_keys, sizes

# Keys that a class or its model reads


class Old:
    """A configuration with an old name, as transformers has them."""

    attribute_map = {"width": "hidden_size"}  # noqa: RUF012 - as transformers has it

    def __init__(self, hidden_size: int = 4, **kwargs: Any) -> None:
        self.pct = kwargs.pop("rotary_pct", 1.0)
        if hidden_size < 0:
            kwargs.pop()
        kwargs.pop(str(hidden_size), None)
        kwargs.update(not_this=1)
        other: dict[str, Any] = {}
        other.pop("nor_this", None)

    def __post_init__(self, **kwargs: Any) -> None:
        self.bias = kwargs.get("bias_kind")

    def elsewhere(self, **kwargs: Any) -> None:
        kwargs.pop("of_another_method")

    def to_dict(self) -> dict[str, Any]:
        return {"hidden_size": 4}


class Newer(Old):
    """With RoPE, in a class of its own."""

    def convert_rope_params_to_dict(self, **kwargs: Any) -> None:
        self.theta = kwargs.pop("old_theta", None)


def test_a_class_lists_its_fields_arguments_and_names_for_them() -> None:
    common = {"rope_theta", "rope_scaling", "experts_implementation"}
    assert config_keys.listed(Old) == {"hidden_size", "kwargs", "width", *common}


@pytest.mark.parametrize(
    ("kind", "rotary", "wanted"),
    [
        (Old, True, {"rotary_pct", "bias_kind"}),
        (Newer, False, {"rotary_pct", "bias_kind"}),
        (Newer, True, {"rotary_pct", "bias_kind", "old_theta"}),
    ],
)
def test_a_class_takes_what_its_methods_look_for(
    kind: type, rotary: bool, wanted: set[str]
) -> None:
    assert config_keys.taken(kind, rotary) == wanted


SOURCE = """
def forward(config, layer, name):
    a = config.rotary_dim
    b = layer.self_config.head_dim
    c = getattr(config, "shared_layers", None)
    d = hasattr(layer.config, "asked")
    e = layer.weight + getattr(layer, "bias") + getattr(config, name)
    f = setattr(config, "not_read", 1), getattr(config, 3)
"""
READ = {"rotary_dim", "head_dim", "shared_layers", "asked"}


def test_a_model_reads_what_its_module_takes_of_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_model_of_a_test.py").write_text(f"class Model: ...\n{SOURCE}")
    monkeypatch.syspath_prepend(tmp_path)
    import a_model_of_a_test as module  # type: ignore[import-not-found]

    known = {Old: module.Model}
    monkeypatch.setattr(config_keys, "MODEL_FOR_CAUSAL_LM_MAPPING", known)
    try:
        found = config_keys.read(Old)
    finally:
        del sys.modules["a_model_of_a_test"]
    assert found == READ
    assert config_keys.read(Newer) == set()


@pytest.mark.parametrize("thing", [dict, dict.get, len])
def test_what_has_no_source_reads_nothing(thing: Any) -> None:
    assert not ast.dump(config_keys._tree(thing)).count("Attribute")
    assert not list(config_keys._read(config_keys._tree(thing)))


@pytest.mark.parametrize(
    ("model_type", "rest", "words"),
    [
        ("llama", {}, None),
        ("llama", {"hidden_size": 4, "rope_theta": 1.0}, None),
        ("gpt_neox", {"rotary_pct": 0.5}, None),
        (
            "llama",
            {"hidden_sizes": 4},
            r"hidden_sizes is not .* llama model; did you mean hidden_s",
        ),
        ("llama", {"hidden_size": 4, "zzzzzz": 4}, r"zzzzzz is not a setting of a llama model$"),
        ("llama", {"dtype": "float32"}, "config.dtype does not belong here; .* numerics.execution"),
        ("llama", {"torch_dtype": 1}, "config.torch_dtype does not .* numerics.execution"),
        (
            "llama",
            {"attn_implementation": 1},
            "does not belong here; state it in subject.attention",
        ),
        ("llama", {"_attn_implementation": 1}, "does not belong here; state it in subject.attent"),
        ("llamma", {}, "knows no model_type 'llamma'; did you mean llama"),
        ("zzzzzzzz", {}, "knows no model_type 'zzzzzzzz'$"),
        (None, {}, "knows no model_type None"),
    ],
)
def test_a_wrong_key_is_named(model_type: Any, rest: dict[str, Any], words: str | None) -> None:
    if words is None:
        config_keys.check(model_type, rest)
        return
    with pytest.raises(ValueError, match=words):
        config_keys.check(model_type, rest)


# Sizes


@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "n_layer", "num_layers", "depth", "n_blocks", "decoder_layers"]
)
@pytest.mark.parametrize("inside", [False, True])
def test_as_many_modules_as_a_model_can_have(key: str, inside: bool) -> None:
    if key == "decoder_layers":  # not a name that is bounded
        sizes.bounded({key: 10**9}, "config")
        return
    for count, right in ((4096, True), (4097, False), (4096.5, False), (True, True), ("x", True)):
        keys = {"text_config": {key: count}} if inside else {"vocab_size": 10**9, key: count}
        if right:
            sizes.bounded(keys, "config")
            continue
        place = f"text_config.{key}" if inside else key
        with pytest.raises(UnsupportedError, match=f"{place} is {count}; expected at most 4096"):
            sizes.bounded(keys, "config")


def test_as_many_experts_as_a_model_can_have() -> None:
    sizes.bounded({"num_local_experts": 65_536, "n_routed_experts": 8, "other": [1.0]}, "config")
    with pytest.raises(UnsupportedError, match="experts is 65537; expected at most 65536"):
        sizes.bounded({"a": "x", "b": True, "num_experts": 65_537}, "config")
    with pytest.raises(UnsupportedError, match=r"here: a\.b\[1\] is NaN; expected a number"):
        sizes.bounded({"a": {"b": [1, float("nan")]}}, "here")


TINY = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "each"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_model_fits_where_its_bytes_are(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, each: int
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**TINY)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    count = sum(p.numel() for p in model.parameters())
    rotary = sum(b.numel() * b.element_size() for b in model.buffers())  # float32, as it is built
    needed = count * each + rotary
    before = torch.get_rng_state()
    how: dict[str, Any] = {"dtype": dtype, "device": torch.device("cpu"), "where": "config"}
    monkeypatch.setattr(sizes, "memory", lambda device: needed)
    sizes.fits(config, **how)
    monkeypatch.setattr(sizes, "memory", lambda device: needed - 1)
    words = f"shape has {count:,} parameters, 0.0 GB as {str(dtype)[6:]}, but cpu has 0.0 GB"
    with pytest.raises(UnsupportedError, match=words):
        sizes.fits(config, **how)
    assert torch.get_rng_state().equal(before)


def test_a_model_that_cannot_be_built_says_so() -> None:
    from transformers import ViTConfig

    how: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}
    with pytest.raises(UnsupportedError, match="here: a vit model cannot be built: ValueError: "):
        sizes.fits(ViTConfig(), where="here", **how)


def test_memory_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    there = {"SC_PHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", there.__getitem__)
    assert sizes.memory(torch.device("cpu")) == 7 * 4096
    card = SimpleNamespace(total_memory=11)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert sizes.memory(torch.device("cuda")) == 11


# Nothing is fetched


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_type": "llama", "auto_map": {"AutoModel": "mine.Mine"}}, None),
        ({"trust_remote_code": False, "custom_generate": None}, None),
        ({"trust_remote_code": True}, "trust_remote_code is True, which is code or settings"),
        ({"a": {"custom_generate": "x/y"}}, "a.custom_generate is 'x/y', which is code"),
        ({"configuration_files": ["a"]}, "configuration_files is ['a'], which is code"),
        ({"attn_implementation": "sdpa"}, None),
        ({"_attn_implementation_internal": "eager", "experts_implementation": "eager"}, None),
        ({"_attn_implementation": None}, None),
        ({"attn_implementation": {"": "sdpa", "text": "eager"}}, None),
        ({"attn_implementation": "x/y"}, "attn_implementation names 'x/y', which transformers"),
        ({"_attn_implementation_internal": "x/y"}, "internal names 'x/y', which transformers"),
        ({"a": "b", "experts_implementation": {"": None, "t": "x/y"}}, "names 'x/y', which tr"),
        ({"attn_implementation": "sdpa", "b": {"attn_implementation": "p"}}, "b.attn_implem"),
    ],
)
def test_what_would_be_fetched_is_named(keys: dict[str, Any], said: str | None) -> None:
    found = offline.fetches(keys)
    assert found is None if said is None else said in str(found)


def test_libraries_are_offline_whether_or_not_they_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    for name in variables:
        monkeypatch.setenv(name, "0")
    stand_ins = {
        "huggingface_hub.constants": SimpleNamespace(HF_HUB_OFFLINE=False),
        "transformers.utils.hub": SimpleNamespace(),  # transformers 5: no such flag
        "datasets.config": SimpleNamespace(HF_DATASETS_OFFLINE=False, HF_HUB_OFFLINE=False),
        "huggingface_hub.utils._http": SimpleNamespace(
            reset_sessions=lambda: closed.append("reset"),
            close_session=lambda: closed.append("close"),
        ),
    }
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    offline.ensure()
    import os

    assert [os.environ[name] for name in variables] == ["1"] * 3
    assert closed == ["reset", "close"]
    assert vars(stand_ins["huggingface_hub.constants"]) == {"HF_HUB_OFFLINE": True}
    assert vars(stand_ins["transformers.utils.hub"]) == {}
    assert set(vars(stand_ins["datasets.config"]).values()) == {True}
    del stand_ins["huggingface_hub.utils._http"].reset_sessions  # huggingface_hub 1
    offline.ensure()
    assert closed == ["reset", "close", "close"]
    for name in stand_ins:
        monkeypatch.delitem(sys.modules, name)
    offline.ensure()
    assert len(closed) == 3
