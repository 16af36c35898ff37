"""A whole step: built without a session, the same numbers in every way, nothing forgotten."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from kvparity.labs.bench import cases as sizes
from kvparity.labs.bench.calls import OURS, TileChoice
from kvparity.labs.bench.cases import SHAPES, STEPS, ModelShape, fitting
from kvparity.labs.bench.steps import (
    BOTH,
    NO_ATTENTION,
    NO_LINEAR,
    PLAIN,
    PreparedStep,
    config_of,
    sdpa,
)
from kvparity.labs.bench.ways import calls
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.attention_calls import AttentionOps
from kvparity.subjects.decoder.backends import operations
from kvparity.subjects.decoder.call_log import FIXED_ORDER
from kvparity.subjects.decoder.layers import layers_of
from kvparity.subjects.decoder.model import DecoderModel, Ops
from kvparity.subjects.decoder.presets import PRESETS
from kvparity.subjects.decoder.session import DecoderSession
from kvparity.subjects.decoder.storage import Storage, store_format
from kvparity_kernels import launch

TINY = ModelShape(4, 2, 16, 32, 64, 100, dtype="float32", layers=3, qk_norm=True)
# Float32: three layers of sums of at most 64 products, and logits of size one to ten.
BOUND = 5e-5


@pytest.fixture
def work():
    torch.manual_seed(0)
    return PreparedStep.made(TINY, 2, 1, 20, torch.device("cpu"))


def far(a, b):
    return float((a - b).abs().max())


@pytest.mark.parametrize(("batch", "rows", "keys"), [(2, 1, 20), (1, 20, 20)])
def test_every_way_of_a_step_computes_the_same(batch, rows, keys):
    ways = calls(sizes.step(TINY, batch, rows, keys), TINY, "cpu")
    assert list(ways) == [OURS, NO_ATTENTION, NO_LINEAR, BOTH, PLAIN]
    ours = ways[OURS]()
    assert ours.shape == (batch, 100)
    assert ours.dtype == torch.float32
    for name, way in ways.items():
        assert far(way(), ours) < BOUND, name
    assert torch.equal(ways[OURS]().view(torch.int32), ours.view(torch.int32))


def test_a_way_that_forgets_a_layer_is_seen(work, monkeypatch):
    ours = work.call(FIXED_ORDER, Ops())()
    whole = DecoderModel.hidden

    def short(model, batch, cache):
        fewer = replace(model.config, layers=2)
        weights = replace(model.weights, layers=model.weights.layers[:2])
        return whole(replace(model, config=fewer, weights=weights), batch, cache)

    monkeypatch.setattr(DecoderModel, "hidden", short)
    assert far(work.call(FIXED_ORDER, Ops())(), ours) > 100 * BOUND


def test_a_way_that_forgets_a_key_or_a_sequence_is_seen(work):
    ours, others = work.call(FIXED_ORDER, Ops())(), sdpa(2)

    def one_less(call):
        return others.decode(replace(call, max_kv=call.max_kv - 1))

    def wrong_sequence(call):
        return others.decode(replace(call, q=call.q.flip(0)))

    for attention in (one_less, wrong_sequence):
        changed = work.call(replace(others, decode=attention), Ops())()
        assert far(changed, ours) > 10 * BOUND


def test_a_step_is_that_of_a_session(work):
    """The session prepares and runs the same step; only where its numbers come from differs."""
    model, layout = work.model, Layout(slack=0)
    members = [Member(f"sequence {i}", 20, 20) for i in range(2)]
    storage = Storage(store_format(torch.float32))
    session = DecoderSession(model, members, layout, storage=storage, seed=0)
    for mine, theirs in zip(
        (*work.cache.k, *work.cache.v), (*session.cache().k, *session.cache().v), strict=True
    ):
        theirs.codes.copy_(mine.codes)
    step = tuple(Span(i, 19, 20, 19, decode=True) for i in range(2))
    ids = [[int(n)] for n in work.batch.ids]
    expected = torch.cat(list(session.forward(step, ids)))
    found = work.call(FIXED_ORDER, Ops())()
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("rows", [1, 20])
def test_nothing_asks_a_device_for_a_number(rows, monkeypatch):
    """Tensors without data stand in for a device: whatever reads a number raises."""
    monkeypatch.setattr(launch, "launch", lambda *values, **named: None)
    ways = calls(sizes.step(TINY, 1, rows, 20), TINY, "meta")
    assert [tuple(way().shape) for way in ways.values()] == [(1, 100)] * 5

    def asks(call):
        return call.q * call.kv.kv_lens[0].item(), call.kv.k

    work = PreparedStep.made(TINY, 1, rows, 20, torch.device("meta"))
    with pytest.raises(RuntimeError, match="meta"):
        work.call(AttentionOps(prefill=asks, decode=asks), operations("torch"))()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_are_those_of_the_presets(name):
    known = PRESETS[name]
    mine = config_of(SHAPES[name], known.max_positions)
    angles = {"rope_theta", "rms_eps"}
    changed = {n for n, v in asdict(mine).items() if v != getattr(known, n)}
    assert changed <= angles
    assert len(layers_of(mine)) == SHAPES[name].layers
    longest = max(keys for _, _, keys in STEPS)
    assert longest <= known.max_positions


def test_a_step_has_the_layers_that_fit():
    shape = SHAPES["qwen3-8b"]
    whole = list(sizes.cases(shape, ["step"]))
    assert len(whole) == len(STEPS)
    assert {case.size("layers") for case in whole} == {36}
    case = whole[0]  # one token behind 1023 others
    weights = 36 * 4096 * (2 * 32 * 128 + 2 * 8 * 128 + 3 * 12288) + 151_936 * 4096
    assert case.bytes == 2 * (weights + 36 * 2 * 1024 * 8 * 128)
    assert case.flops == 2 * weights + 36 * 4 * 1024 * 32 * 128
    gib = 1 << 30
    assert fitting(shape, 1, 1, 1024, 140 * gib).layers == 36
    assert 10 < fitting(shape, 64, 1, 8192, 64 * gib).layers < 36
    assert fitting(shape, 1, 1, 1024, gib).layers == 1
    assert "layers 36" in case.name


def test_the_step_is_ours_by_our_kernels(work, monkeypatch):
    seen = []

    def noted(call):
        seen.append(len(call.q))
        return FIXED_ORDER.decode(call)

    work.call(replace(FIXED_ORDER, decode=noted), Ops())()
    assert seen == [2, 2, 2]
    ways = calls(sizes.step(TINY, 2, 1, 20), TINY, "cpu", TileChoice())
    assert set(ways) == {OURS, NO_ATTENTION, NO_LINEAR, BOTH, PLAIN}
