from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from pair_settings import prefill_of, rows
from small_pair import HEADS, PAIR, subject

from kvparity.plan.cases import Case, make
from kvparity.record.execute import Record
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run.unit import Setting, run_unit
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.pair.subject import AttentionSubject


def setting(found: AttentionSubject, **changes: Any) -> Setting:
    """A contract that fits the subject; its names of functions are not looked at again."""
    whole: dict[str, Any] = {
        "subject": {
            "kind": "attention",
            "prefill": f"{PAIR}:prefill",
            "decode": f"{PAIR}:decode",
            "heads": HEADS,
        },
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "short", "prompt_tokens": [3, 40], "generate": 3}],
        "checks": [
            {
                "name": "bits",
                "relation": "invariance",
                "paths": ["decode", "chunked(5)", "batched", "uniform", "permuted", "mixed"],
            },
            {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}},
        ],
        "controls": CONTROLS,
    }
    return Setting(toy.contract(**(whole | changes)), found)


def outcomes(found: Setting) -> dict[str, str]:
    results: dict[str, str] = {}

    def emit(case: Case, result: Comparison, a: Record | None, b: Record) -> None:
        results[f"{case.path} {case.relation}"] = result.outcome

    for unit in make(found.contract).units:
        run_unit(found, unit, tokens=None, done=frozenset(), emit=emit)
    return results


PATHS = ["decode", "chunked(5)", "batched", "uniform", "permuted", "mixed"]
HOLDS = {f"{path} invariance": "holds" for path in PATHS} | {"prefill accuracy": "holds"}


@pytest.mark.parametrize("execution", ["float32", "bfloat16", "float16"])
def test_a_sound_pair_holds(execution: str) -> None:
    limit = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}[execution]
    checks = [
        {"name": "bits", "relation": "invariance", "paths": PATHS},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs": limit}},
    ]
    assert outcomes(setting(subject(execution=execution), checks=checks)) == HOLDS
    narrow = subject(execution=execution, kv_cache="bfloat16")
    assert outcomes(setting(narrow, checks=checks)) == HOLDS


def test_a_pair_without_lse_holds_too() -> None:
    assert outcomes(setting(subject("decode_alone", "prefill_alone"))) == HOLDS


@pytest.mark.parametrize(
    ("decode", "where"),
    [
        ("decode_backwards", {"decode", "batched", "uniform", "mixed"}),
        ("decode_by_batch", {"batched", "uniform", "mixed"}),
        ("decode_by_lengths", {"uniform"}),
        ("decode_when_full", {"uniform"}),
        ("decode_past_the_end", {"decode", "batched", "uniform", "mixed"}),
    ],
)
def test_a_decode_that_parts_is_found_where_it_parts(decode: str, where: set[str]) -> None:
    found = outcomes(setting(subject(decode)))
    assert found == HOLDS | {f"{path} invariance": "differs" for path in where}


def again(decode: str) -> list[dict[str, bool]]:
    """What was computed once more, in the order of the cases."""
    found: list[Any] = []
    whole = setting(subject(decode))
    for unit in make(whole.contract).units:
        run_unit(
            whole, unit, tokens=None, done=frozenset(), emit=lambda *it: found.append(it[1].details)
        )
    return [getattr(each, "repeats", {}) for each in found]


def test_what_differs_is_computed_once_more() -> None:
    assert not any(again("decode"))
    steady, *others = [each for each in again("decode_backwards") if each]
    assert steady == {"prefill": True, "decode": True}
    assert others == []  # one case of a workload tells enough
    (wandering,) = [each for each in again("decode_wanders") if each]
    assert wandering == {"prefill": True, "decode": False}


def test_some_defects_need_scores_that_lie_far_apart() -> None:
    assert outcomes(setting(subject("decode_where_steep", queries="normal"))) == HOLDS
    assert outcomes(setting(subject(queries="sharp"))) == HOLDS
    found = outcomes(setting(subject("decode_where_steep", queries="sharp")))
    assert {path for path, verdict in found.items() if verdict == "differs"} >= {
        "decode invariance",
        "batched invariance",
    }


def test_sharp_queries_are_the_others_times_powers_of_four() -> None:
    positions = torch.arange(400)
    plain, *same = subject(queries="normal").draw("a", positions)
    sharp, *others = subject(queries="sharp").draw("a", positions)
    factors = (sharp / plain).reshape(400, -1)
    assert set(factors.unique().tolist()) == {1.0, 4.0, 16.0, 64.0}
    assert (factors == factors[:, :1]).all()  # one for each position
    assert all(torch.equal(a, b) for a, b in zip(same, others, strict=True))
    (again, *_) = subject(queries="sharp").draw("a", positions[100:])
    assert torch.equal(again, sharp[100:])


