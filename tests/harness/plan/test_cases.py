from __future__ import annotations

from typing import Any

import pytest
import toy

from kvparity.plan.cases import ControlRun, Work, make
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.planning import in_kernels, planned, shows

ATTENTION = {
    "subject": {
        "kind": "attention",
        "prefill": "kernels:prefill",
        "decode": "kernels:decode",
        "heads": {"query": 4, "kv": 2, "dim": 16},
    },
    "numerics": {"execution": "float32"},
    "workloads": [{"name": "short", "prompt_tokens": [3, 17], "generate": 4}],
    "checks": [
        {"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs": 1e-5}},
    ],
}


def bits(*paths: str, **more: Any) -> dict[str, Any]:
    return {"name": "bits", "relation": "invariance", "paths": list(paths)} | more


def workloads(*entries: tuple[str, list[int], int]) -> list[dict[str, Any]]:
    return [{"name": n, "prompt_tokens": lengths, "generate": g} for n, lengths, g in entries]


OF_KERNELS = {name for name, row in CONTROLS.items() if in_kernels(row)}


def plan(**changes: Any) -> Work:
    return make(toy.contract(**changes))


def runs(work: Work) -> dict[str, ControlRun]:
    return {run.control: run for run in work.controls}


def reasons(work: Work) -> dict[str, str]:
    return {entry.control: entry.reason for entry in work.unplanted}


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


def test_controls_take_the_smallest_part_that_shows_them() -> None:
    work = plan(
        workloads=workloads(("long", [90, 40, 7], 9), ("short", [3, 30], 6)),
        checks=[bits("decode", "batched", "chunked(5)")],
        subject={"kind": "decoder", "preset": "tiny", "order": {"split": 64, "tile": 32}},
    )
    found = runs(work)
    # One short sequence will do.
    assert (found["stale-slot"].workload, found["stale-slot"].sequences) == ("short", (0,))
    assert found["stale-slot"].generate == 4
    # 33 keys: the prompt of 30 and 3 of its 4 tokens. 65 keys: only the 90 have them.
    tile, split = found["tile-by-query-length"], found["split-by-batch"]
    assert (tile.workload, tile.sequences, tile.generate) == ("short", (1,), 4)
    assert (split.workload, split.sequences, split.generate) == ("long", (0,), 4)
    # Every token is scored: the shortest sequence of more than 64 tokens.
    scored = found["log-of-softmax"]
    assert (scored.workload, scored.sequences, scored.generate) == ("long", (0,), 9)


def test_a_control_runs_longer_where_it_takes_that_to_have_the_keys() -> None:
    order = {"split": 64, "tile": 64}
    contract = toy.contract(
        workloads=workloads(("edge", [60], 20)),
        checks=[bits("decode")],
        subject={"kind": "decoder", "preset": "tiny", "order": order},
    )
    # The linter counts 60 + 20 > 64 keys, and the plan must find them.
    assert shows(CONTROLS["tile-by-query-length"], contract)
    run = runs(make(contract))["tile-by-query-length"]
    assert run.generate == 5  # the last decoded token sees 60 + 5 - 1 = 64 keys


@pytest.mark.parametrize("lengths", [[1], [2], [60], [1, 1], [3, 17], [1, 2, 130]])
@pytest.mark.parametrize("generate", [2, 3, 8])
def test_what_the_linter_says_can_show_is_planted(lengths: list[int], generate: int) -> None:
    checks = [
        bits("decode", "chunked(2)", "batched", "permuted", "padded"),
        {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1.0}},
    ]
    entries = workloads(("w", lengths, generate))
    entries[0]["pad"] = ["left"]
    contract = toy.contract(workloads=entries, checks=checks)
    work = make(contract)
    expected = {each.name for each in planned(contract)}
    assert set(runs(work)) == expected
    assert set(runs(work)) | set(reasons(work)) == set(CONTROLS)
    for run in work.controls:
        assert run.generate <= generate
        assert len(run.sequences) == CONTROLS[run.control].sequences


def test_controls_are_planted_where_the_check_compares_them() -> None:
    work = plan(
        workloads=workloads(("a", [3], 4), ("b", [30], 4)),
        checks=[
            bits("chunked(2)", workloads=["a"]),
            bits("decode", workloads=["b"]) | {"name": "decode"},
        ],
    )
    found = runs(work)["stale-slot"]
    assert (found.check, found.workload, found.covered) == ("decode", "b", True)
    # Nowhere compared: planted all the same, and then run without the defect too.
    alone = runs(plan(checks=[bits("chunked(2)")]))["narrow-cache"]
    assert not alone.covered
    assert not runs(work)["log-of-softmax"].covered


def test_a_control_is_planted_for_every_relation_that_must_catch_it() -> None:
    held = {"name": "held", "relation": "cache", "paths": ["decode"]}
    alive = {"name": "alive", "relation": "liveness"}
    work = plan(checks=[bits("decode"), held, alive])
    found: dict[str, set[str]] = {}
    for run in work.controls:
        found.setdefault(run.control, set()).add(run.relation)
    present = {"invariance", "cache", "liveness"}
    for name, relations in found.items():
        assert relations == present & {*CONTROLS[name].relations}, name
    assert sum(len(relations) > 1 for relations in found.values()) > 1


