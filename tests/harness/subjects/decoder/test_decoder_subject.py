"""The decoder as a subject: what it takes, what it refuses, what it tells."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.subjects.attention_calls import AttentionOps
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.decoder.model import Ops
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.session import device_memory
from kvparity.subjects.decoder.subject import DecoderSubject, build
from kvparity_contracts.subjects import Decoder
from kvparity_kernels.order import ReductionOrder

CPU = torch.device("cpu")
MEMBERS = (Member("a", 36, 31), Member("b", 19, 14))
TOKENS = [3, 1, 4, 1, 5, 9, 2]


@cache
def subject() -> DecoderSubject:
    config = replace(preset("tiny"), layers=1, max_positions=64)
    order = ReductionOrder(split=32, tile=16, block_m=16)
    weights = seeded(config, 0, torch.float32, CPU)
    return DecoderSubject(config, weights, kv_cache=torch.float32, order=order, twin=True)


def test_blocks_of_the_head_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    step = (Span(0, 0, 7, 0),)
    whole_head = list(subject().session(MEMBERS, Layout()).forward(step, [TOKENS]))
    monkeypatch.setattr("kvparity.subjects.decoder.model.HEAD_BYTES", 3 * 256 * 4)
    blocks = list(subject().session(MEMBERS, Layout()).forward(step, [TOKENS]))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert torch.equal(torch.cat(blocks).view(torch.int32), whole_head[0].view(torch.int32))


def test_attention_is_replaced_without_copying_weights() -> None:
    which = subject()
    ops = AttentionOps(prefill=which.attention.prefill, decode=lambda call: (call.q, call.q))
    other = which.with_attention(ops)
    assert other.attention is ops
    assert which.attention is not ops
    assert other.model.weights is which.model.weights
    given = DecoderSubject(
        which.model.config, which.model.weights, kv_cache=torch.float32, attention=ops
    )
    assert given.attention is ops


def test_operations_are_replaced_one_by_one() -> None:
    which = subject()
    calls: list[str] = []

    def told(name: str) -> Any:
        def call(*args: Any, **more: Any) -> torch.Tensor:
            calls.append(name)
            found: torch.Tensor = getattr(which.ops, name)(*args, **more)
            return found * 2 if name == "swiglu" else found

        return call

    names = [field.name for field in fields(Ops)]
    other = which.with_ops(Ops(**{name: told(name) for name in names}))
    assert other.model.weights is which.model.weights
    step = (Span(0, 0, 7, 0),)
    (found,) = other.session(MEMBERS, Layout()).forward(step, [TOKENS])
    assert set(calls) == set(names)
    (clean,) = which.session(MEMBERS, Layout()).forward(step, [TOKENS])
    assert not (found.view(torch.int32) == clean.view(torch.int32)).all(1).any()


def test_what_cannot_be_done_is_said() -> None:
    which = subject()
    plain = Plan(MEMBERS, (), Layout())
    assert which.unsupported(plain) is None
    assert "generate()" in (which.unsupported(replace(plain, generate=True)) or "")
    pages = replace(plain, layout=Layout(batch="left", page=4))
    assert "rectangular" in (which.unsupported(pages) or "")
    with pytest.raises(UnsupportedError, match="rectangular"):
        which.session(MEMBERS, Layout(batch="left", page=4))
    with pytest.raises(UnsupportedError, match="long is 65 tokens long; this decoder has 64"):
        which.session([Member("long", 65)], Layout())


@pytest.mark.parametrize(
    ("step", "ids", "message"),
    [
        ((), [], "a step without spans"),
        ((Span(0, 0, 2, 2),), [], "1 spans but ids for 0"),
        ((Span(0, 0, 2, 2),), [[1]], r"span 0\.\.2 got 1 token ids"),
        ((Span(0, 0, 2, 2),), [[1, 256]], "do not fit the vocabulary of 256"),
        ((Span(0, 0, 2, 2),), [[-1, 1]], r"ids -1\.\.1"),
        ((Span(0, 0, 2, 2, position_shift=-1),), [[1, 1]], r"positions -1\.\.0"),
        ((Span(1, 0, 20, 20),), [[1] * 20], "b has 19 cache slots"),
    ],
)
def test_a_step_that_does_not_fit(step: Step, ids: list[list[int]], message: str) -> None:
    session = subject().session(MEMBERS, Layout())
    with pytest.raises(SubjectError, match=message):
        list(session.forward(step, ids))


def test_a_full_context_has_room_for_a_shifted_position() -> None:
    which = subject()
    session = which.session([Member("full", 64)], Layout())
    list(session.forward((Span(0, 0, 63, 63),), [[1] * 63]))
    (row,) = session.forward((Span(0, 63, 64, 63, True, position_shift=1),), [[1]])
    assert row.isfinite().all()


def test_running_out_of_device_memory_is_a_plain_sentence() -> None:
    with (
        pytest.raises(SubjectError, match="out of device memory in a step of 9 rows: 40 GiB"),
        device_memory("in a step of 9 rows"),
    ):
        raise torch.cuda.OutOfMemoryError("40 GiB wanted")


def test_the_cache_reads_what_was_written() -> None:
    model = subject().model
    which = DecoderSubject(model.config, model.weights, kv_cache=torch.bfloat16)
    session = which.session(MEMBERS, Layout(page=4))
    stored = session.cache()
    assert stored is not None
    k = torch.arange(6 * 2 * 16, dtype=torch.bfloat16).view(6, 2, 16)
    stored.write(0, 1, 3, k, -k)
    got_k, got_v = stored.read(0, 1, 3, 9)
    assert got_k.dtype == torch.bfloat16
    assert torch.equal(got_k.view(torch.int16), k.view(torch.int16))
    assert torch.equal(got_v.view(torch.int16), (-k).view(torch.int16))
    assert stored.read(0, 1, 2, 3)[0].isnan().all()
    with pytest.raises(SubjectError, match=r"b has 19 cache slots, asked for 3\.\.20"):
        stored.read(0, 1, 3, 20)


def test_values_are_logprobs_at_every_temperature() -> None:
    which = subject()
    (rows,) = which.session(MEMBERS, Layout()).forward((Span(0, 0, 7, 0),), [TOKENS])
    targets = torch.arange(len(rows)) * 3
    values = which.values(rows, targets, [1.0, 0.7])
    assert values.dtype == torch.float32
    for column, temperature in enumerate([1.0, 0.7]):
        exact = (rows.double() / temperature).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        assert (values[:, column] - exact).abs().max() < 1e-5


def test_a_replacement_that_launches_nothing_is_seen() -> None:
    quiet = subject().with_attention(
        AttentionOps(prefill=lambda call: (call.q, call.q), decode=lambda call: (call.q, call.q))
    )
    session = quiet.session(MEMBERS, Layout())
    list(session.forward((Span(0, 0, 1, 0, decode=True),), [[1]]))
    assert not [name for name in session.observed() if name.startswith("attention")]


def test_build_from_a_preset() -> None:
    stated = Decoder.model_validate(
        {"kind": "decoder", "preset": "tiny", "order": {"split": 32, "tile": 16}}
    )
    built = build(stated, execution="bfloat16", kv_cache="float16", device=CPU, seed=7, base=Path())
    told = built.describe()
    assert told["source"] == "preset tiny, seed 7"
    assert told["config"]["hidden"] == 64
    assert told["execution"] == "bfloat16"
    assert told["kv_cache"] == "float16"
    assert told["cpu_ops"] == "twin"
    assert told["order"]["split"] == 32
    assert json.loads(json.dumps(told)) == told
    assert (built.vocab, built.max_positions, built.device) == (256, 1024, CPU)


def test_build_from_a_config() -> None:
    config = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 2,
        "kv_heads": 1, "head_dim": 16, "max_positions": 32, "attention_bias": True,
    }  # fmt: skip
    stated = Decoder.model_validate({"kind": "decoder", "config": config, "cpu_ops": "interpreter"})
    built = build(stated, execution="float32", kv_cache="float32", device=CPU, seed=0, base=Path())
    assert built.describe()["cpu_ops"] == "interpreter"
    assert built.describe()["order"] == asdict(ReductionOrder())
    assert built.model.weights.layers[0].qkv_bias is not None
    assert built.model.weights.layers[0].o_bias is not None


def test_build_from_a_missing_checkpoint(tmp_path: Path) -> None:
    stated = Decoder.model_validate({"kind": "decoder", "checkpoint": "weights"})
    with pytest.raises(UnsupportedError, match=f"no checkpoint folder {tmp_path / 'weights'}"):
        build(stated, execution="float32", kv_cache="float32", device=CPU, seed=0, base=tmp_path)


def test_twins_are_refused_off_the_cpu() -> None:
    which = subject()
    weights = replace(which.model.weights, embed=which.model.weights.embed.to("meta"))
    with pytest.raises(UnsupportedError, match="CPU twins cannot compute on meta"):
        DecoderSubject(which.model.config, weights, kv_cache=torch.float32, twin=True)
