"""The library contracts that look into caches hold, through the command line, as a user runs them.

What each of them would see is planted by its own controls: one that is missed makes it void.
"""

from __future__ import annotations

import json

import pytest
import transformers

from kvparity.core.exit_codes import ExitCode
from kvparity.plan.paths import build
from kvparity.plan.workload import fill
from kvparity.subjects.decoder.storage import ring_size
from kvparity_contracts.library import find
from kvparity_contracts.loader import load

SLOW = (
    "attention-cache",
    "export-fidelity",
    "kv-dtype",
    "prefix-reuse",
    "shared-kv",
    "sliding-window",
    "transformers-export",
    "transformers-gemma-shared",
    "transformers-mistral-window",
    "transformers-static-cache",
)
NAMES = (
    "transformers-gemma3-window",
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
)


NOT_WITH_TRANSFORMERS_4 = {
    "transformers-export": "transformers 5",
    "transformers-gemma-shared": "knows no model_type 'gemma4_text'",
    "transformers-mistral-window": "transformers 5",
}
"""It has no such model, or its caches cannot do a path, and that is said."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_contract_of_caches_holds_with_every_control_caught(tmp_path, name, warm):
    asked = ["verify", name, "--device", "cpu", "--json", "--jobs", "1"]
    done = warm.run(*asked, "--run-dir", str(tmp_path / "run"))
    if name in NOT_WITH_TRANSFORMERS_4 and transformers.__version__ < "5":
        assert done.returncode == ExitCode.USAGE
        assert NOT_WITH_TRANSFORMERS_4[name] in done.stderr
        return
    assert done.returncode == ExitCode.HOLDS, done.stderr
    report = json.loads(done.stdout)
    contract = load(find(name)).contract
    assert {check["relation"] for check in report["checks"]} == {
        check.relation for check in contract.checks
    }
    assert [check["verdict"] for check in report["checks"]] == ["holds"] * len(contract.checks)
    counted = [check for check in report["checks"] if check["relation"] != "order"]
    assert all(case["tokens"] > 0 for check in counted for case in check["cases"])
    assert {each["name"] for each in report["controls"]} == set(contract.controls)
    assert all(each["caught"] for each in report["controls"])
    assert report["unplanted"] == []


def test_a_ring_is_walked_three_times_where_a_row_is_compared():
    # A slot that is written wrongly from the third lap on shows in no shorter walk.
    contract = load(find("sliding-window")).contract
    window = contract.subject.config.sliding_window
    laps = 0
    for check in contract.path_checks:
        for workload in contract.workloads_of(check):
            prompts = fill(workload, seed=contract.seed, vocab=256)
            for path in check.paths if check.relation == "invariance" else ():
                plan = build(path, prompts, seed=contract.seed)
                last = max(span.stop - 1 for step in plan.schedule for span in step)
                laps = max(laps, 1 + last // ring_size(window, plan.layout.chunk))
    assert laps >= 3
