"""``relation: trace`` in a contract: its cases, its controls, and what a broken one reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toy
from asking import ask
from emitting import Emitting
from ruamel.yaml import YAML
from run_documents import rendered

from kvparity.plan.cases import make
from kvparity.record.path_run import PathRun, Setting
from kvparity.run import verify
from kvparity.run.replay import replay
from kvparity_contracts import Contract, ContractError, load
from kvparity_contracts.paths import PathName

CONFIG = {
    "vocab_size": 128, "hidden_size": 32, "layers": 3, "heads": 2, "kv_heads": 1, "head_dim": 16,
    "intermediate_size": 32, "max_positions": 64, "sliding_window": 4,
    "layer_types": ["sliding", "full", "full"], "kv_shared_layers": 1,
}  # fmt: skip
CONTROLS = [
    "position-off-by-one", "decode-at-position-zero", "window-one-short", "stale-slot",
    "narrow-cache", "wrong-donor", "uniform-attention",
]  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "version": 1,
        "name": "traced",
        "subject": {
            "kind": "decoder", "config": CONFIG, "order": {"split": 32, "tile": 16, "block_m": 16}
        },
        "numerics": {"execution": ["float32", "bfloat16"], "temperatures": [1.0, 0.7]},
        "workloads": [{"name": "short", "prompt_tokens": [3, 7], "generate": 4}],
        "checks": [
            {"name": "rows see what they must", "relation": "trace",
             "paths": ["decode", "chunked(3)"]}
        ],
        "controls": CONTROLS,
    }  # fmt: skip
    return whole | changes


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "traced.yaml"
    with path.open("w") as file:
        YAML().dump(document(**changes), file)
    return path


def test_a_contract_asks_for_traces(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    loaded = load(written(tmp_path))
    report = verify.verify(
        loaded, device="cpu", folder=folder, jobs=1, resume=False, command="", progress=print_none
    ).document()
    assert report["verdict"] == "holds", rendered(report)
    (check,) = report["checks"]
    # a case for each path and format; temperatures have no say
    assert [(c["path"], c["dtype"], c["temperature"]) for c in check["cases"]] == [
        ("decode", "float32", None), ("chunked(3)", "float32", None),
        ("decode", "bfloat16", None), ("chunked(3)", "bfloat16", None),
    ]  # fmt: skip
    first = check["cases"][0]
    assert (first["tokens"], first["differing_tokens"]) == (8, 0)
    assert first["trace"]["layers"] == 3
    assert first["trace"]["weight_sum_ulps"] < first["trace"]["weight_sum_bound_ulps"]
    assert all(first["trace"]["judged"].values())
    assert {c["name"] for c in report["controls"] if c["caught"]} == set(CONTROLS)
    assert "16 ok" in rendered(report)
    again = replay(loaded, folder, first["id"], "cpu")
    assert again.same


def print_none(done: int, total: int, what: str) -> None:
    """No progress."""


def test_a_broken_invariant_is_a_difference_with_its_sentence() -> None:
    contract = toy.contract()
    for defects, outcome, words in (
        ((), "holds", "all invariants hold in 8 rows of 3 layers"),
        (("wrong-donor",), "differs", "stored layer 0, expected 1"),
        (("silent-layer",), "void", "layer 2 reported no row"),
    ):
        setting = Setting(contract, Emitting(*defects))
        plans = setting.plans("short")
        prompts = plans.prompts
        tokens = [[1] * prompts.length(i) for i in range(2)]
        side = PathRun(setting, setting.subject, plans, PathName("decode"), tokens)
        answer = ask("trace", side, check=contract.checks[0])
        found, record = answer.found, answer.candidate
        assert found.outcome == outcome
        assert words in found.reason
        assert found.tokens == 8
        assert len(record.index) == 8
        if defects == ("wrong-donor",):
            assert found.differing_tokens == 8
            assert found.details.broken[0].invariant == "a layer reads its owner's cache"


def test_a_pair_without_layers_cannot_show_a_wrong_donor() -> None:
    contract = Contract.model_validate(
        document(
            subject={
                "kind": "attention", "prefill": "kvparity_kernels.attention:prefill",
                "decode": "kvparity_kernels.attention:decode",
                "heads": {"query": 4, "kv": 2, "dim": 16},
            },
            numerics={"execution": "float32"},
            controls="all",
        )
    )  # fmt: skip
    work = make(contract)
    assert {each.control for each in work.controls} == {"stale-slot", "narrow-cache"}
    assert {u.control: u.reason for u in work.unplanted}["wrong-donor"] == (
        "cannot be planted in a subject of kind attention"
    )


@pytest.mark.parametrize("path", ["generate", "exported", "compiled"])
def test_what_tells_nothing_cannot_be_traced(path: str, tmp_path: Path) -> None:
    checks = [{"name": "t", "relation": "trace", "paths": [path]}]
    with pytest.raises(ContractError, match=f"found '{path}', expected a path that reports"):
        load(written(tmp_path, checks=checks))


def test_a_trace_takes_no_tolerance(tmp_path: Path) -> None:
    checks = [{"name": "t", "relation": "trace", "tolerance": 1e-3}]
    with pytest.raises(ContractError, match="derived bounds, and takes no tolerance"):
        load(written(tmp_path, checks=checks))
