"""Chosen rows in a run: a defect at one of them is seen, one elsewhere is not claimed to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive_pair
import pytest
import torch
from run_documents import rendered
from small_pair import subject
from torch import Tensor
from toy import contract
from toy_verification import verify

from kvparity.plan.cases import Case, make
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run.unit import run_unit
from kvparity.subjects.events import counting
from kvparity.subjects.pair.model import Pair
from kvparity_contracts.paths import PathName

HEADS = {"query": 1, "kv": 1, "dim": 4}
LONG = {"name": "long", "prompt_tokens": [140], "generate": 3, "rows": {"random": 2}}
PAIR = {
    "subject": {"kind": "attention", "prefill": "m:p", "decode": "m:d", "heads": HEADS},
    "numerics": {"execution": "float32"},
    "workloads": [LONG],
    "checks": [
        {"name": "bits", "relation": "invariance", "paths": ["decode"]},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}, "paths": ["decode"]},
    ],
    "controls": ["stale-slot"],
}
EDGES = (63, 64, 127, 128)
"""Rows on both sides of the edges of a tile of 64."""


def wrong_with(keys: int) -> Callable[..., Any]:
    """Decode whose row is wrong where it sees so many keys."""

    def decode(*args: Tensor, kv_lens: Tensor, **more: Any) -> Any:
        out, lse = naive_pair.decode(*args, kv_lens=kv_lens, **more)
        return torch.where((kv_lens == keys)[:, None, None], out + 1, out), lse

    return decode


def setting(
    decode: Callable[..., Any], prefill: Callable[..., Any] = naive_pair.prefill
) -> Setting:
    pair = Pair.of(prefill, decode, "m:p", "m:d")
    return Setting(contract(**PAIR), subject(heads=HEADS, empty="never").with_pair(pair))


def found(own: Setting) -> dict[str, Comparison]:
    (unit,) = make(own.contract).units
    ends: dict[str, Comparison] = {}

    def emit(case: Case, result: Comparison, *_: object) -> None:
        ends[f"{case.relation} of {case.path}"] = result

    run_unit(own, unit, tokens=None, done=frozenset(), emit=emit)
    return ends


def drawn() -> tuple[int, ...]:
    (unit,) = make(contract(**PAIR)).units
    (rows,) = unit.plans.prompts.rows or ()
    return tuple(row for row in rows if row not in EDGES)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (127, "differs"),  # the last row of a tile, far out
        (128, "differs"),  # the first that sees a key of the next
        (139, "holds"),  # the prompt's own row comes from prefill
        (140, "differs"),  # the last rows
        (100, "holds"),  # neither at an edge nor drawn: nothing is claimed of it
        *((row, "differs") for row in drawn()),
    ],
)
def test_a_defect_is_seen_where_its_row_is_compared(row: int, verdict: str) -> None:
    ends = found(setting(wrong_with(row + 1)))
    case = ends["invariance of decode"]
    assert case.outcome == verdict
    assert (case.tokens, case.of) == (len(EDGES) + len(drawn()) + 3, 142)
    assert ends["accuracy of decode"].outcome == verdict
    if verdict == "differs":
        assert case.first_divergence is not None
        assert case.first_divergence.position == row
        assert case.differing_tokens == 1


def test_prefill_computes_a_chosen_row_among_the_rows_of_its_block() -> None:
    calls: list[tuple[int, int]] = []

    def prefill(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        calls.append((len(q), len(k)))
        return naive_pair.prefill(q, k, v, **more)

    edges = {"workloads": [LONG | {"rows": {}}], "checks": PAIR["checks"][:1]}
    own = setting(naive_pair.decode, prefill)
    ends = found(replace(own, contract=contract(**PAIR | edges)))
    assert ends["invariance of decode"].outcome == "holds"
    # Blocks of 64 queries from 0 on, and what rows of one block share goes on behind the first.
    # The prompt's own row of decode comes from prefill, behind the rows that decode computed.
    assert sorted(calls) == [(4, 143), (11, 140), (12, 139), (127, 127)]


def test_nobody_attends_to_rows_that_only_fill() -> None:
    own = setting(naive_pair.decode)
    (unit,) = make(own.contract).units
    side = PathRun(own, own.subject, unit.plans, PathName("decode"), [[0] * 143])
    with counting() as counts:
        record = side.run()
    assert counts == {}  # no kernel of ours; the pair's own calls are counted by the session
    assert record.observed["attention.decode"] == len(record.index) - 1
    assert record.observed["attention.prefill"] == 1


TOY: dict[str, Any] = {
    "workloads": [{"name": "w", "prompt_tokens": [80, 21], "generate": 3, "rows": {"random": 1}}],
    "numerics": {"execution": "float32"},
    "checks": [
        {"name": "bits", "relation": "invariance",
         "paths": ["decode", "chunked(16)", "batched", "mixed", "paged(4)", "uniform"]},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e-5}},
        {"name": "held", "relation": "cache", "paths": ["decode"]},
    ],
    "controls": ["stale-slot", "wrong-input"],
}  # fmt: skip


def test_the_report_and_the_evidence_say_which_rows_were_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, **TOY)
    assert report["verdict"] == "holds"
    (unit,) = make(contract(**TOY)).units
    load = unit.plans.prompts
    compared = [(i, row) for i in (0, 1) for row in load.compared(i)]
    assert len(compared) < 40
    for check in report["checks"]:
        for case in check["cases"]:
            by_token = case["relation"] != "cache"
            assert (case.get("of") == 82 + 23) is by_token
            assert (case["tokens"] == len(compared)) is by_token
    words = rendered(report).count(f"w: compared {len(compared)} of 105 rows")
    assert words == 2  # bits and float64; of a cache all positions are looked at
    lines = (tmp_path / "run" / "paths.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        rows = [(i, row) for i, first, stop in line["compared"] for row in range(first, stop)]
        assert rows == compared


def test_without_the_key_nothing_is_said_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = [{"name": "w", "prompt_tokens": [5], "generate": 3}]
    checks = [{"name": "bits", "relation": "invariance", "paths": ["decode"]}]
    report = verify(tmp_path, monkeypatch, **{**TOY, "workloads": loads, "checks": checks})
    assert "of" not in report["checks"][0]["cases"][0]
    assert "compared" not in (tmp_path / "run" / "paths.jsonl").read_text()


def test_a_control_that_no_chosen_row_can_show_is_not_planted() -> None:
    loads = [TOY["workloads"][0] | {"prompt_tokens": [80]}]
    names = {"retokenised", "stale-after-update", "stale-slot"}
    work = make(contract(**{**TOY, "workloads": loads, "controls": sorted(names)}))
    assert {each.control for each in work.controls} == {"retokenised", "stale-slot"}
    assert "no workload that is run can show it" in str(work.unplanted)
    plain = [{k: v for k, v in loads[0].items() if k != "rows"}]
    work = make(contract(**{**TOY, "workloads": plain, "controls": sorted(names)}))
    assert {each.control for each in work.controls} == names
