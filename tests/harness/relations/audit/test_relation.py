"""Audits as a contract asks for them, on kernels that are compiled for the other tests anyway."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from audit_cases import ORDER, SHAPE

from kvparity.controls.table import RECOMPILED
from kvparity.plan.kernel_cases import KernelCase, KernelControl, KernelNumerics
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.audit.relation import AuditRelation, audit
from kvparity.relations.audit.request import Request
from kvparity.relations.audit.views import AuditSide
from kvparity_contracts import Contract
from kvparity_kernels import tensor_cores

CASE = KernelCase(
    "c000", "audit", "audit", KernelNumerics("bfloat16", "bfloat16"), architecture="sm_90"
)
CONTRACT = Contract.model_validate(
    {
        "version": 1,
        "name": "audit",
        "subject": {
            "kind": "attention",
            "prefill": "kvparity_kernels.attention:prefill",
            "decode": "kvparity_kernels.attention:decode",
            "heads": {"query": SHAPE.query_heads, "kv": SHAPE.kv_heads, "dim": SHAPE.head_dim},
            "order": {"split": ORDER.split, "tile": ORDER.tile},
        },
        "numerics": {"execution": ["float32", "bfloat16"]},
        "workloads": [{"name": "w", "prompt_tokens": [3], "generate": 2}],
        "checks": [{"name": "audit", "relation": "audit", "architectures": ["sm_90"]}],
    }
)


@pytest.fixture(autouse=True)
def kept(
    compiled_at: Path, sides: dict[Request, AuditSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artefacts come from the folder of the other tests; nothing is compiled."""
    monkeypatch.setenv("KVPARITY_AUDIT_CACHE", str(compiled_at))
    monkeypatch.setattr(
        "kvparity.relations.audit.compile.subprocess.Popen",
        lambda *arguments, **more: pytest.fail("a compiler was started"),
    )


def test_one_case_looks_at_its_own_format_alone() -> None:
    found = audit(CONTRACT, Path(), CASE)
    assert found.outcome == "holds"
    assert found.details.verdict == "same"
    assert [pair["shape"]["execution"] for pair in found.details.pairs] == ["bfloat16"]


@pytest.mark.parametrize(
    ("said", "outcome", "ends"),
    [
        ({}, "void", "; the check does not say by_model: accepted"),
        ({"by_model": "accepted"}, "holds", "settled on a device: not measured)"),
    ],
)
def test_what_is_equal_by_model_holds_where_the_check_accepts_it(
    said: dict[str, str], outcome: str, ends: str
) -> None:
    document = CONTRACT.model_dump(exclude_unset=True, mode="json")
    document["checks"][0] |= said
    contract = Contract.model_validate(document)
    found = audit(contract, Path(), CASE, against={"block_m": 16})
    assert (found.outcome, found.details.verdict) == (outcome, "equal by model")
    assert found.reason.startswith("equal by model: prefill and decode: matrix instruction")
    assert ", decode with block_m 16 for 64 (by the table of tensor cores (" in found.reason
    assert found.reason.endswith(ends)


def on_tiles(**decode: int) -> Contract:
    document = CONTRACT.model_dump(exclude_unset=True, mode="json")
    document["checks"][0] |= {"by_model": "accepted", "decode": decode}
    return Contract.model_validate(document)


def test_a_check_gives_decode_tiles_of_its_own() -> None:
    found = audit(on_tiles(block_m=16, num_warps=4), Path(), CASE)
    assert (found.outcome, found.details.verdict) == ("holds", "equal by model")
    assert ", decode with block_m 16 for 64 (" in found.reason
    assert [pair["candidate_order"]["block_m"] for pair in found.details.pairs] == [16]


def test_what_cannot_be_compared_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_cores, "TABLE", ())
    document = CONTRACT.model_dump(exclude_unset=True, mode="json")
    document["checks"][0]["by_model"] = "accepted"
    found = audit(Contract.model_validate(document), Path(), CASE, against={"block_m": 16})
    assert (found.outcome, found.details.verdict) == ("void", "unknown")
    assert found.reason.startswith("unknown: prefill and decode: matrix instruction")


@pytest.mark.parametrize("alike", [False, True])
def test_another_architecture_is_caught_by_what_its_instruction_adds(
    alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alike:  # so that nothing but what it was built for is another
        unit = tensor_cores.unit("sm_90", "bfloat16")
        table = tuple(replace(each, unit=unit) for each in tensor_cores.TABLE)
        monkeypatch.setattr(tensor_cores, "TABLE", table)
    kernels = Kernels(CONTRACT, Path(), lambda: pytest.fail("it needs no subject"))
    found = AuditRelation().control(kernels, KernelControl("other-architecture", CASE))
    assert found.caught is not alike
    assert "built for" in found.seen
    assert ", decode with sm_80 for sm_90" in found.seen
    words = "they add otherwise: wgmma on sm_90: L 16, F 25, e_zero -133; mma.sync on sm_80: L 8"
    assert (words in found.seen) is not alike


@pytest.mark.parametrize(
    ("name", "field"), [("other-tile", "split, tile"), ("other-warps", "layout of reductions")]
)
def test_a_planted_order_is_caught_and_nothing_planted_is_not(
    name: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = KernelControl(name, CASE)
    kernels = Kernels(CONTRACT, Path(), lambda: pytest.fail("it needs no subject"))
    found = AuditRelation().control(kernels, control)
    assert found.caught, found.seen
    assert field in found.seen
    monkeypatch.setitem(RECOMPILED, name, lambda order: order)
    assert AuditRelation().control(kernels, control) == Planted(
        False,
        "sm_90: same: all 14 fields of 1 pairs agree",
    )
