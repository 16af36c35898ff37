"""The JSON schema tells a mistake at its place, by the kind of subject, side and check."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from editor import underlined
from ruamel.yaml import YAML

from kvparity_contracts import find
from kvparity_contracts.contract import Contract

FILE = {"kind": "recorded", "file": "a.jsonl"}
MODEL = {"kind": "model", "checkpoint": "m"}
SERVER = {"kind": "server", "api": "vllm", "url": "http://a:1", "vocabulary": 8}
WORKLOADS = [{"name": "w", "prompts": [[1]], "generate": 2}]
RECORDED: dict[str, Any] = {
    "version": 1,
    "name": "sides",
    "subject": {"kind": "sides", "rollout": FILE, "trainer": MODEL},
    "checks": [{"name": "a", "relation": "parity", "bits": "equal"}],
}
GIVEN = RECORDED | {
    "subject": {"kind": "sides", "rollout": MODEL, "trainer": FILE, "tokens": "i.jsonl"}
}
DRAWN = RECORDED | {
    "subject": {"kind": "sides", "rollout": SERVER, "trainer": MODEL},
    "workloads": WORKLOADS,
}
DECODER = YAML(typ="safe", pure=True).load(find("decode-prefill"))
PAIR = YAML(typ="safe", pure=True).load(find("attention-decode-prefill"))
LEFT_OUT = object()

ROWS: dict[str, tuple[dict[str, Any], str, object, list[str]]] = {
    # contract, key, its value, what is underlined
    "recorded": (RECORDED, "seed", 1, []),
    "given": (GIVEN, "seed", 1, []),
    "drawn": (DRAWN, "seed", 1, []),
    "decoder": (DECODER, "seed", 1, []),
    "formats of two sides": (
        RECORDED, "numerics", {"execution": "float32"},
        ["$.numerics: {'execution': 'float32'} should not be valid under {'description': 'two"],
    ),
    "workloads of recorded tokens": (
        RECORDED, "workloads", WORKLOADS, [f"$.workloads: {WORKLOADS} should not be valid"],
    ),
    "workloads of given tokens": (
        GIVEN, "workloads", WORKLOADS, [f"$.workloads: {WORKLOADS} should not be valid"],
    ),
    "no workloads to draw for": (
        DRAWN, "workloads", LEFT_OUT, ["$: 'workloads' is a required property"],
    ),
    "an optional number": (
        PAIR, "subject.page", "sixteen",
        ["$.subject.page: 'sixteen' is not of type 'integer', 'null'"],
    ),
    "an optional word": (
        DECODER, "subject.preset", "tony", ["$.subject.preset: 'tony' is not one of ['tiny', "],
    ),
    "nothing": (PAIR, "subject.signature", None, []),
    "no formats of a decoder": (
        DECODER, "numerics", LEFT_OUT, ["$: 'numerics' is a required property"],
    ),
    "no workloads of a pair": (
        PAIR, "workloads", LEFT_OUT, ["$: 'workloads' is a required property"],
    ),
    "another kind": (
        DECODER, "subject.kind", "decodr", ["$.subject.kind: 'decodr' is not one of ['attention'"],
    ),
    "no kind": (DECODER, "subject.kind", LEFT_OUT, ["$.subject: 'kind' is a required property"]),
    "a key of another kind": (
        DECODER, "subject.url", "http://a:1", ["$.subject: Additional properties are not allowed"],
    ),
    "a format of a side": (
        RECORDED, "subject.trainer.dtype", "bf16",
        ["$.subject.trainer.dtype: 'bf16' is not one of ['float32'"],
    ),
    "a key of another side": (
        DRAWN, "subject.rollout.file", "a", ["$.subject.rollout: Additional properties are not"],
    ),
    "a relation": (
        RECORDED, "checks.0.relation", "party", ["$.checks[0].relation: 'party' is not one of"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_each_mistake_is_underlined_at_its_place(row: str) -> None:
    whole, key, value, told = ROWS[row]
    contract = deepcopy(whole)
    *path, last = key.split(".")
    at: Any = contract
    for part in path:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is LEFT_OUT:
        del at[last]
    else:
        at[last] = value
    found = underlined(contract)
    assert len(found) == len(told), found
    assert all(each.startswith(start) for each, start in zip(found, told, strict=True)), found


@pytest.mark.parametrize("whole", [RECORDED, GIVEN, DRAWN], ids=["recorded", "given", "drawn"])
def test_a_contract_that_is_written_again_is_taken_by_the_schema(whole: dict[str, Any]) -> None:
    contract = Contract.model_validate(whole)
    again = contract.model_dump(mode="json", exclude_unset=True)
    assert underlined(again) == []
    assert Contract.model_validate(again) == contract
