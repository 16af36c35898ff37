"""Controls of cache and liveness checks, planted in the toy and run from a whole contract."""

from __future__ import annotations

from typing import Any

import pytest
import toy
from toy import Toy

from kvparity.plan.cases import make
from kvparity.record.path_run import Setting
from kvparity.run.unit import run_unit

CACHE = {"name": "held", "relation": "cache", "paths": ["decode", "reset"]}
LIVE = {"name": "live", "relation": "liveness", "paths": ["decode"]}


def caught(setting: Setting) -> dict[tuple[str, str], tuple[bool, str]]:
    work = make(setting.contract)
    tokens = {}
    for unit in work.units:
        found = run_unit(setting, unit, tokens=None, done=frozenset(), emit=lambda *_: None)
        tokens[unit.workload] = found.tokens
    return {
        (job.control, job.relation): toy.run_control(setting, job, tokens[job.workload])
        for job in work.controls
    }


def setting(*defects: str, window: int | None = None, **changes: Any) -> Setting:
    return Setting(toy.contract(**changes), Toy(*defects, window=window))


@pytest.mark.parametrize("window", [None, 2, 5])
def test_each_relation_catches_what_it_is_for(window: int | None) -> None:
    names = ["stale-slot", "narrow-cache", "unwritten-slot", "baked-key"]
    found = caught(setting(window=window, checks=[CACHE, LIVE], controls=names))
    assert {name: seen[0] for name, seen in found.items()} == {
        ("stale-slot", "cache"): True,
        ("narrow-cache", "cache"): True,
        ("unwritten-slot", "cache"): True,
        ("baked-key", "liveness"): True,
    }, found
    assert "than was written" in found["unwritten-slot", "cache"][1]
    assert "does not depend on it" in found["baked-key", "liveness"][1]


def test_no_output_shows_them() -> None:
    """The control of these controls: bits cannot see what is wrong here."""
    from asking import compare_caches, probe

    from kvparity.controls.cache import baked_key, unwritten_slot
    from kvparity.plan.workload import Prompts
    from kvparity.plan.workload_plans import WorkloadPlans
    from kvparity.record.path_run import PathRun
    from kvparity_contracts.paths import PathName

    prompts = Prompts("w", ("w/0",), ((5, 6, 7),), 4)
    tokens = [[5, 6, 7, 80, 81, 82, 83]]
    base = setting(checks=[CACHE, LIVE])

    def side(subject: Any, path: str = "decode") -> PathRun:
        return PathRun(base, subject, WorkloadPlans(prompts, 3), PathName(path), tokens)  # type: ignore[arg-type] # a kind

    right = side(Toy()).run()
    for plant in (unwritten_slot, baked_key):
        wrong = side(plant(Toy())).run()
        assert right.digests.tolist() == wrong.digests.tolist()
    assert compare_caches(side(Toy(), "prefill"), side(unwritten_slot(Toy()))).outcome == (
        "differs"
    )
    assert compare_caches(side(Toy(), "prefill"), side(baked_key(Toy()))).outcome == "holds"
    assert probe(side(baked_key(Toy()))).found.outcome == "differs"
    assert probe(side(unwritten_slot(Toy()))).found.outcome == "holds"


def test_a_contract_without_such_checks_says_why_they_are_not_planted() -> None:
    reasons = {u.control: u.reason for u in make(toy.contract()).unplanted}
    assert reasons["unwritten-slot"] == "the contract has no cache check"
    assert reasons["baked-key"] == "the contract has no liveness check"


def test_a_check_rests_on_controls_of_its_own_relation() -> None:
    relations = {
        (job.control, job.relation)
        for job in make(toy.contract(checks=[CACHE, LIVE], controls="all")).controls
    }
    assert ("unwritten-slot", "cache") in relations
    assert ("baked-key", "liveness") in relations
    assert not {each for each in relations if each[1] == "invariance"}
