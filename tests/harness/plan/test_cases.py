from __future__ import annotations

import pytest
import toy
from case_plans import ATTENTION, AUDIT, ORDER, bits, plan, workloads

from kvparity.plan.cases import make


def test_units_share_a_workload_and_a_numerics() -> None:
    numerics = {"execution": ["float32", "bfloat16"], "temperatures": [1.0, 0.7]}
    work = plan(numerics=numerics)
    assert [unit.id for unit in work.units] == [
        "short, float32",
        "padded, float32",
        "short, bfloat16",
        "padded, bfloat16",
    ]
    for unit in work.units:
        assert {(c.workload, c.numerics) for c in unit.cases} == {(unit.workload, unit.numerics)}
    padded = [str(c.path) for c in work.units[1].cases if c.temperature == 0.7]
    assert padded == [
        "decode",
        "chunked(4)",
        "batched",
        "permuted",
        "mixed",
        "padded-left",
        "prefill",
    ]


def test_case_ids_are_unique_and_stable() -> None:
    work = plan()
    cases = [case for unit in work.units for case in unit.cases]
    assert sorted(case.id for case in cases) == [f"c{i:03d}" for i in range(len(cases))]
    assert work == plan()
    by_id = {case.id: case for case in cases}
    first, second = by_id["c000"], by_id["c001"]
    assert (str(first.path), first.temperature, first.column) == ("decode", 1.0, 0)
    assert (str(second.path), second.temperature, second.column) == ("decode", 0.7, 1)
    assert {c.column for c in cases if c.temperature == 1.0} == {0}


def test_each_kv_cache_format_is_a_numerics_of_its_own() -> None:
    work = plan(numerics={"execution": "float32", "kv_cache": ["float32", "bfloat16"]})
    assert [unit.id for unit in work.units][::2] == [
        "short, float32",
        "short, float32, kv bfloat16",
    ]


def test_attention_has_one_case_per_path_and_no_temperature() -> None:
    (unit,) = plan(**ATTENTION).units
    assert [(str(c.path), c.temperature, c.column) for c in unit.cases] == [
        ("decode", None, None),
        ("batched", None, None),
        ("prefill", None, None),
    ]
    assert unit.cases[2].reference is None


@pytest.mark.parametrize("relation", ["cache", "liveness", "trace"])
def test_what_looks_at_no_logprob_has_one_case_for_all_temperatures(relation: str) -> None:
    check = {"name": "x", "relation": relation, "paths": ["decode"]}
    work = make(toy.contract(checks=[check]))
    assert {(c.temperature, c.column) for unit in work.units for c in unit.cases} == {(None, None)}


@pytest.mark.usefixtures("every_path")
def test_the_rollout_is_the_subjects_own_where_the_contract_looks_at_it() -> None:
    own = plan(checks=[bits("generate", "decode")])
    assert {str(unit.rollout) for unit in own.units} == {"generate"}
    reference = plan(checks=[bits("prefill", reference="generate")])
    assert {str(unit.rollout) for unit in reference.units} == {"generate"}
    assert {str(unit.rollout) for unit in plan().units} == {"decode"}


def test_a_path_that_is_the_reference_itself_is_omitted_and_said() -> None:
    work = plan(
        workloads=workloads(("tiny", [1, 3], 2), ("long", [9], 4)), checks=[bits("chunked(8)")]
    )
    assert [(o.workload, o.path) for o in work.omitted] == [("tiny", "chunked(8)")]
    assert [unit.workload for unit in work.units] == ["long"]
    assert "the same steps" in work.omitted[0].reason
    # Nothing is rolled out over tiny, so no control may look for its tokens there.
    assert {run.workload for run in work.controls} == {"long"}


@pytest.mark.usefixtures("every_path")
@pytest.mark.parametrize("path", ["decode", "mixed", "generate"])
def test_a_path_that_would_decode_nothing_is_omitted_and_said(path: str) -> None:
    work = plan(
        workloads=workloads(("one", [3, 5], 1), ("two", [3], 2)), checks=[bits(path, "permuted")]
    )
    assert [(o.workload, o.path) for o in work.omitted] == [("one", path)]
    assert "nothing is decoded" in work.omitted[0].reason
    assert [str(c.path) for c in work.units[0].cases] == ["permuted", "permuted"]


def test_a_check_runs_on_its_own_workloads() -> None:
    work = plan(checks=[bits("decode", workloads=["padded"])])
    assert [unit.workload for unit in work.units] == ["padded"]
    # No control may use a workload that has no rollout.
    assert {run.workload for run in work.controls} == {"padded"}


def test_cases_of_kernels_come_after_all_others() -> None:
    numerics = {"execution": ["float32", "bfloat16"]}
    before = plan(numerics=numerics)
    own = toy.document()["checks"]
    work = plan(numerics=numerics, checks=[ORDER, *own, AUDIT])
    assert work.units == before.units  # so that their ids stay what they were
    first = sum(len(unit.cases) for unit in before.units)
    assert [case.id for case in work.kernel_cases] == [f"c{first + i:03d}" for i in range(10)]
    found = [(c.relation, c.numerics.execution, c.keys, c.architecture) for c in work.kernel_cases]
    assert found[:4] == [
        ("order", "float32", 300, ""),
        ("order", "float32", 17, ""),
        ("order", "float32", 65, ""),
        ("order", "bfloat16", 300, ""),
    ]
    assert found[6:8] == [("audit", "float32", 0, "sm_90"), ("audit", "float32", 0, "sm_80")]


def test_an_order_check_may_look_at_some_formats() -> None:
    numerics = {"execution": ["float32", "bfloat16"], "kv_cache": ["float32", "bfloat16"]}
    work = plan(numerics=numerics, checks=[ORDER | {"execution": "bfloat16", "keys": [65]}])
    found = [str(case.numerics) for case in work.kernel_cases]
    assert found == ["bfloat16, kv float32", "bfloat16"]
    assert {str(run.case.numerics) for run in work.kernel_controls} == {"bfloat16, kv float32"}
    both = ORDER | {"execution": ["bfloat16", "float32"], "keys": [65]}
    assert [str(case.numerics) for case in plan(numerics=numerics, checks=[both]).kernel_cases] == [
        "float32",
        "float32, kv bfloat16",
        *found,
    ]


def test_order_and_audit_alone_run_no_unit() -> None:
    work = plan(checks=[ORDER])
    assert work.units == work.controls == work.omitted == ()
    assert [case.id for case in work.kernel_cases] == ["c000", "c001", "c002"]


def test_padded_beside_one_of_its_sides_runs_no_path_twice() -> None:
    work = plan(checks=[bits("decode", "padded-left", "padded")], controls=["stale-slot"])
    (unit,) = (unit for unit in work.units if unit.workload == "padded")
    paths = {str(case.path) for case in unit.cases}
    assert paths == {"decode", "padded-left"}
    assert len(unit.cases) == len(paths) * 2  # two temperatures
