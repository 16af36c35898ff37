"""The plans of a workload are built once and carried."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import kvparity
from kvparity.plan.paths import build
from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 4)
PLANS, PERMUTED = WorkloadPlans(PROMPTS, 3), PathName("permuted")


def test_a_plan_is_built_once_with_the_seed() -> None:
    seeds = {seed: WorkloadPlans(PROMPTS, seed).of(PERMUTED) for seed in range(8)}
    assert seeds == {seed: build(PERMUTED, PROMPTS, seed=seed) for seed in range(8)}
    assert len({plan.schedule for plan in seeds.values()}) > 1
    assert PLANS.of(PERMUTED) is PLANS.of(PERMUTED)
    assert [member.id for member in PLANS.members] == list(PROMPTS.ids)


def test_a_part_has_the_sequences_and_tokens_that_are_asked_for() -> None:
    part = PLANS.part((1,), 2)
    assert part.seed == 3
    assert part.prompts == Prompts("w", ("w/1",), ((9,),), 2)
    assert part.of(PERMUTED).members[0].length == 3


def test_another_process_is_sent_prompts_and_no_spans() -> None:
    plans = WorkloadPlans(PROMPTS, 3)
    before = pickle.dumps(plans)
    plans.of(PERMUTED)
    assert pickle.dumps(plans) == before
    assert pickle.loads(before).of(PERMUTED) == PLANS.of(PERMUTED)


def test_plans_are_built_in_one_place() -> None:
    asks = re.compile(r"plan\.paths import .*\bbuild\b|\bpaths\.build\b")
    root = Path(kvparity.__file__).parent
    found = [file.name for file in root.rglob("*.py") if asks.search(file.read_text())]
    assert found == ["workload_plans.py"]