def test_all_leaves_out_what_cannot_show_and_says_why() -> None:
    numerics = {"execution": "float32", "temperatures": 1.0}
    work = plan(numerics=numerics, checks=[bits("decode")], workloads=workloads(("w", [4], 2)))
    assert set(runs(work)) == {
        "position-off-by-one",
        "stale-slot",
        "narrow-cache",
        "log-of-softmax",
        "retokenised",
        "unequal-lengths",
        "rope-table-bfloat16",
        "decode-at-position-zero",
        "top-p-renormalised",
        "inlined-logprob",
    }
    found = reasons(work)
    assert found["temperature-ignored"] == "every temperature of the contract is 1"
    assert found["wrong-input"] == "the contract has no accuracy check"
    assert found["padding-leaks"].endswith("of at least 3 tokens, prompts of 2 lengths")
    assert "18 tokens" in found["tile-by-query-length"]
    assert not any(entry.asked for entry in work.unplanted)


def test_all_leaves_out_controls_of_paths_that_no_check_runs() -> None:
    found = reasons(plan(checks=[bits("chunked(2)")]))
    assert found["position-off-by-one"] == (
        "it cannot show here: it takes a path that decodes, and at least 2 generated tokens"
    )


def test_a_named_control_that_cannot_show_is_asked_for() -> None:
    checks = [bits("decode")]
    work = plan(checks=checks, controls=["wrong-input", "stale-slot"])
    assert [(u.control, u.asked) for u in work.unplanted] == [("wrong-input", True)]
    assert set(runs(work)) == {"stale-slot"}


def test_controls_of_kernels_are_not_for_attention_and_the_other_way_round() -> None:
    work = plan(**ATTENTION)
    refused = {n for n, r in reasons(work).items() if "of kind attention" in r}
    assert refused == {n for n, each in CONTROLS.items() if "attention" not in each.subjects}
    assert refused >= {"position-off-by-one", "padding-leaks", "log-of-softmax", "retokenised"}


def test_a_defect_on_both_sides_needs_another_path_than_its_own() -> None:
    work = plan(checks=[bits("prefill", "batched", reference="decode")])
    found = runs(work)
    assert "narrow-cache" not in found
    assert "not within decode" in reasons(work)["narrow-cache"]
    # One side planted, the other not: that shows within one path.
    assert str(found["stale-slot"].reference) == "decode"


@pytest.mark.usefixtures("every_path")
def test_scoring_is_controlled_on_prefill_whatever_the_reference() -> None:
    own = plan(checks=[bits("decode", reference="generate")])
    found = runs(own)
    assert str(found["log-of-softmax"].reference) == "prefill"
    assert "own loop" in reasons(own)["narrow-cache"]
    assert found["temperature-ignored"].temperature == 0.7
    assert found["temperature-ignored"].column == 1


def test_the_library_plants_what_it_promises() -> None:
    from kvparity_contracts.library import find
    from kvparity_contracts.loader import load

    contract: Contract = load(find("smoke")).contract
    work = make(contract)
    assert set(runs(work)) == set(contract.controls) - OF_KERNELS
    assert len(runs(work)) == 12
    assert places(work) == {("other-tile", "order"): 65, ("ragged-split", "order"): 65}
    assert reasons(work) == {}
    audit = make(load(find("fixed-order-audit")).contract)
    assert [(c.architecture, str(c.numerics)) for c in audit.kernel_cases] == [
        ("sm_80", "bfloat16"),
        ("sm_90", "bfloat16"),
        ("sm_100", "bfloat16"),
    ]
    assert set(places(audit)) == {("other-tile", "audit"), ("other-warps", "audit")}


# checks of kernels


ORDER = {"name": "order", "relation": "order", "keys": [300, 17, 65]}
AUDIT = {"name": "audit", "relation": "audit", "architectures": ["sm_90", "sm_80"]}


def places(work: Work) -> dict[tuple[str, str], int | str]:
    """Where the controls of kernels are planted: keys or architecture."""
    return {
        (run.control, run.relation): run.case.keys or run.case.architecture
        for run in work.kernel_controls
    }


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


def test_controls_of_kernels_take_the_smallest_case_of_the_first_format() -> None:
    # A tile of 64: what goes on within one shows no other tile.
    kind = {"kind": "decoder", "preset": "tiny"}
    numerics = {"execution": ["float32", "bfloat16"]}
    order = ORDER | {"keys": [300, 64, 65]}
    work = plan(subject=kind, numerics=numerics, checks=[bits("decode"), order, AUDIT])
    assert places(work) == {
        ("other-tile", "order"): 65,
        ("other-tile", "audit"): "sm_90",
        ("ragged-split", "order"): 65,
        ("other-warps", "audit"): "sm_90",
    }
    assert {str(run.case.numerics) for run in work.kernel_controls} == {"float32"}
    assert not set(reasons(work)) & OF_KERNELS


def test_controls_of_kernels_that_cannot_show_are_left_out_or_asked_for() -> None:
    few = {"name": "order", "relation": "order", "keys": [16]}
    found = reasons(plan(checks=[bits("decode"), few]))
    assert found["other-tile"] == "no order check has more than 16 keys, one tile"
    assert found["other-warps"] == "the contract has no audit check"
    asked = plan(checks=[bits("decode")], controls=["other-tile", "stale-slot"]).unplanted
    assert [(u.control, u.relation, u.asked) for u in asked] == [("other-tile", "order", True)]
    assert asked[0].reason == "the contract has no order or audit check"


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
