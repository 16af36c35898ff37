"""Seeded weights: the published stream, stable names, lively logits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder import oracle, rope
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.presets import PRESETS, preset
from kvparity.subjects.decoder.seeded import draw, seeded, with_scales
from kvparity.subjects.decoder.weights import fingerprint, tensor_shapes
from kvparity_contracts import presets as promised
from kvparity_kernels.store import StoreFormat

CPU = torch.device("cpu")
TINY = preset("tiny")
# llama without q/k norms, untied, and a larger vocabulary: the other branches of the scaling.
PLAIN = replace(TINY, family="llama", qk_norm=False, tied=False, qkv_bias=True, vocab=4096)
IDS = [(37 * n * n + 11 * n) % 256 for n in range(120)]


def test_a_tensor_does_not_depend_on_how_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    shape = tensor_shapes(TINY)[name]
    whole = draw(TINY, name, shape, 0, torch.float32, CPU)
    monkeypatch.setattr("kvparity.subjects.decoder.seeded._CHUNK", 1000)
    pieces = draw(TINY, name, shape, 0, torch.float32, CPU)
    assert torch.equal(whole.view(torch.int32), pieces.view(torch.int32))


def test_the_weights_are_these() -> None:
    # A golden value: the same on every device and torch version, or old reports cannot be replayed.
    # Of a shape that stays as it is, whatever becomes of a preset.
    shape = replace(TINY, heads=4)
    assert fingerprint(seeded(shape, 0, torch.bfloat16, CPU)) == "0bd9b66730abfdaa"
    assert fingerprint(seeded(shape, 1, torch.bfloat16, CPU)) != "0bd9b66730abfdaa"


def test_the_fingerprint_sees_one_bit_and_a_swap() -> None:
    weights = seeded(TINY, 0, torch.float32, CPU)
    before = fingerprint(weights)
    flat = weights.layers[1].down.view(-1)
    flat[:2] = flat[:2].flip(0)
    assert fingerprint(weights) != before
    flat[:2] = flat[:2].flip(0)
    assert fingerprint(weights) == before
    flat.view(torch.int32)[5] ^= 1
    assert fingerprint(weights) != before


def test_the_fingerprint_sees_sinks_and_scales() -> None:
    weights = seeded(replace(TINY, attention_sinks=True), 0, torch.float32, CPU)
    plain = fingerprint(weights)
    scaled = with_scales(TINY, weights, StoreFormat("fp8_e4m3", per_head=True), 0)
    assert fingerprint(scaled) != plain
    before = fingerprint(scaled)
    for tensor in (scaled.layers[1].sinks, scaled.layers[0].v_scale):
        assert tensor is not None
        tensor.view(torch.int32)[1] ^= 1
        assert fingerprint(scaled) != before
        tensor.view(torch.int32)[1] ^= 1
        assert fingerprint(scaled) == before
    assert with_scales(TINY, weights, StoreFormat("bfloat16"), 0) is weights


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["tiny", "plain"])
def test_logits_are_lively(config: DecoderShape) -> None:
    weights = seeded(config, 0, torch.float32, CPU)
    cos, sin = rope.tables(config, len(IDS))
    logits = oracle.logits(config, weights, cos, sin, IDS, range(len(IDS)))
    logp = logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    assert 3.0 < entropy.mean() < 5.0
    assert entropy.max() < math.log(config.vocab) - 0.3
    # No token mostly predicts itself, though the head may be the embedding.
    own = logp.gather(1, torch.tensor(IDS)[:, None])
    assert own.mean() < -3.0


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["tiny", "plain"])
def test_an_old_token_matters(config: DecoderShape) -> None:
    weights = seeded(config, 0, torch.float32, CPU)
    cos, sin = rope.tables(config, len(IDS))

    def last(ids: list[int]) -> torch.Tensor:
        rows = range(len(ids) - 1, len(ids))
        return oracle.logits(config, weights, cos, sin, ids, rows)[0]

    base = last(IDS)
    for position in (3, 60, 110):
        other = list(IDS)
        other[position] ^= 1
        # Far above bfloat16's rounding of logits of this size (about 1e-2).
        assert (last(other) - base).abs().max() > 3e-2, position


def test_presets_are_the_ones_that_contracts_know() -> None:
    assert {name: (c.max_positions, c.vocab) for name, c in PRESETS.items()} == {
        name: (known.max_positions, known.vocab_size) for name, known in promised.PRESETS.items()
    }


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("qwen3-0.6b", 596_049_920), ("qwen3-8b", 8_190_735_360), ("llama3-8b", 8_030_261_248)],
)
def test_presets_have_the_published_size(name: str, parameters: int) -> None:
    assert sum(math.prod(shape) for shape in tensor_shapes(preset(name)).values()) == parameters


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"no decoder preset 'huge'; there are tiny"):
        preset("huge")
