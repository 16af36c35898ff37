"""Two recorded sides and one check: what is dropped of them, and what an unproved side leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvparity.relations.asked import Kernels
from kvparity.relations.parity import relation as parity
from kvparity.relations.parity.line import ParityCase
from kvparity.relations.parity.scored import ScoredSides, scored
from kvparity.report.terminal import cell
from kvparity.rollouts import RolloutWriter
from kvparity.rollouts.tokens import Tokens
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


def test_a_case_says_what_was_limited(tmp_path: Path) -> None:
    """Limits beside what was measured; all that was measured where bits are to be equal."""
    both, check = sides(tmp_path, OWN + np.float32(-0.5))
    relation = parity.ParityRelation()

    def rows(asked: ParityCheck) -> tuple[str, str]:
        found = parity.compared(both, asked)
        line = ParityCase.model_construct(id="c", details=found.details)
        place = relation.place(line)
        assert place == "trainer.jsonl (RolloutWriter) against rollout.jsonl"
        row, worst = relation.rows([line])
        assert worst.startswith("    worst token: ")
        return row, found.outcome

    row, outcome = rows(check)
    assert "max_abs_d 0.5, mean_abs_d 0.5, " in row
    assert outcome == "differs"
    row, outcome = rows(check.model_copy(update={"bits": None, "limits": {"max_abs_d": 0.75}}))
    assert row == "    c: max_abs_d 0.5 of 0.75"
    assert outcome == "holds"
    bare = ParityCase.model_construct(id="c", details=None)
    assert relation.place(bare) == "both sides"
    assert relation.rows([bare]) == relation.spots(bare) == []
    empty = parity.compared(replace(both, found=replace(both.found, tokens=Tokens.of([]))), check)
    (row,) = relation.rows([ParityCase.model_construct(id="c", details=empty.details)])
    assert row == "    c: nothing was compared"


def test_beyond_a_limit_is_told_as_that() -> None:
    """Not as so many tokens off: of limited tokens none has to have equal bits."""
    over = ParityCase.model_construct(
        relation="parity", verdict="differs", tokens=9, differing_tokens=0, differing_rows=0
    )
    assert cell([over]) == "over limit"
