"""Decoders on other backends: their caches, their controls, what they say of themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backend_cases import decoder
from decoder_cases import Rows, differing, ids_of, one, plan, prompts, run
from torch.nn.attention import SDPBackend

from kvparity.controls.table import PLANTS
from kvparity.plan.schedule import Layout
from kvparity.run import verify as runs
from kvparity.run import worker
from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder.backends import OPERATIONS, Backends, operations, sdpa
from kvparity.subjects.decoder.backends.table import ATTENTION
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.loader import load
from kvparity_contracts.subjects import DecoderAttention, DecoderOperations
from kvparity_kernels.keys import KeysValues

GIVEN = prompts(5, 17, generate=3)
WINDOWS: dict[str, Any] = {
    "layers": 2, "sliding_window": 8, "layer_types": ("sliding", "full")
}  # fmt: skip
NEAR = 1e-4
"""Of logits of size 1 to 10 in float32: some 100 roundings of 2^-24 in a row of one layer."""


def off(subject: DecoderSubject, rows: Rows) -> float:
    """The largest distance of logits from the float64 oracle; NaN is infinitely far."""
    members = plan("prefill", GIVEN).members
    worst = 0.0
    for (sequence, position), row in rows.items():
        ids = ids_of(members)[sequence]
        wanted = subject.oracle(members[sequence], ids, range(position, position + 1))[0]
        worst = max(worst, float((row - wanted).abs().nan_to_num(nan=torch.inf).max()))
    return worst


def test_contracts_and_code_know_the_same_names() -> None:
    assert DecoderAttention.__args__ == ATTENTION  # type: ignore[attr-defined] # of a Literal
    assert DecoderOperations.__args__ == OPERATIONS  # type: ignore[attr-defined] # as above


@pytest.mark.parametrize("attention", ["fixed-order", "sdpa", "sdpa-math", "sdpa-flash"])
@pytest.mark.parametrize("beside", OPERATIONS)
def test_every_path_is_near_the_oracle(attention: str, beside: str) -> None:
    subject = decoder(attention, beside)
    paths = ("prefill", "decode", "chunked(4)", "batched", "paged(8)", "uncached")
    for path in paths if attention != "fixed-order" else ("decode",):  # ours is tested elsewhere
        assert off(subject, run(subject, path, GIVEN)) < NEAR, path


@pytest.mark.parametrize("changes", [{}, {"ring": True}, {"heads_first": True}])
def test_windows_and_rings_are_near_the_oracle(changes: dict[str, bool]) -> None:
    subject = decoder("sdpa", "torch", **changes, **WINDOWS)
    for path in ("decode", "streamed(4)"):
        assert off(subject, run(subject, path, GIVEN)) < NEAR, path


def test_followers_read_their_owners_cache() -> None:
    shape = {"layers": 2, "kv_shared_layers": 1, "shared_head_dim": 8}
    subject = decoder("sdpa-math", "torch", **shape)
    assert off(subject, run(subject, "decode", GIVEN)) < NEAR


@pytest.mark.parametrize("attention", ["sdpa-math", "sdpa-flash"])
def test_pages_and_poison_change_no_bit_of_decode(attention: str) -> None:
    subject = decoder(attention)
    reference = run(subject, "decode", GIVEN)
    assert differing(run(subject, "paged(8)", GIVEN), reference) == []
    assert differing(run(subject, "decode", GIVEN, slack=5), reference) == []


def _shifted(by: int, where: Callable[[KeysValues], bool]) -> Callable[..., Any]:
    """Attention that is told of ``by`` more keys in some caches."""

    def change(ops: AttentionOps) -> AttentionOps:
        def decode(call: DecodeCall) -> Outputs:
            kv = call.kv
            other = replace(kv, kv_lens=kv.kv_lens + by) if where(kv) else kv
            return ops.decode(replace(call, kv=other))

        return replace(ops, decode=decode)

    return change


@pytest.mark.parametrize("by", [-1, 1])
def test_a_key_too_few_or_too_many_is_seen(by: int) -> None:
    """By the oracle, and by the paths that are right: there is no such difference without it."""
    subject = decoder("sdpa-math")
    wrong = subject.with_attention(
        _shifted(by, lambda kv: kv.block_table is not None)(subject.attention)
    )
    reference, planted = run(subject, "decode", GIVEN), run(wrong, "paged(8)", GIVEN)
    assert off(subject, planted) > 100 * NEAR
    bits = [not planted[x].view(torch.int32).equal(reference[x].view(torch.int32)) for x in planted]
    assert sum(bits) == 4  # the first token of each sequence comes from its prefill
    assert run(wrong, "decode", GIVEN).keys() == reference.keys()
    assert differing(run(wrong, "decode", GIVEN), reference) == []


def test_operations_of_torch_are_those_of_a_model_in_torch() -> None:
    torch.manual_seed(0)
    ops, ours = operations("torch"), operations("fixed-order")
    x, w = torch.randn(5, 32), torch.randn(48, 32)
    order = decoder().model.order
    for one_of, other in (
        (ops.linear(x, w, w[:, 0]), ours.linear(x, w, w[:, 0], order=order, twin=True)),
        (ops.rms_norm(x, w[0], 1e-6), ours.rms_norm(x, w[0].contiguous(), 1e-6, twin=True)),
        (ops.swiglu(x, x + 1), ours.swiglu(x, x + 1, twin=True)),
        (
            ops.rotate(x.view(5, 2, 16), x[:, :8], x[:, 8:16]),
            ours.rotate(x.view(5, 2, 16), x[:, :8].clone(), x[:, 8:16].clone(), twin=True),
        ),
    ):
        assert one_of.dtype == other.dtype
        assert float((one_of - other).abs().max()) < 1e-5
    ids = torch.tensor([3, 0, 47])
    assert ops.embed(ids, w).equal(w[ids])
    half = ops.linear(x.bfloat16(), w.bfloat16(), out_dtype=torch.float32)
    assert half.dtype == torch.float32
    assert half.equal(half.bfloat16().float())  # rounded before it is widened, as in engines


@pytest.mark.parametrize(
    ("attention", "changes", "words"),
    [
        ("sdpa", {"store": "int8(8)"}, "reads plain numbers, but the cache stores int8(8)"),
        ("flashinfer", {"store": "int8(8)"}, "reads plain numbers, but the cache stores int8(8)"),
        ("sdpa-math", {"attention_softcap": 9.0}, "has no soft cap of scores"),
        ("sdpa-flash", {"attention_sinks": True}, "has no attention sinks"),
        ("flashinfer", {"attention_sinks": True}, "has no attention sinks"),
        ("flashinfer-fixed", {"heads_first": True}, "reads all heads of a slot together"),
        ("flashinfer-whole", {"ring": True, **WINDOWS}, "cannot wrap around a ring"),
        ("flashinfer", {}, "in float16 or bfloat16 from a cache of the same, not float32 from fl"),
        (
            "flashinfer",
            {"execution": torch.bfloat16, "store": "float16"},
            "not bfloat16 from float16",
        ),
    ],
)
def test_what_a_backend_cannot_do_is_told_before_anything_runs(
    attention: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedError) as told:
        decoder(attention, **changes)
    assert f"attention {attention} " in str(told.value)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("attention", "beside"), [("sdpa", "fixed-order"), ("fixed-order", "torch")]
)
def test_programs_are_of_this_projects_kernels(attention: str, beside: str) -> None:
    reason = decoder(attention, beside).unsupported(plan("exported", GIVEN))
    assert reason is not None
    assert f"attention: {attention}, operations: {beside}" in reason
    assert decoder("fixed-order").unsupported(plan("exported", GIVEN)) is None


def _planted(subject: DecoderSubject, name: str) -> None:
    PLANTS[name](subject).session(*one(8))  # some are planted in each session


def test_no_control_of_an_order_can_be_planted() -> None:
    """Its path would stay as it is, and the control be missed."""
    subject = decoder("sdpa")
    named = {name for name, each in CONTROLS.items() if "order" in each.features}
    assert named > {"split-by-batch", "tile-by-neighbour", "polynomial-exp2", "hit-merges-states"}
    for name in named:
        with pytest.raises(UnsupportedError, match="attention is sdpa"):
            _planted(subject, name)


def test_it_says_what_was_asked_for_and_what_ran() -> None:
    subject = decoder("sdpa", "torch")
    assert subject.describe()["used"] == {"attention": None, "operations": "fixed-order"}
    run(subject, "decode", GIVEN)
    told = subject.describe()
    assert told["requested"] == told["used"] == {"attention": "sdpa", "operations": "torch"}
    assert (told["backends"], told["order"], told["cpu_ops"]) == (["sdpa-flash"], None, None)
    assert "requested" not in decoder("fixed-order").describe()


def test_calls_of_decode_are_counted() -> None:
    which = plan("decode", GIVEN)
    session = decoder("sdpa-math").session(which.members, which.layout)
    for step in which.schedule:
        ids = [ids_of(which.members)[s.sequence][s.start : s.stop] for s in step]
        list(session.forward(step, ids))
    assert session.observed() == {"backend.sdpa-math": 6, "sdpa.prefill": 2, "sdpa.decode": 4}


@pytest.mark.parametrize(
    ("asked", "ran", "used"),
    [
        ("sdpa-flash", {"backend.sdpa-math"}, "sdpa-math"),
        ("sdpa-flash", {"backend.sdpa-flash", "backend.sdpa-math"}, "sdpa-flash and sdpa-math"),
        ("sdpa", {"backend.sdpa-flash", "backend.sdpa-math"}, "sdpa"),
        ("sdpa", {"backend.sdpa-flash", "attention.prefill"}, "fixed-order and sdpa"),
        ("sdpa", {"backend.flashinfer"}, "flashinfer"),
        ("flashinfer-fixed", {"backend.flashinfer on fa3"}, "flashinfer on fa3"),
        ("fixed-order", {"attention.prefill"}, "fixed-order"),
    ],
)
def test_what_was_used_is_told_from_what_ran(asked: str, ran: set[str], used: str) -> None:
    assert Backends(asked).used(Counter(ran))["attention"] == used


def verify(tmp_path: Path, attention: str) -> dict[str, Any]:
    """The report of a verification with bits that hold on any CPU: pages against no pages."""
    document = {
        "version": 1,
        "name": "backends",
        "subject": {"kind": "decoder", "preset": "tiny", "attention": attention},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "short", "prompt_tokens": [3, 9], "generate": 3}],
        "checks": [
            {"name": "bits", "relation": "invariance", "reference": "decode",
             "paths": ["paged(8)"]},
        ],
        "controls": ["stale-slot"],
    }  # fmt: skip
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(document))
    return runs.verify(
        load(file), device="cpu", folder=tmp_path / "run", jobs=1, resume=False,
        command="kvparity verify contract.yaml", progress=lambda done, total, what: None,
    ).document()  # fmt: skip


def test_a_backend_that_was_replaced_voids_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_subjects", {})
    assert verify(tmp_path, "sdpa-flash")["verdict"] == "holds"
    (tmp_path / "again").mkdir()
    monkeypatch.setattr(worker, "_subjects", {})
    monkeypatch.setitem(sdpa.BACKENDS, "flash", SDPBackend.MATH)
    report = verify(tmp_path / "again", "sdpa-flash")
    assert report["verdict"] == "void"
    words = "attention 'sdpa-flash' was asked for, but 'sdpa-math' was used"
    assert {check["reason"] for check in report["checks"]} == {words}
    assert report["subject"]["backends"] == ["sdpa-math"]


def test_a_session_without_a_cache_attends_too() -> None:
    subject = decoder("sdpa", "torch")
    assert subject.unsupported(plan("uncached", GIVEN)) is None
    assert subject.session(*one(8)).layout == Layout()
