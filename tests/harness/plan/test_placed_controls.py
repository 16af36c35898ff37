"""Which cases a control is planted in, which are left out, and which are asked for all the same."""

from __future__ import annotations

import pytest
import toy
from case_plans import ATTENTION, AUDIT, ORDER, bits, plan, workloads

from kvparity.plan.cases import ControlRun, Work, make
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.planning import in_kernels, planned, shows

OF_KERNELS = {name for name, row in CONTROLS.items() if in_kernels(row) and row.side != "sides"}


def runs(work: Work) -> dict[str, ControlRun]:
    return {run.control: run for run in work.controls}


def reasons(work: Work) -> dict[str, str]:
    return {entry.control: entry.reason for entry in work.unplanted}


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
        ("sm_90", "bfloat16"),
        ("sm_80", "bfloat16"),
        ("sm_90", "bfloat16"),
        ("sm_100", "bfloat16"),
    ]
    assert set(places(audit)) == {
        ("other-tile", "audit"), ("other-warps", "audit"), ("other-architecture", "audit"),
    }  # fmt: skip


def places(work: Work) -> dict[tuple[str, str], int | str]:
    """Where the controls of kernels are planted: keys or architecture."""
    return {
        (run.control, run.relation): run.case.keys or run.case.architecture
        for run in work.kernel_controls
    }


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
    assert set(reasons(work)) & OF_KERNELS == {"other-architecture"}  # float32 comes first
    assert "it takes 16-bit execution first" in reasons(work)["other-architecture"]


def test_controls_of_kernels_that_cannot_show_are_left_out_or_asked_for() -> None:
    few = {"name": "order", "relation": "order", "keys": [16]}
    found = reasons(plan(checks=[bits("decode"), few]))
    assert found["other-tile"] == "no order check has more than 16 keys, one tile"
    assert found["other-warps"] == "the contract has no audit check"
    asked = plan(checks=[bits("decode")], controls=["other-tile", "stale-slot"]).unplanted
    assert [(u.control, u.relation, u.asked) for u in asked] == [("other-tile", "order", True)]
    assert asked[0].reason == "the contract has no order or audit check"
