"""The linter and the plan say the same of every control and of every path that shows nothing."""

from __future__ import annotations

from typing import Any

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from kvparity.plan.cases import ControlRun, make
from kvparity.plan.paths import build
from kvparity.plan.workload import fill
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.idling import same_steps
from kvparity_contracts.paths import KINDS, UNNAMED, WITH_ARGUMENT, PathName
from kvparity_contracts.planning import LeftOut, fates
from kvparity_contracts.workloads import Workload

PATHS = ["batched(5)"] + [
    f"{kind}({n})" if kind in WITH_ARGUMENT else kind
    for kind in KINDS
    if kind not in ("padded", *UNNAMED)
    for n in ((3, 16, 30, 500) if kind in WITH_ARGUMENT else (0,))
]
WORKLOADS = st.builds(
    lambda lengths, generate: {"name": "w", "prompt_tokens": lengths, "generate": generate},
    st.lists(st.sampled_from([1, 5, 16, 17, 30, 70, 140, 300]), min_size=1, max_size=3),
    st.integers(1, 6),
)


@pytest.mark.parametrize("generate", [1, 2, 5])
@pytest.mark.parametrize(
    "lengths", [[1], [1, 1], [3], [5], [16], [17], [5, 30], [30, 30], [14, 26], [1, 3, 70]]
)
def test_paths_run_the_same_steps_where_their_plans_are_equal(
    lengths: list[int], generate: int
) -> None:
    entry = {"name": "w", "prompt_tokens": lengths, "generate": generate}
    workload = Workload.model_validate(entry)
    prompts = fill(workload, seed=0, vocab=0)
    paths = [PathName.parse(path) for path in PATHS]
    plans = [build(path, prompts, seed=0) for path in paths]
    for one, plan in zip(paths, plans, strict=True):
        for other, another in zip(paths, plans, strict=True):
            assert same_steps(one, other, workload) == (plan == another), f"{one}, {other}"


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """A decoder's contract with named controls, fitting or not."""
    names = st.lists(st.sampled_from(list(CONTROLS)), min_size=1, max_size=4, unique=True)
    reference = draw(st.sampled_from(["prefill", "decode", "generate", "chunked(16)"]))
    paths = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True))
    paths = [each for each in paths if each != reference] or ["batched"]
    checks: list[dict[str, Any]] = [
        {"name": "bits", "relation": "invariance", "reference": reference, "paths": paths}
    ]
    if draw(st.booleans()):
        limits = {"max_abs_dlogp": 1e-3}
        checks.append({"name": "near", "relation": "accuracy", "limits": limits})
    if draw(st.booleans()):
        checks.append({"name": "told", "relation": "trace"})
    if draw(st.booleans()):
        keys = [draw(st.sampled_from([16, 64, 65]))]
        checks.append({"name": "order", "relation": "order", "keys": keys})
    try:
        return toy.contract(
            subject={"kind": "decoder", "preset": "tiny"},
            workloads=[draw(WORKLOADS)],
            checks=checks,
            controls=draw(st.just("all") | names),
        )
    except ValueError:  # a path that the workload makes idle
        return toy.contract()


@given(contracts())
@settings(max_examples=60)
def test_what_the_linter_says_of_a_control_is_what_the_plan_does(contract: Contract) -> None:
    work = make(contract)
    said = {(f.control.name, f.relation): f for f in fates(contract)}
    assert {(run.control, run.relation) for run in work.every_control} == {
        at for at, fate in said.items() if not isinstance(fate, LeftOut)
    }
    left = {(each.control, each.relation): each.reason for each in work.unplanted}
    assert left == {at: fate.reason for at, fate in said.items() if isinstance(fate, LeftOut)}
    for run in work.every_control:
        if isinstance(run, ControlRun):
            assert said[run.control, run.relation].place.workload == run.workload  # type: ignore[union-attr] # planted


@pytest.mark.parametrize("generate", [1, 2])
def test_a_control_that_needs_a_decoded_token(generate: int) -> None:
    contract = toy.contract(
        subject={"kind": "decoder", "preset": "tiny"},
        workloads=[{"name": "w", "prompt_tokens": [30], "generate": generate}],
        checks=[{"name": "c", "relation": "invariance", "paths": ["chunked(7)"]}],
        controls=["retokenised"],
    )
    (fate,) = fates(contract)
    assert isinstance(fate, LeftOut) == (generate == 1)
