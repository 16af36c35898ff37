"""Cases of order and audit checks: what each finding means, and whole verifications of a pair."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_spy import pair_call
from kernel_case_documents import BLIND, document

from kvparity.plan.kernel_cases import KernelCase, KernelNumerics
from kvparity.relations import bits_and_limits
from kvparity.relations.audit import relation as auditing
from kvparity.relations.audit.compare import Field, KernelComparison
from kvparity.relations.audit.contract import Result
from kvparity.relations.audit.relation import audit
from kvparity.relations.audit.request import AuditError, Shape
from kvparity.relations.order.decoder import attentions_of
from kvparity.relations.order.relation import certify, of_order
from kvparity.relations.order.report import PARTS, Drawn, OrderReport, Part
from kvparity.report.case_line import kernel_line
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.registry import factory
from kvparity_contracts import Contract
from kvparity_contracts.subjects import Decoder
from kvparity_kernels.attention import decode, prefill
from kvparity_kernels.order import ReductionOrder

FLOAT32 = KernelNumerics("float32", "float32")
ORDER = KernelCase("c000", "order", "order", FLOAT32, keys=20)
AUDIT = KernelCase("c001", "audit", "audit", FLOAT32, architecture="sm_90")


def report(statuses: dict[str, str], equal: int = 8) -> OrderReport:
    parts = tuple(Part(name, statuses.get(name, "same"), seen="seen so") for name in PARTS)  # type: ignore[arg-type] # statuses by name
    return OrderReport(20, 20, 1, {}, parts, (), Drawn(8, equal, 80, 8 - equal))


@pytest.mark.parametrize(
    ("statuses", "equal", "outcome", "words"),
    [
        ({}, 8, "holds", "consistent: 5 of 5 parts"),
        ({"division": "not-measured"}, 8, "holds", "; not measured: division"),
        ({"products": "undeclared"}, 8, "differs", "undeclared-order: products: seen so"),
        ({"key order": "not-measured"}, 8, "void", "the order of the keys was not measured; "),
        (dict.fromkeys(PARTS, "not-measured"), 8, "void", "the order of the keys was not measured"),
        ({"denominator": "different"}, 8, "differs", "different-order: denominator: seen so"),
        ({"division": "different"}, 8, "differs", "same-order-different-bits: division"),
        ({}, 7, "differs", "same-order-different-bits: 1 of 8 random calls differ"),
        (
            {"key order": "different", "denominator": "not-a-tree"},
            8,
            "differs",
            "different-order: key order: seen so",
        ),
        ({"denominator": "different", "products": "not-a-tree"}, 8, "void", "not-a-tree: products"),
        ({"products": "not-a-tree"}, 8, "void", "not-a-tree: products: seen so; the random calls"),
        ({"products": "not-a-tree"}, 6, "differs", "; 2 of 8 random calls differ"),
    ],
)
def test_what_an_order_report_means(
    statuses: dict[str, str], equal: int, outcome: str, words: str
) -> None:
    found = of_order(report(statuses, equal), {"kernel": {}})
    assert found.outcome == outcome
    assert words in found.reason
    assert found.details.keys == 20
    assert found.details.kernels == {"kernel": {}}


def audited(
    monkeypatch: pytest.MonkeyPatch, *verdicts: str, **more: Any
) -> bits_and_limits.Comparison:
    """An audit whose pairs have these verdicts in one field."""
    asked: list[tuple[Any, ...]] = []

    def pretend(contract: Contract, base: Path, archs: list[str], **options: Any) -> list[Result]:
        asked.append((archs, options))
        results = []
        for verdict in verdicts:
            long = ("a" * 40, "b" * 40)
            fields = (
                Field("exp", "ex2", "ex2", "same"),
                Field("layout", "4 warps", "8 warps", verdict),  # type: ignore[arg-type] # a verdict
                Field("loop", *long, verdict),  # type: ignore[arg-type] # a verdict
            )
            comparison = KernelComparison("prefill", "decode", archs[0], fields)
            order = ReductionOrder()
            results.append(Result(archs[0], Shape(4, 2, 16), order, order, comparison, archs[0]))
        return results

    monkeypatch.setattr(auditing, "audit_contract", pretend)
    found = audit(Contract.model_validate(document()), Path(), AUDIT, **more)
    formats = {"formats": [("float32", "float32")], "against": more.get("against")}
    formats |= {"elsewhere": None}
    assert asked == [(["sm_90"], formats)]
    return found


@pytest.mark.parametrize(
    ("verdicts", "outcome", "words"),
    [
        (["same"], "holds", "same: all 3 fields of 1 pairs agree"),
        (["same", "same"], "holds", "same: all 3 fields of 2 pairs agree"),
        (["different"], "differs", "different: prefill and decode: layout (4 warps | 8 warps); "),
        (["same", "unknown"], "void", "unknown: prefill and decode: layout (4 warps | 8 warps); "),
        (["unknown", "different"], "differs", "different: "),
    ],
)
def test_what_an_audit_means(
    monkeypatch: pytest.MonkeyPatch, verdicts: list[str], outcome: str, words: str
) -> None:
    found = audited(monkeypatch, *verdicts)
    assert found.outcome == outcome
    assert found.reason.startswith(words)
    assert found.reason.endswith("loop") == (outcome != "holds")  # too long to be shown
    assert found.details.architecture == "sm_90"
    assert len(found.details.pairs) == len(verdicts)


def test_an_audit_takes_changes_of_decode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    audited(monkeypatch, "different", against={"num_warps": 8})


def test_kernels_that_do_not_compile_are_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise AuditError("decode does not compile")

    monkeypatch.setattr(auditing, "audit_contract", refuse)
    with pytest.raises(SubjectError, match="audit for sm_90: decode does not compile"):
        audit(Contract.model_validate(document()), Path(), AUDIT)


def test_an_entry_has_every_field_of_a_case() -> None:
    found: dict[str, Any] = kernel_line(ORDER, of_order(report({}), {})).document()
    other: dict[str, Any] = kernel_line(AUDIT, BLIND).document()
    assert {*found} - {"order"} == {*other} - {"audit"}
    assert (found["verdict"], found["order"]["keys"], found["order"]["verdict"]) == (
        "holds",
        20,
        "consistent",
    )
    assert (other["verdict"], other["reason"]) == ("void", "unknown: so")
    for case in (found, other):
        assert (case["path"], case["reference"]) == ("decode", "prefill")
        assert (case["dtype"], case["kv_cache"]) == ("float32", "float32")
        assert case["tokens"] == case["differing_tokens"] == case["differing_rows"] == 0
        for name in ("workload", "temperature", "max_ulp", "max_abs", "first_divergence"):
            assert case[name] is None
    json.dumps([found, other], allow_nan=False)


def decoder(**numerics: str) -> Any:
    model = Decoder.model_validate(
        {"kind": "decoder", "preset": "tiny", "order": {"split": 32, "tile": 16}}
    )
    formats = {"execution": "float32", "kv_cache": "float32"} | numerics
    return factory("decoder")(model, **formats, device=torch.device("cpu"), seed=0, base=Path())


def test_the_attention_of_a_decoder_is_the_pair_that_it_calls() -> None:
    (subject,) = attentions_of(decoder(kv_cache="bfloat16")).values()
    assert (subject.heads.query, subject.heads.kv, subject.heads.dim) == (8, 2, 16)
    assert (subject.execution, subject.kv_cache) == (torch.float32, torch.bfloat16)
    order = ReductionOrder(split=32, tile=16)
    assert subject.order == order
    assert subject.scale == 0.25
    q, k, v = subject.draw("s", torch.arange(20))
    k, v = k.bfloat16(), v.bfloat16()
    offsets = torch.tensor([0, 20], dtype=torch.int32)
    lens = torch.tensor([20], dtype=torch.int32)
    plain = {"scale": 0.25, "order": order}
    sides = {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets}
    for ours, other in (
        (
            subject.pair.prefill(pair_call(q, k, v, **sides, **plain)),
            prefill(q, k, v, **sides, **plain),
        ),
        (
            subject.pair.decode(pair_call(q[-1:], k[None], v[None], kv_lens=lens, **plain)),
            decode(q[-1:], k[None], v[None], kv_lens=lens, **plain),
        ),
    ):
        for a, b in zip(ours, other, strict=True):
            assert torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_a_subject_without_attention_of_its_own_cannot_be_probed() -> None:
    with pytest.raises(UnsupportedError, match="cannot be called alone"):
        attentions_of(object())  # type: ignore[arg-type] # no subject


def test_a_defect_of_the_decoder_is_seen_in_its_order() -> None:
    """The kernels that are probed are those that the decoder calls, not others of their name."""
    from kvparity.controls.order import other_tile

    case = replace(ORDER, keys=17)
    only = ("rescale edges",)
    assert certify(decoder(), case, seed=0, only=only).outcome == "void"  # too little
    found = certify(other_tile(decoder()), case, seed=0, only=only)
    assert (found.outcome, found.details.verdict) == ("differs", "different-order")
