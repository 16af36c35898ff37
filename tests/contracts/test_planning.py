"""Which controls and workloads a contract means: both sides of each rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from one_key import Doc, changed, said
from test_one_key import AUDIT, SHORT, WINDOW, W, order

from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.planning import (
    LeftOut,
    PlantedControl,
    fates,
    meant,
    meant_for,
    planned,
    workloads_run,
)

PATHS = "checks.0.paths"
ALL: Doc = {"controls": "all"}
TEMPERED: Doc = {"numerics.temperatures": [1.0, 0.7]}


def contract(base: str, changes: Doc) -> Contract:
    return Contract.model_validate(changed(base, changes))


WHOLE: Doc = {
    "subject.prefill": "m:f", "subject.decode": "m:f", "subject.order": None,
    "checks": [{"name": "a", "relation": "invariance", "paths": ["permuted"]}],
}  # fmt: skip
CROSSED: Doc = WHOLE | {
    "subject.causal": False, "subject.page": 8,
    "checks": [{"name": "a", "relation": "invariance", "paths": ["decode"]}],
}  # fmt: skip
SHOWN: list[tuple[str, str, Doc, bool]] = [
    # A control, a contract with all controls, and whether it is run.
    ("stale-slot", "decoder", {}, True),
    ("stale-slot", "decoder", {PATHS: ["chunked(4)"]}, False),
    ("stale-slot", "decoder", {"checks.0.workloads": ["w"], "workloads.0.generate": 1}, False),
    ("stale-slot", "decoder", {"checks.0": {"name": "t", "relation": "trace"}}, True),
    ("wrong-input", "decoder", {}, True),
    ("wrong-input", "decoder", {"checks.1": order(65)}, False),
    ("wrong-input", "model", {}, False),
    ("temperature-ignored", "decoder", {}, False),
    ("temperature-ignored", "decoder", TEMPERED, True),
    ("temperature-ignored", "decoder", {"numerics.temperatures": [0.7]}, True),
    ("temperature-ignored", "decoder", TEMPERED | {"checks.0": order(65)}, False),
    ("window-one-short", "decoder", {}, False),
    ("window-one-short", "decoder", {"subject.config": WINDOW}, True),
    ("norm-block-by-rows", "decoder", {}, True),
    ("norm-block-by-rows", "decoder", {"numerics.execution": "bfloat16"}, False),
    ("split-by-batch", "decoder", {f"{PATHS}.+": "batched"}, True),
    ("split-by-batch", "decoder", {f"{PATHS}.+": "batched", W: [3, 57]}, False),
    ("split-by-batch", "decoder", {f"{PATHS}.+": "batched", "workloads.+": SHORT,
                                   "checks.0.workloads": ["short"]}, False),
    ("other-tile", "decoder", {}, False),
    ("other-tile", "decoder", {"checks.+": order(33)}, True),
    ("other-tile", "decoder", {"checks.+": order(32)}, False),
    ("other-tile", "decoder", {"checks.+": order(32, 16, 33)}, True),
    ("other-tile", "decoder", {"checks.+": AUDIT}, True),
    ("ragged-split", "decoder", {"checks.+": AUDIT}, False),
    ("other-warps", "decoder", {"checks.+": AUDIT}, True),
    ("other-warps", "decoder", {"checks.+": order(33)}, False),
    ("other-architecture", "decoder", {"checks.+": AUDIT, "numerics.execution": "float16"}, True),
    ("other-architecture", "decoder", {"checks.+": AUDIT, "numerics.execution": "float32"}, False),
    ("padding-leaks", "decoder", {f"{PATHS}.+": "padded", "workloads.0.pad": ["left"]}, True),
    ("padding-leaks", "decoder", {f"{PATHS}.+": "padded", "workloads.0.pad": ["right"]}, False),
    # A pair whose rows see later keys never decodes.
    ("strides-ignored", "pair", WHOLE, True),
    ("strides-ignored", "pair", WHOLE | {"subject.causal": False}, False),
    # Beside an encoder the number of its keys counts, not the tokens of a workload.
    ("pages-in-order", "pair", CROSSED | {"subject.cross": [8, 40]}, False),
    ("pages-in-order", "pair", CROSSED | {"subject.cross": [9, 40]}, True),
    ("reads-into-neighbour", "pair", WHOLE, False),
    ("reads-into-neighbour", "pair", WHOLE | {"subject.causal": False}, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "base", "changes", "shown"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(SHOWN)],
)
def test_with_all_a_control_runs_where_it_can_show(
    control: str, base: str, changes: Doc, shown: bool
) -> None:
    given = contract(base, changes | ALL)
    assert (CONTROLS[control] in planned(given)) is shown
    planted = {fate.control.name for fate in fates(given) if isinstance(fate, PlantedControl)}
    assert (control in planted) is shown


def test_a_window_ahead_is_planted_where_rows_have_its_next_key() -> None:
    one = contract("pair", WHOLE | ALL | {
        "subject.causal": False, "subject.window_size": [-1, 6], "workloads.0.generate": 9,
        "checks.0.relation": "accuracy", "checks.0.limits": {"max_abs": 0.1},
    })  # fmt: skip
    (place,) = (
        fate.place
        for fate in fates(one)
        if isinstance(fate, PlantedControl) and fate.control.name == "window-ahead-one-long"
    )
    assert place is not None
    assert place.generate == 7


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("decoder", {}),
        ("decoder", {"subject.config": WINDOW, **TEMPERED}),
        ("decoder", {"numerics.execution": "bfloat16", "checks.+": order(16)}),
        ("decoder", {f"{PATHS}.+": "batched", "workloads.0.generate": 1}),
        ("pair", {"subject.window": 8}),
        ("model", {W: [3], "workloads.0.generate": 2}),
    ],
)
def test_each_control_that_is_meant_is_run_or_told_of(
    base: str, changes: Doc, tmp_path: Path
) -> None:
    given = contract(base, changes | ALL)
    names, run = {each.name for each in meant(given)}, {each.name for each in planned(given)}
    told = "".join(
        line
        for line in said(changed(base, changes | ALL), tmp_path, controls=True)
        if line.startswith("warning controls: left out")
    )
    left = {name for name in CONTROLS if f" {name}," in told or f" {name} (" in told}
    assert left == names - run
    assert run <= names
    # Every one of them has a fate, and what is run has a place for each relation that there is.
    placed = {f.control.name for f in fates(given) if isinstance(f, PlantedControl)}
    assert placed == run
    assert {fate.control.name for fate in fates(given)} == set(CONTROLS)
    for fate in fates(given):
        checks = [each for each in given.checks if each.relation == fate.relation]
        assert checks or isinstance(fate, LeftOut)


def test_what_cannot_live_in_a_contract_is_not_meant() -> None:
    names = {each.name for each in meant(contract("decoder", ALL))}
    assert "stale-slot" in names
    assert not names & {"window-one-short", "scale-ignored-in-prefill", "strides-ignored"}
    windowed = {each.name for each in meant(contract("decoder", {"subject.config": WINDOW}))}
    assert windowed - names >= {"window-one-short"}


MEANT: list[tuple[str, Doc, list[bool]]] = [
    ("stale-slot", {}, [True, False]),
    ("stale-slot", {PATHS: ["chunked(4)"]}, [False, False]),
    ("wrong-input", {}, [False, True]),
    ("retokenised", {PATHS: ["permuted"]}, [True, False]),
    ("other-tile", {"checks.1": order(16)}, [False, True]),
    ("other-warps", {"checks.1": order(16)}, [False, False]),
    ("other-warps", {"checks.1": AUDIT}, [False, True]),
    ("padding-leaks", {PATHS: ["padded"], "workloads.+": SHORT, "workloads.0.pad": ["left"]},
     [True, False]),
    ("padding-leaks", {PATHS: ["padded"], "workloads.+": SHORT, "workloads.0.pad": ["right"]},
     [False, False]),
    ("log-of-softmax", {PATHS: ["padded"], "workloads.0.pad": ["right"]}, [True, False]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "changes", "expected"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(MEANT)],
)
def test_a_check_that_a_control_is_meant_for(
    control: str, changes: Doc, expected: list[bool]
) -> None:
    given = contract("decoder", changes)
    assert [meant_for(CONTROLS[control], check, given) for check in given.checks] == expected


RUN: list[tuple[Doc, set[str]]] = [
    ({}, {"w"}),
    ({"workloads.+": SHORT}, {"w", "short"}),
    ({"workloads.+": SHORT, "checks.0.workloads": ["w"]}, {"w", "short"}),
    ({"workloads.+": SHORT, "checks.1": order(16), "checks.0.workloads": ["w"]}, {"w"}),
    ({"workloads.+": SHORT, "checks.1": order(16), PATHS: ["chunked(13)"]}, {"w"}),
    ({"workloads.+": SHORT, "checks.1": order(16), PATHS: ["chunked(13)", "decode"]},
     {"w", "short"}),
    ({"workloads.+": SHORT | {"generate": 1}, "checks.1": order(16), PATHS: ["decode"]}, {"w"}),
    ({"workloads.+": SHORT, "checks.1": order(16), PATHS: ["chunked(13)"],
      "checks.0.reference": "decode"}, {"w", "short"}),
    ({"checks.0": order(65), "checks.1": order(16) | {"name": "p"}}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "names"), RUN)
def test_a_workload_runs_where_some_path_shows_anything(changes: Doc, names: set[str]) -> None:
    assert workloads_run(contract("decoder", changes)) == names


NAMED: list[tuple[str, Doc, list[str]]] = [
    ("stale-slot", {}, []),
    ("stale-slot", {PATHS: ["chunked(4)"]},
     ["warning controls[0]: stale-slot is planted on decode, which no check of this contract"]),
    ("norm-block-by-rows", {"numerics.execution": "bfloat16"},
     ["warning controls[0]: norm-block-by-rows may not show here: it needs "]),
    ("norm-block-by-rows", {}, []),
    ("other-tile", {"checks.+": order(33)}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "changes", "expected"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(NAMED)],
)
def test_what_is_said_of_a_named_control(
    control: str, changes: Doc, expected: list[str], tmp_path: Path
) -> None:
    whole = changed("decoder", changes | {"controls": [control]})
    found = [e for e in said(whole, tmp_path, controls=True) if e.startswith("warning controls")]
    assert len(found) == len(expected), found
    assert all(map(str.startswith, found, expected))
