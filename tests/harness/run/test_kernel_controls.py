"""Controls of order and audit checks: caught where they are planted, and only there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import naive_pair
import pytest
import torch

from kvparity.controls.base import unchanged
from kvparity.controls.order import retiled
from kvparity.controls.table import PLANTS
from kvparity.plan.kernel_cases import KernelCase, KernelControl, KernelNumerics
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.audit import relation as auditing
from kvparity.relations.audit.relation import AuditRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.order import relation as probing
from kvparity.relations.order.line import OrderDetails
from kvparity.relations.order.relation import OrderRelation
from kvparity.subjects.base import Subject, UnsupportedError
from kvparity.subjects.pair.model import HeadCounts, Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity.subjects.registry import factory
from kvparity_contracts import CONTROLS, Contract
from kvparity_contracts.planning import in_kernels
from kvparity_contracts.subjects import Decoder
from kvparity_kernels.attention import decode, prefill
from kvparity_kernels.order import ReductionOrder

FLOAT32 = KernelNumerics("float32", "float32")
ORDERS = [name for name, row in CONTROLS.items() if in_kernels(row) and "order" in row.relations]
SMALL = ReductionOrder(split=16, tile=16)


def attention(pair: Pair, order: ReductionOrder | None) -> AttentionSubject:
    return AttentionSubject(
        pair=pair,
        heads=HeadCounts(4, 1, 16),
        scale=0.25,
        execution=torch.float32,
        kv_cache=torch.float32,
        device=torch.device("cpu"),
        seed=0,
        order=order,
    )


def ours() -> Subject:
    return attention(Pair.of(prefill, decode, "prefill", "decode"), SMALL)


def naive() -> Subject:
    return attention(Pair.of(naive_pair.prefill, naive_pair.decode, "prefill", "decode"), None)


def decoder() -> Subject:
    model = Decoder.model_validate(
        {"kind": "decoder", "preset": "tiny", "order": {"split": 16, "tile": 16}}
    )
    return factory("decoder")(
        model,
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=0,
        base=Path(),
    )


def run_order(subject: Subject, job: KernelControl) -> Planted:
    return OrderRelation().control(Kernels(contract(), Path(), lambda: subject), job)


def run_audit(asked: Contract, job: KernelControl) -> Planted:
    return AuditRelation().control(Kernels(asked, Path(), ours), job)


def certificate(name: str, keys: int) -> KernelControl:
    return KernelControl(name, KernelCase("c000", "order", "order", FLOAT32, keys=keys))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(
    ("subject", "keys"), [(ours, 17), (decoder, 17), (naive, 66)], ids=["ours", "decoder", "naive"]
)
def test_a_planted_order_is_caught_and_nothing_planted_is_not(
    subject: Any, keys: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = certificate(name, keys)
    found = run_order(subject(), job)
    assert found.caught, found.seen
    assert found.seen.startswith(f"{keys} keys: ")
    monkeypatch.setitem(PLANTS, name, unchanged)
    found = run_order(subject(), job)
    assert not found.caught, found.seen


@pytest.mark.parametrize(
    ("outcome", "verdict", "caught"),
    [
        ("differs", "same-order-different-bits", False),
        ("differs", "different-order", True),
        ("differs", "undeclared-order", True),
        ("differs", "not-a-tree", True),
        ("void", "not-a-tree", False),  # the bits agree: nothing of an order was shown
    ],
)
def test_only_another_order_catches(
    outcome: Any, verdict: str, caught: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Comparison(outcome, "bits", details=OrderDetails.model_construct(verdict=verdict))
    monkeypatch.setattr(probing, "certify", lambda *arguments, **more: found)
    assert run_order(ours(), certificate("other-tile", 17)) == Planted(
        caught,
        "17 keys: bits",
    )


def test_a_tile_of_a_pair_that_takes_no_order_is_built_from_its_log_sum_exp() -> None:
    alone = Pair.of(naive_pair.prefill_alone, naive_pair.decode_alone, "prefill", "decode")
    with pytest.raises(UnsupportedError, match="built from the LSE"):
        run_order(attention(alone, None), certificate("other-tile", 66))
    assert run_order(attention(alone, None), certificate("ragged-split", 66)).caught


def test_every_declared_order_has_another_tile() -> None:
    for split, tile in ((16, 16), (32, 16), (64, 64), (256, 64)):
        order = ReductionOrder(split=split, tile=tile)
        other = retiled(order)
        assert other.tile != tile
        assert other.split >= split


def test_a_control_of_one_relation_is_none_of_the_other() -> None:
    with pytest.raises(ValueError, match="not a control of an order check"):
        run_order(ours(), certificate("other-warps", 17))
    with pytest.raises(ValueError, match="not a control of an audit check"):
        run_audit(contract(), compiled("ragged-split"))
    theirs = contract().subject.model_copy(update={"attention": "sdpa"})  # no order of ours
    bare = contract().model_copy(update={"subject": theirs})
    with pytest.raises(ValueError, match="not a control of an audit check"):
        run_audit(bare, compiled("other-tile"))


# audits: what is compiled for them is tested in audit/test_relation.py


def contract(**order: int) -> Contract:
    return Contract.model_validate(
        {
            "version": 1,
            "name": "audit",
            "subject": {"kind": "decoder", "preset": "tiny", "order": order},
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [3], "generate": 2}],
            "checks": [{"name": "audit", "relation": "audit"}],
        }
    )


def compiled(name: str) -> KernelControl:
    return KernelControl(name, KernelCase("c000", "audit", "audit", FLOAT32, architecture="sm_80"))


@pytest.mark.parametrize(
    ("name", "order", "against"),
    [
        ("other-tile", {}, {"tile": 32, "split": 256}),
        ("other-tile", {"split": 16, "tile": 16}, {"tile": 32, "split": 32}),
        ("other-warps", {}, {"num_warps": 8}),
        ("other-warps", {"num_warps": 8}, {"num_warps": 4}),
    ],
)
@pytest.mark.parametrize(("outcome", "caught"), [("differs", True), ("void", False)])
def test_an_audit_is_given_another_order_of_decode(
    name: str,
    order: dict[str, int],
    against: dict[str, int],
    outcome: Any,
    caught: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def pretend(*arguments: Any, **more: Any) -> Comparison:
        asked.append(more)
        return Comparison(outcome, "so")

    monkeypatch.setattr(auditing, "audit", pretend)
    assert run_audit(contract(**order), compiled(name)) == Planted(caught, "sm_80: so")
    assert asked == [{"against": asdict(ReductionOrder(**order)) | against}]