def test_agreeing_and_wrong_fails_on_accuracy_alone() -> None:
    found = outcomes(setting(subject("decode_sharp", "prefill_sharp")))
    assert found == HOLDS | {"prefill accuracy": "differs"}


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (
            "decode_wrong_shape",
            r"decode_wrong_shape: out has shape \[1, 3, 8\], expected \[1, 4, 8\]",
        ),
        ("decode_wrong_dtype", r"out has dtype torch.float64, expected torch.float32"),
        ("decode_wrong_lse", r"lse has shape \[4, 1\], expected \[1, 4\]"),
        ("decode_half_lse", r"lse has dtype torch.float16, expected torch.float32"),
        ("decode_list", r"out is a list, expected a tensor"),
        ("decode_none", r"out is a NoneType, expected a tensor"),
        ("decode_raises", r"decode_raises raised ZeroDivisionError: no splits"),
        ("decode_exits", r"decode_exits raised SystemExit: 0"),
        ("decode_writes", r"decode_writes wrote to its input v"),
        ("decode_scales_q", r"decode_scales_q wrote to its input q"),
        ("decode_alone", r"naive_pair.py:prefill and .*:decode_alone returns an LSE and the other"),
    ],
)
def test_a_broken_pair_is_an_error_that_names_it(decode: str, message: str) -> None:
    with pytest.raises(SubjectError, match=message):
        outcomes(setting(subject(decode)))


def test_the_message_of_a_missing_function_offers_the_others() -> None:
    with pytest.raises(ValueError, match=r"naive_pair.py has no function 'decod'.* decode"):
        subject("decod")
    with pytest.raises(ValueError, match="has no function 'not_a_function'"):
        subject("not_a_function")


def caught(found: Setting) -> dict[str, bool | str]:
    results: dict[str, bool | str] = {}
    for job in make(found.contract).controls:
        zeros = [[0] * n for n in found.contract.workloads[0].totals()]
        try:
            results[job.control] = toy.run_control(found, job, zeros)[0]
        except UnsupportedError as error:
            results[job.control] = str(error)
    return results


CONTROLS = [
    "split-by-batch",
    "tile-by-query-length",
    "split-from-chunk",
    "stale-slot",
    "narrow-cache",
    "unequal-lengths",
    "wrong-input",
]
SMALL_ORDER = {"order": {"split": 32, "tile": 16}}


def small(decode: str, prefill: str) -> Setting:
    kernels = {
        "kind": "attention",
        "prefill": f"{PAIR}:prefill",
        "decode": f"{PAIR}:decode",
        "heads": HEADS,
    } | SMALL_ORDER
    return setting(subject(decode, prefill), subject=kernels)


def test_controls_of_a_foreign_pair_are_caught() -> None:
    assert caught(small("decode", "prefill")) == dict.fromkeys(CONTROLS, True)


def test_controls_of_the_order_need_the_lse_and_say_so() -> None:
    found = caught(small("decode_alone", "prefill_alone"))
    for name in CONTROLS[:3]:
        assert "LSE" in str(found[name])
    assert {name: found[name] for name in CONTROLS[3:]} == dict.fromkeys(CONTROLS[3:], True)


def test_our_own_kernels_hold_and_catch_every_control() -> None:
    heads = {"query": 2, "kv": 1, "dim": 16}
    order = {"split": 32, "tile": 16, "block_m": 16}
    model = {"module": "kvparity_kernels.attention", "heads": heads, "order": order}
    checks = [
        {"name": "bits", "relation": "invariance", "paths": ["decode", "chunked(9)", "batched"]},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}},
    ]
    found = setting(
        subject(**model),
        subject={
            "kind": "attention",
            "prefill": "kvparity_kernels.attention:prefill",
            "decode": "kvparity_kernels.attention:decode",
            "heads": heads,
            "order": order,
        },
        workloads=[{"name": "w", "prompt_tokens": [3, 38], "generate": 3}],
        checks=checks,
    )
    assert set(outcomes(found).values()) == {"holds"}
    assert caught(found) == dict.fromkeys(CONTROLS, True)
    launches = rows(found.subject, prefill_of("a")).launches  # type: ignore[arg-type] # an AttentionSubject
    assert set(launches.counts) == {"attention.prefill"}


def test_the_order_reaches_both_kernels(tmp_path: Path) -> None:
    seen: list[Any] = []

    def spy(call: Any) -> Any:
        seen.append(call.keywords().get("order"))
        raise ValueError("enough")

    found = subject(order={"split": 32, "tile": 16})
    spied = found.with_pair(replace(found.pair, prefill=spy, decode=spy))
    with pytest.raises(SubjectError, match="raised ValueError: enough"):
        rows(spied, prefill_of("a"))
    assert [(order.split, order.tile) for order in seen] == [(32, 16)]
    plain = subject()
    without = plain.with_pair(replace(plain.pair, prefill=spy, decode=spy))
    with pytest.raises(SubjectError, match="raised ValueError: enough"):
        rows(without, prefill_of("a"))
    assert seen[1] is None
