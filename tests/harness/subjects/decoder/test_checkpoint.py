"""Checkpoint folders: agreement with transformers in float64, and errors in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_models import CPU, MODELS, hugging_face
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.decoder import oracle, rope
from kvparity.subjects.decoder.checkpoint import load
from kvparity.subjects.decoder.subject import DecoderSubject

IDS = [5, 17, 17, 3, 60, 0, 42, 8, 9, 10, 11, 33, 2, 1, 58, 29, 29, 29, 7, 31]


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
