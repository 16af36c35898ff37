"""Two recorded sides and one check: what is dropped of them, and what an unproved side leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvparity.relations.asked import Kernels
from kvparity.relations.parity import relation as parity
from kvparity.relations.parity.scored import ScoredSides, scored
from kvparity.rollouts import RolloutWriter
from kvparity_contracts.checks import ParityCheck
from kvparity_contracts.files import load_whole

OWN = np.random.default_rng(3).uniform(-4, -0.2, (3, 6)).astype(np.float32)


def sides(folder: Path, trainer: np.ndarray, unmatched: int = 0) -> tuple[ScoredSides, ParityCheck]:
    subject: dict[str, object] = {"kind": "sides"}
    for name, logprobs in (("rollout", OWN), ("trainer", trainer)):
        with RolloutWriter(folder / f"{name}.jsonl", {"engine": "made"}) as writer:
            for number, own in enumerate(logprobs):
                writer.write([1, number], [7, 8, 9, 3, 4, 5], own)
        subject[name] = {"kind": "recorded", "file": f"{name}.jsonl"}
    check = {"name": "alike", "relation": "parity", "bits": "equal", "unmatched": unmatched}
    whole = {"version": 1, "name": "c", "subject": subject, "checks": [check]}
    (folder / "c.yaml").write_text(json.dumps(whole))
    contract = load_whole(folder / "c.yaml").contract
    (asked,) = contract.checks
    assert isinstance(asked, ParityCheck)
    return scored(Kernels(contract, folder, lambda: pytest.fail("no subject is needed"))), asked


@pytest.mark.parametrize(("allowed", "missing"), [(0, 0), (1, 0), (2, 0), (1, 1)])
def test_one_sequence_more_is_dropped_than_may_be(
    allowed: int, missing: int, tmp_path: Path
) -> None:
    both, check = sides(tmp_path, OWN[: len(OWN) - missing], allowed)
    assert len(both.found.matched.unmatched) == missing
    planted = parity._dropped(both, check, "dropped-sequences")
    assert len(planted.found.matched.unmatched) == allowed + 1
    assert parity.compared(planted, check).outcome == "void"


@pytest.mark.parametrize(
    ("trainer", "outcome"),
    [(OWN, "holds"), (OWN + np.float32(-0.5), "differs"), (OWN[:2], "void")],
    ids=["holds", "differs", "void"],
)
def test_a_side_that_is_not_proved_takes_the_place_of_holds_alone(
    trainer: np.ndarray, outcome: str, tmp_path: Path
) -> None:
    both, check = sides(tmp_path, trainer)
    plain = parity.compared(both, check)
    assert plain.outcome == outcome
    found = parity.compared(replace(both, unproved="not proved"), check)
    expected = ("void", "not proved") if outcome == "holds" else (outcome, plain.reason)
    assert (found.outcome, found.reason) == expected
