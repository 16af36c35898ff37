"""The rules of a unit, one at a time: a subject that is off in one place, and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import toy
from records import record
from torch import Tensor
from toy import Toy

from kvparity.plan.cases import Case, make
from kvparity.plan.schedule import Member
from kvparity.relations.accuracy.measure import accuracy
from kvparity.relations.accuracy.relation import comparable
from kvparity.relations.bits_and_limits import Comparison
from kvparity.report.case_line import case_line
from kvparity.run.unit import Setting, run_unit
from kvparity.subjects.base import OracleError, UnsupportedError
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName

TOKENS = [[5, 6, 7, 80, 81, 82], [9, 90, 91, 92]]
WORKLOAD = {"name": "w", "prompts": [[5, 6, 7], [9]], "generate": 3}
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
LIMIT = 1e-5
NEAR = {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": LIMIT}}


class Off(Toy):
    """Its logprobs are off by ``by`` ``[tokens, temperatures]``: in prefill, or in decode."""

    def __init__(self, by: Tensor, *, decode: bool = False) -> None:
        super().__init__(block=9)
        self.by, self.decode, self.seen = by, decode, 0

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        found = super().values(rows, targets, temperatures)
        if (len(rows) == 1) != self.decode:  # a prefill of the workload gives three rows at once
            return found
        part = self.by.roll(-self.seen, 0)[: len(rows)]
        self.seen += len(rows)
        return (found.double() + part).float()


def ran(subject: Toy, check: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The lines of all cases of one check: one for each of the temperatures 1 and 0.7."""
    setting = Setting(toy.contract(workloads=[WORKLOAD], checks=[check], **more), subject)
    found: list[dict[str, Any]] = []

    def emit(case: Case, result: Comparison, *_: Any) -> None:
        found.append(case_line(case, result).document())

    (unit,) = make(setting.contract).units
    run_unit(setting, unit, tokens=[[*own] for own in TOKENS], done=frozenset(), emit=emit)
    assert [line["temperature"] for line in found] == [1.0, 0.7]
    return found


def by(*places: tuple[int, int, float]) -> Tensor:
    found = torch.zeros(6, 2, dtype=torch.float64)
    for token, column, shift in places:
        found[token, column] = shift
    return found


