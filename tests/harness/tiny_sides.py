"""Two paths of a tiny transformers model, over tokens that are given."""

from __future__ import annotations

from typing import Any

from tiny_transformers import CONFIG

from kvparity.plan.workload import fill
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.path_run import PathRun, Setting
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName

LENGTHS, GENERATE = (9, 30), 6
CONTRACT = {
    "version": 1,
    "name": "tiny",
    "subject": {"kind": "transformers", "config": CONFIG, "attention": "sdpa"},
    "numerics": {"execution": "bfloat16"},
    "workloads": [{"name": "w", "prompt_tokens": list(LENGTHS), "generate": GENERATE}],
    "checks": [{"name": "x", "relation": "invariance", "paths": ["decode"]}],
    "controls": ["stale-slot"],
}


def sides(subject: Any, *paths: str) -> tuple[PathRun, PathRun]:
    contract = Contract.model_validate(CONTRACT)
    plans = WorkloadPlans(fill(contract.workloads[0], seed=0, vocab=subject.vocab), 0)
    own = [list(range(3, 3 + n + GENERATE)) for n in LENGTHS]
    first, second = (
        PathRun(Setting(contract, subject), subject, plans, PathName.parse(path), own)
        for path in paths
    )
    return first, second
