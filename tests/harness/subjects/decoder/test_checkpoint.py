"""Checkpoint folders: agreement with transformers in float64, and errors in plain words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder import oracle, rope
from kvparity.subjects.decoder.checkpoint import load
from kvparity.subjects.decoder.subject import DecoderSubject

CPU = torch.device("cpu")
IDS = [5, 17, 17, 3, 60, 0, 42, 8, 9, 10, 11, 33, 2, 1, 58, 29, 29, 29, 7, 31]

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "attn_implementation": "sdpa",  # the eager one has a float32 softmax in every dtype
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Every switch that the forward pass has, at least once.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-head_dim": ("Llama", {"head_dim": 16, "tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3-window": (
        "Qwen3",
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "qwen3-biases": (
        "Qwen3",
        {"head_dim": 24, "attention_bias": True, "tie_word_embeddings": True},
    ),
}


OLD = transformers.__version__ < "5"


def _named(switches: dict[str, Any]) -> dict[str, Any]:
    """The switches under the names that this transformers has for them."""
    if not OLD or "rope_parameters" not in switches:
        return switches
    scaling = dict(switches["rope_parameters"])
    theta = scaling.pop("rope_theta")
    plain = scaling["rope_type"] == "default"
    rope = {"rope_theta": theta, "rope_scaling": None if plain else scaling}
    return {name: x for name, x in switches.items() if name != "rope_parameters"} | rope


def hugging_face(name: str) -> Any:
    """A random transformers model in float64, every parameter away from its default."""
    family, switches = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**SMALL | _named(switches))
    model = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            wide = 1.0 / math.sqrt(parameter.shape[-1]) if parameter.dim() == 2 else 0.3
            parameter.copy_(noise * wide + (1.0 if "norm" in key else 0.0))
    return model


def logits_of(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]  # type: ignore[no-any-return] # untyped


def oracle_of(folder: Path) -> Tensor:
    config, weights = load(folder, torch.float64, CPU)
    cos, sin = rope.tables(config, len(IDS))
    return oracle.logits(config, weights, cos, sin, IDS, range(len(IDS)))


def exact_norm(self: Any, hidden_states: Tensor) -> Tensor:
    mean = hidden_states.pow(2).mean(-1, keepdim=True)
    return hidden_states * torch.rsqrt(mean + self.variance_epsilon) * self.weight  # type: ignore[no-any-return] # untyped self


@pytest.mark.parametrize("name", MODELS)
def test_the_oracle_is_transformers_in_float64(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = hugging_face(name)
    model.save_pretrained(tmp_path)
    mine = oracle_of(tmp_path)
    # transformers' RMSNorm casts to float32 also in a float64 model: every normed element carries
    # an error of up to 2**-24 of itself, twice a layer, on logits of size about 3.
    assert (mine - logits_of(model)).abs().max() < 5e-6
    # With that one function in float64 nothing but rounding is left (the RoPE tables are float32
    # on both sides): some hundred roundings of 2**-53 on numbers below 10.
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            monkeypatch.setattr(type(module), "forward", exact_norm)
    assert (mine - logits_of(model)).abs().max() < 1e-13


def test_the_comparison_sees_one_wrong_weight(tmp_path: Path) -> None:
    model = hugging_face("qwen3")
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        model.model.layers[1].self_attn.k_norm.weight[0] += 1e-2
    assert (oracle_of(tmp_path) - logits_of(model)).abs().max() > 1e-3


def test_llama3_scaling_moves_the_frequencies(tmp_path: Path) -> None:
    hugging_face("llama").save_pretrained(tmp_path / "plain")
    hugging_face("llama3-rope").save_pretrained(tmp_path / "scaled")
    assert (oracle_of(tmp_path / "plain") - oracle_of(tmp_path / "scaled")).abs().max() > 1e-2
    model = hugging_face("llama3-rope")
    config, _ = load(tmp_path / "scaled", torch.float32, CPU)
    mine = rope.inverse_frequencies(config)
    assert torch.equal(
        mine.view(torch.int32), model.model.rotary_emb.inv_freq.float().view(torch.int32)
    )


@pytest.mark.parametrize("name", ["qwen2", "qwen3-biases", "llama3-rope"])
def test_execution_is_close_to_the_oracle(name: str, tmp_path: Path) -> None:
    hugging_face(name).save_pretrained(tmp_path)
    config, weights = load(tmp_path, torch.float32, CPU)
    subject = DecoderSubject(config, weights, kv_cache=torch.float32, twin=True)
    member = Member("a", len(IDS))
    step = (Span(0, 0, len(IDS), rows_from=0),)
    rows = torch.cat(list(subject.session([member], Layout()).forward(step, [IDS])))
    exact = subject.oracle(member, IDS, range(len(IDS)))
    # Some hundred float32 roundings (2**-24) on logits below 10, adding up like a random walk.
    assert (rows - exact).abs().max() < 2e-5


def test_sharded_is_the_same_as_single(tmp_path: Path) -> None:
    model = hugging_face("qwen3")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = oracle_of(tmp_path / "one"), oracle_of(tmp_path / "many")
    assert torch.equal(one.view(torch.int64), many.view(torch.int64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hugging_face("qwen3").save_pretrained(tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder: Path, **changes: Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")


NORM = "model.layers.1.self_attn.q_norm.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"model_type": "gemma"}, "model_type is 'gemma'"),
        ({"sliding_window": 8, "model_type": "llama"}, "a llama has no window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "a sliding_attention layer wit"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention is not supp"),
        ({"layer_types": "full_attention"}, "layer_types must be a list, found 'full_attention'"),
        ({"layer_types": [{}, {}]}, r"\{\} is not supported, only full_attention"),
        ({"rope_parameters": "llama3"}, "rope_parameters must be an object, found 'llama3'"),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention"],
            },
            "1 layer_types for 2 layers",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "RoPE scaling 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 4.0}}, "RoPE: low_freq_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3 KV heads"),
        ({"hidden_size": "32"}, "hidden_size must be an integer, found '32'"),
        ({"vocab_size": None}, "vocab_size must be an integer, found None"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number"),
        ({"attention_bias": "no"}, "attention_bias must be true or false"),
        ({"head_dim": 17}, "even head_dim"),
        ({"head_dim": 8}, "head_dim is 8; the attention kernels take 16 to 256"),
        ({"num_hidden_layers": 0}, "layers is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected at most 4096"),
    ],
)
def test_an_unsupported_config(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(UnsupportedError, match=message):
        load(folder, torch.float32, CPU)


def test_the_old_rope_keys_mean_the_same(folder: Path) -> None:
    new = load(folder, torch.float32, CPU)[0]
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if OLD:  # it writes the old keys, and the new ones must mean the same
        rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
        del config["rope_scaling"]
        path.write_text(json.dumps(config | {"rope_parameters": rope}))
    else:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        path.write_text(json.dumps(config | {"rope_scaling": None}))
    assert load(folder, torch.float32, CPU)[0] == new


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: None}, f"lacks {NORM}"),
        ({"model.stranger": torch.zeros(2)}, "holds model.stranger"),
        ({NORM: torch.zeros(3)}, r"q_norm.weight is \[3\], its config.json makes it \[16\]"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_says(
    folder: Path, changes: dict[str, Tensor | None], message: str
) -> None:
    change_tensors(folder, **changes)
    with pytest.raises(UnsupportedError, match=message):
        load(folder, torch.float32, CPU)


def test_a_tensor_in_integers_is_refused(folder: Path) -> None:
    change_tensors(folder, **{NORM: torch.zeros(16, dtype=torch.int8)})
    with pytest.raises(UnsupportedError, match="stored as I8"):
        load(folder, torch.float32, CPU)


def test_a_stored_head_of_a_tied_model_must_be_its_embedding(folder: Path) -> None:
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    change_config(folder, tie_word_embeddings=True)
    with pytest.raises(UnsupportedError, match="tie_word_embeddings"):
        load(folder, torch.float32, CPU)
    change_tensors(folder, **{"model.embed_tokens.weight": head.clone()})
    weights = load(folder, torch.float32, CPU)[1]
    assert weights.head is weights.embed


def test_old_rotary_buffers_are_passed_over(folder: Path) -> None:
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(folder, **{buffer: torch.zeros(8)})
    load(folder, torch.float32, CPU)


def test_missing_files(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match="no checkpoint folder"):
        load(folder / "nowhere", torch.float32, CPU)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedError, match=r"pytorch_model\.bin is pickle"):
        load(folder, torch.float32, CPU)
    (folder / "config.json").unlink()
    with pytest.raises(UnsupportedError, match=r"no config\.json"):
        load(folder, torch.float32, CPU)


def test_broken_files(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(UnsupportedError, match="cannot be read as safetensors"):
        load(folder, torch.float32, CPU)
    (folder / "config.json").write_text("{")
    with pytest.raises(UnsupportedError, match="cannot be read as JSON"):
        load(folder, torch.float32, CPU)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UnsupportedError, match="not an object"):
        load(folder, torch.float32, CPU)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {NORM: "../x.safetensors"}}, "not the name of a file beside it"),
        ({"weight_map": {NORM: "other.safetensors"}}, "names other.safetensors, which is not"),
        ({"weight_map": {"model.more": "model.safetensors"}}, "lacks model.more, which"),
    ],
)
def test_a_wrong_index(folder: Path, index: dict[str, Any], message: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedError, match=message):
        load(folder, torch.float32, CPU)
