"""Windows, softcaps, sinks and codes in compiled kernels: the same on both sides, or seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from audit_cases import Pair, compared
from feature_cases import FAULTS, SOUND

from kvparity.relations.audit import contract as auditing
from kvparity.relations.audit.request import ARCHITECTURES, Request, Shape, from_json
from kvparity.relations.audit.views import AuditSide
from kvparity_contracts import Contract

GOLDEN = Path(__file__).parent / "golden" / "features"
archs = pytest.mark.parametrize("arch", ARCHITECTURES)


@archs
def test_decode_reduces_like_prefill(arch: str, sides: dict[Request, AuditSide]) -> None:
    found = compared(sides, SOUND[arch])
    assert found.verdict == "same", found.deciding
    walk = sides[SOUND[arch][1]].walk
    assert (walk.constants["BOUNDED"], walk.constants["CAPPED"]) == (True, True)
    assert (walk.constants["FORMAT"], walk.dtypes["K"]) == ("fp8_e4m3", "uint8")
    merge = sides[SOUND[arch][1]].merge
    assert merge is not None
    assert merge.dtypes["SINKS"] == "float32"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_decode_alone_is_never_the_same(
    name: str, faulty: dict[str, Pair], sides: dict[Request, AuditSide]
) -> None:
    found = compared(sides, faulty[name])
    assert found.verdict == "different"
    assert "loop" in {each.name for each in found.deciding}


@archs
def test_golden(arch: str, sides: dict[Request, AuditSide]) -> None:
    """As recorded for this version of Triton."""
    kernels = [kernel for request in SOUND[arch] for kernel in sides[request].kernels]
    seen: Any = json.loads(json.dumps([each.as_json() for each in kernels]))
    version = ".".join(kernels[0].triton.split(".")[:2])
    path = GOLDEN / f"triton-{version}" / f"{arch}.json"
    if os.environ.get("KVPARITY_WRITE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(seen, indent=1) + "\n")
    if path.is_file():
        assert seen == json.loads(path.read_text())


def test_a_shape_is_told_in_words_and_survives_json() -> None:
    request = SOUND["sm_90"][1]
    assert from_json(request.as_json()) == request
    assert (
        str(request.shape)
        == "4/2 heads of 16, bfloat16, cache fp8_e4m3(head), window, softcap, sinks"
    )


BASE = {
    "version": 1,
    "name": "audited",
    "numerics": {"execution": "bfloat16", "kv_cache": ["fp8_e4m3(head)", "int8(16)"]},
    "workloads": [{"name": "w", "prompt_tokens": [3], "generate": 2}],
    "checks": [
        {"name": "bits", "relation": "invariance", "paths": ["decode"]},
        {"name": "audit", "relation": "audit"},
    ],
}


def shapes(subject: dict[str, Any]) -> list[Shape]:
    contract = Contract.model_validate({**BASE, "subject": subject})
    _, pairs = auditing.subject_shapes(contract, Path())
    assert all(reference == shape for reference, shape in pairs)
    return [shape for shape, _ in pairs]


def test_each_kind_of_layer_and_format_of_a_decoder_is_compiled() -> None:
    config = {
        "vocab_size": 256, "hidden_size": 32, "intermediate_size": 32, "layers": 2, "heads": 4,
        "kv_heads": 2, "head_dim": 16, "max_positions": 64, "sliding_window": 8,
        "layer_types": ["sliding", "full"], "attention_softcap": 5.0, "attention_sinks": True,
    }  # fmt: skip
    found = shapes({"kind": "decoder", "config": config, "cache": {"ring": True}})
    assert [(each.kv_cache, each.window, each.ring) for each in found] == [
        ("fp8_e4m3(head)", True, True),
        ("fp8_e4m3(head)", False, False),
        ("int8(16)", True, True),
        ("int8(16)", False, False),
    ]
    assert all(each.softcap and each.sinks for each in found)


def test_a_pair_of_our_kernels_is_compiled_as_the_contract_has_it() -> None:
    kernels = {side: f"kvparity_kernels.attention:{side}" for side in ("prefill", "decode")}
    heads = {"query": 4, "kv": 2, "dim": 16}
    found = shapes({"kind": "attention", **kernels, "heads": heads, "window": 8, "softcap": 5.0})
    assert {(each.window, each.softcap, each.sinks, each.ring) for each in found} == {
        (True, True, False, False)
    }
