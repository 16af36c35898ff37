"""What limits see of a fault that both kernels share, and where a control is judged by that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from torch import Tensor

from kvparity.controls.reach import reaches
from kvparity.controls.semantics import ROWS
from kvparity.core.errors import UnsupportedError
from kvparity.plan.cases import ControlRun, make
from kvparity.record.path_run import Setting
from kvparity.relations.asked import Planted
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import RELATIONS
from kvparity.run import control_run
from kvparity.run.control_run import plant
from kvparity.subjects.pair.exact import exact
from kvparity.subjects.pair.subject import AttentionSubject, build
from kvparity_contracts.subjects import Attention

PAIRS = Path(__file__).parents[1] / "semantic_pairs.py"
WIDTH = 48  # columns of the output, before the six of LSE
OUT, LSE = WIDTH - 1, WIDTH + 2
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}


def near(name: str, **limits: float) -> dict[str, Any]:
    return {
        "name": name,
        "relation": "accuracy",
        "limits": {dtype: {"max_abs": limit} for dtype, limit in limits.items()},
    }


def whole(*checks: dict[str, Any]) -> tuple[Setting, AttentionSubject]:
    """A pair over sequences of 6, 12 and 6 known tokens, of which 4, 4 and 2 rows are compared."""
    contract = toy.contract(
        subject={
            "kind": "attention", "prefill": f"{PAIRS}:prefill", "decode": f"{PAIRS}:decode",
            "heads": {"query": 6, "kv": 2, "dim": 8}, "queries": "normal", "softcap": 3.0,
        },
        numerics={"execution": ["float32", "bfloat16"]},
        workloads=[
            {"name": "a", "prompt_tokens": [3, 9], "generate": 4},
            {"name": "b", "prompt_tokens": [5], "generate": 2},
        ],
        checks=[BITS, *checks],
        controls="all",
    )  # fmt: skip
    model = contract.subject
    assert isinstance(model, Attention)
    subject = build(
        model, execution="float32", kv_cache="float32", device=torch.device("cpu"), seed=0,
        base=Path(),
    )  # fmt: skip
    return Setting(contract, subject), subject


class Off:
    """Right rows but for one column, off by so much where there are so many keys."""

    def __init__(self, by: dict[int, float], column: int = OUT) -> None:
        self.by, self.column = by, column
        self.shapes: list[tuple[int, int]] = []
        self.right: list[Tensor] = []

    def __call__(self, subject: AttentionSubject, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        right = exact(subject, q, k, v)
        self.shapes.append((len(q), len(k)))
        self.right.append(right)
        wrong = right.clone()
        wrong[:, self.column] += self.by.get(len(k), 0.0)
        return wrong


ALL = [(4, 6), (2, 6), (4, 12)]  # rows, keys: shorter ones first


@pytest.mark.parametrize(
    ("by", "limit", "visited", "measured"),
    [
        ({6: 0.25, 12: 0.5}, 9.0, ALL, 0.5),
        ({6: 0.5, 12: 0.25}, 9.0, ALL, 0.5),
        ({6: 0.25, 12: 0.5}, 0.3, ALL, 0.5),
        ({6: 0.25, 12: 0.5}, 0.2, ALL[:1], 0.25),
        ({}, 9.0, ALL, 0.0),
    ],
)
def test_all_rows_that_a_check_compares_are_held_against_it_until_one_is_over(
    by: dict[int, float], limit: float, visited: list[tuple[int, int]], measured: float
) -> None:
    rows = Off(by)
    found = reaches(*whole(near("n", float32=limit, bfloat16=9.0)), rows, lse=False)
    assert [(each.check, each.dtype, each.kv_cache, each.limit) for each in found] == [
        ("n", "float32", "float32", limit), ("n", "bfloat16", "bfloat16", 9.0),
    ]  # fmt: skip
    assert rows.shapes == [*visited, *ALL]
    assert found[0].measured == pytest.approx(measured, abs=1e-6)
    assert found[0].seen == (measured > limit)
    for each, right, dtype in zip(
        found, (rows.right[: len(visited)], rows.right[len(visited) :]),
        (torch.float32, torch.bfloat16), strict=True,
    ):  # fmt: skip
        o = torch.cat(right)[:, :WIDTH]
        assert each.rounding == float((o.to(dtype).double() - o).abs().max())


def test_what_is_at_the_limit_is_not_over_it() -> None:
    by = {6: 0.25}
    first = reaches(*whole(near("n", float32=9.0, bfloat16=9.0)), Off(by), lse=False)[0]
    rows = Off(by)
    at = reaches(*whole(near("n", float32=first.measured, bfloat16=0.1)), rows, lse=False)
    assert rows.shapes == [*ALL, ALL[0]]
    assert [each.seen for each in at] == [False, True]
    assert at[0].measured == first.measured


@pytest.mark.parametrize(
    ("column", "lse", "seen"), [(OUT, False, True), (OUT, True, True), (LSE, True, True),
                                (LSE, False, False)],
)  # fmt: skip
def test_an_lse_counts_where_the_pair_returns_one(column: int, lse: bool, seen: bool) -> None:
    checks = near("n", float32=0.1, bfloat16=0.1), near("m", float32=1.0, bfloat16=0.1)
    found = reaches(*whole(*checks), Off({12: 0.5}, column), lse=lse)
    assert [(each.check, each.dtype, each.seen) for each in found] == [
        ("n", "float32", seen), ("n", "bfloat16", seen),
        ("m", "float32", False), ("m", "bfloat16", seen),
    ]  # fmt: skip


# The control


def job_of(setting: Setting) -> ControlRun:
    runs = make(setting.contract).controls
    return next(r for r in runs if (r.control, r.relation) == ("softcap-ignored", "accuracy"))


def planted(
    monkeypatch: pytest.MonkeyPatch, rows: Off, *, lse: bool = True, **limits: float
) -> Planted:
    setting, subject = whole(near("n", **limits))
    if not lse:
        pair = subject.pair
        alone = replace(
            pair,
            prefill=lambda call: pair.prefill(call)[0],
            decode=lambda call: pair.decode(call)[0],
        )
        setting = replace(setting, subject=subject.with_pair(alone))
    monkeypatch.setitem(ROWS, "softcap-ignored", rows)
    return plant(setting, job_of(setting), [[0] * 13] * 2)


def test_a_shared_fault_is_caught_where_every_format_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = planted(monkeypatch, Off({12: 0.5}), float32=0.1, bfloat16=0.2)
    assert found.caught
    assert found.seen == "differs: over the limit: max_abs 0.5 of 0.1 allowed"
    assert found.measured == {"max_abs": found.reach[0].measured}
    assert [each.limit for each in found.reach] == [0.1, 0.2]


def test_the_first_format_that_does_not_see_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planted(monkeypatch, Off({12: 0.5}), float32=0.1, bfloat16=2.0)
    assert not found.caught
    assert found.seen.startswith("not seen: max_abs 0.5")
    assert " of 2 allowed; bfloat16 alone rounds by 0.00" in found.seen
    assert found.measured == {"max_abs": found.reach[1].measured}
    assert [each.seen for each in found.reach] == [True, False]


@pytest.mark.parametrize("lse", [False, True])
def test_a_fault_of_an_lse_that_nobody_returns_is_not_seen(
    lse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted(monkeypatch, Off({12: 0.5}, LSE), lse=lse, float32=0.1, bfloat16=0.1)
    assert found.caught == lse


RESULT = Comparison("differs", "so", tokens=3, differing_tokens=2, max_abs=0.5, clipfrac0=0.0)
MEASURED = {"max_abs": 0.5, "clipfrac0": 0.0}


@pytest.mark.parametrize(
    ("control", "relation", "pair", "by_reach"),
    [
        ("softcap-ignored", "accuracy", True, True),
        ("softcap-ignored", "accuracy", False, False),  # a shared fault of something else
        ("softcap-ignored", "liveness", True, False),  # another relation compares
        ("log-of-softmax", "accuracy", True, False),  # no fault of rows
        ("log-of-softmax", "invariance", False, False),
    ],
)
def test_what_both_kernels_of_a_pair_share_is_judged_by_reach_and_nothing_else_is(
    control: str, relation: Any, pair: bool, by_reach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, _ = whole(near("n", float32=9.0, bfloat16=9.0))
    job = replace(job_of(setting), control=control, relation=relation, covered=True)
    if not pair:
        setting = Setting(setting.contract, toy.Toy())
    monkeypatch.setattr(control_run, "compare", lambda *_: RESULT)
    found = plant(setting, job, [[0] * 13] * 2)
    assert bool(found.reach) == by_reach
    if not by_reach:
        assert found.caught
        assert found.seen == f"so: 2 of 3 {RELATIONS[relation].counted}"
        assert found.measured == (MEASURED if relation == "accuracy" else {})


@pytest.mark.parametrize(
    ("result", "seen", "caught"),
    [
        (RESULT, "so: 2 of 3 tokens", True),
        (replace(RESULT, differing_tokens=0), "differs: so", True),
        (replace(RESULT, outcome="void"), "void: so", False),
        (replace(RESULT, outcome="holds"), "holds: so", False),
    ],
)
def test_how_much_differs_is_counted_where_something_differs(
    result: Comparison, seen: str, caught: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, _ = whole(near("n", float32=9.0, bfloat16=9.0))
    monkeypatch.setattr(control_run, "compare", lambda *_: result)
    job = replace(job_of(setting), control="log-of-softmax", relation="invariance", covered=True)
    found = plant(setting, job, [[0] * 13] * 2)
    assert (found.seen, found.caught) == (seen, caught)


@pytest.mark.parametrize("by", [float("inf"), float("nan")])
@pytest.mark.parametrize("column", [OUT, LSE])
def test_rows_that_are_not_finite_are_no_measure(by: float, column: int) -> None:
    """A maximum would pass over NaN, and no limit says anything of what is infinite."""
    setting, subject = whole(near("near", float32=1e-3, bfloat16=1e-1))
    with pytest.raises(UnsupportedError, match="NaN or infinite once they are rounded"):
        reaches(setting, subject, Off({6: by}, column), lse=True)