HOLDS, OVER = "holds", "differs"
ACCURACY: dict[str, tuple[Tensor, tuple[str, str]]] = {
    "under the limit": (torch.full((6, 2), 0.9 * LIMIT).double(), (HOLDS, HOLDS)),
    "over the limit": (torch.full((6, 2), 2 * LIMIT).double(), (OVER, OVER)),
    "over it on the other side": (torch.full((6, 2), -2 * LIMIT).double(), (OVER, OVER)),
    "the first temperature": (by((2, 0, 2 * LIMIT)), (OVER, HOLDS)),
    "the second temperature": (by((2, 1, 2 * LIMIT)), (HOLDS, OVER)),
    "the last token of all": (by((5, 0, 2 * LIMIT), (5, 1, 2 * LIMIT)), (OVER, OVER)),
    "one token too high, one too low": (
        by((0, 0, 2 * LIMIT), (1, 0, -2 * LIMIT)), (OVER, HOLDS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCURACY)
def test_the_limit_that_a_contract_sets_is_the_limit_of_every_token(name: str) -> None:
    shifts, wanted = ACCURACY[name]
    lines = ran(Off(shifts), NEAR)
    assert tuple(line["verdict"] for line in lines) == wanted
    for column, line in enumerate(lines):
        worst = shifts[:, column].abs()
        # The toy's own logprobs are rounded to float32.
        assert line["max_abs_dlogp"] == pytest.approx(float(worst.max()), abs=1e-6)
        if line["verdict"] == OVER and int((worst == worst.max()).sum()) == 1:
            at = int(worst.argmax())
            spot = line["accuracy"]["worst"]
            assert (spot["sequence"], spot["column"]) == (f"w/{at // 3}", column)
            assert spot["token"] == TOKENS[at // 3][at % 3 - 3]


@pytest.mark.parametrize("column", [0, 1])
def test_every_temperature_is_compared_by_its_own_bits(column: int) -> None:
    lines = ran(Off(by((4, column, 1e-3)), decode=True), BITS)
    assert [line["verdict"] for line in lines] == [OVER if i == column else HOLDS for i in (0, 1)]
    assert lines[column]["differing_tokens"] == 1
    assert lines[column]["first_divergence"]["column"] == column


def test_a_rollout_draws_by_the_seed_of_its_contract() -> None:
    def drawn(seed: int) -> list[list[int]]:
        setting = toy.setting(workloads=[WORKLOAD], checks=[BITS], seed=seed)
        (unit,) = make(setting.contract).units
        found = run_unit(setting, unit, tokens=None, done=frozenset(), emit=lambda *_: None)
        return found.tokens

    # The prompts are written down and the weights are the subject's: nothing else has a seed.
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_a_path_without_an_oracle_is_an_error_and_its_reason_is_kept() -> None:
    class Blind(Toy):
        def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
            raise OracleError("no float64 here")

    assert {(each["verdict"], each["reason"]) for each in ran(Blind(), NEAR)} == {
        ("error", "no float64 here")
    }


def test_a_case_names_who_drew_the_tokens_and_who_scored_them_again() -> None:
    steady = Off(by((4, 0, 1e-3)), decode=True)
    (first, _) = ran(steady, BITS)
    assert (first["rollout"], first["trainer"]) == ("decode", "prefill")
    (turned, _) = ran(
        Off(by((4, 0, 1e-3)), decode=True), BITS | {"reference": "decode", "paths": ["prefill"]}
    )
    assert (turned["rollout"], turned["trainer"]) == ("decode", "prefill")
    numerics = {"execution": "float32", "kv_cache": "bfloat16", "temperatures": [1.0, 0.7]}
    (near, _) = ran(Toy(), NEAR, numerics=numerics)
    assert (near["rollout"], near["trainer"]) == ("prefill", "float64")
    assert (near["dtype"], near["kv_cache"]) == ("float32", "bfloat16")


@pytest.mark.parametrize("rows", [6, 7], ids=["steady", "unsteady"])
def test_a_unit_that_differs_runs_both_paths_once_more(rows: int) -> None:
    """Six rows a run: of seven errors in turn, each is at another row in the second run."""
    shifts = torch.zeros(rows, 2, dtype=torch.float64)
    shifts[4] = 1e-3
    lines = ran(Off(shifts, decode=True), BITS)
    assert lines[0]["invariance"] == {"repeats": {"prefill": True, "decode": rows == 6}}
    assert "invariance" not in lines[1]  # one case of a unit tells enough


@pytest.mark.parametrize(("short", "fits"), [(0, True), (1, False)])
def test_a_neighbour_may_be_as_long_as_the_subject_and_no_longer(short: int, fits: bool) -> None:
    check = BITS | {"paths": ["batched"]}
    setting = toy.setting(workloads=[WORKLOAD], checks=[check])
    plan = setting.plans("w").of(PathName("batched"))
    longest = max(member.length for member in plan.members)
    assert longest > 6  # the workload's own
    subject = Toy()
    subject.max_positions = longest - short
    if fits:
        assert [line["verdict"] for line in ran(subject, check)] == [HOLDS, HOLDS]
        return
    with pytest.raises(UnsupportedError, match=f"has {longest} tokens, but the subject has"):
        ran(subject, check)


@pytest.mark.parametrize("dim", [4, 3], ids=["as wide as keys", "wider than keys"])
def test_of_a_pair_the_rounding_of_an_lse_alone_is_not_counted(dim: int) -> None:
    """Two heads of four columns, and an LSE for each; all are off by four half units."""
    document = toy.document(
        subject={
            "kind": "attention", "prefill": "a.py:prefill", "decode": "a.py:decode",
            "heads": {"query": 2, "kv": 1, "dim": dim, "v_dim": 4},
        },
        numerics={"execution": "float32"},
        workloads=[{"name": "w", "prompt_tokens": [2], "generate": 3}],
        checks=[NEAR | {"limits": {"max_abs": 1.0}}],
    )  # fmt: skip
    contract = Contract.model_validate(document)
    values = torch.tensor([1.0] * 7 + [2.0] + [1000.0] * 2).expand(5, 10)
    wanted = values.double() * (1 + 4 * 2.0**-24)

    def judged(values: Tensor) -> Comparison:
        exact = comparable(contract.subject, values, wanted)
        return accuracy(record(values=values), exact, {"max_abs": 1.0}, column=None)

    found = judged(values)
    assert found.max_abs == 2 * 4 * 2.0**-24
    assert found.details.worst.column == 7
    # A pair that returns no LSE is held to its O.
    alone = judged(values[:, :8])
    assert alone.max_abs == found.max_abs
