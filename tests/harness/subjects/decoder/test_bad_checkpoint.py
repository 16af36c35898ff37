"""Checkpoint folders that are wrong: errors in plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_models import CPU, OLD, hugging_face
from safetensors.torch import load_file, save_file
from torch import Tensor

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder.checkpoint import load


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
        ({}, "weight_map is nothing; expected an object of tensor names and files"),
        ({"weight_map": {NORM: "../x.safetensors"}}, "expected the name of a file beside it"),
        ({"weight_map": {NORM: "other.safetensors"}}, "names other.safetensors, which is not"),
        ({"weight_map": {"model.more": "model.safetensors"}}, "lacks model.more, which"),
    ],
)
def test_a_wrong_index(folder: Path, index: dict[str, Any], message: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedError, match=message):
        load(folder, torch.float32, CPU)
