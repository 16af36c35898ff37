"""Rows that hold what is no finite number, wherever it stands, and tensors that are not plain."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import toy
from torch import Tensor
from toy import Toy
from toy_cache import VOCAB

from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.subjects.base import SubjectError
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 4)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[5, 6, 7, 80, 81, 82, 83], [9, 90, 91, 92, 93]]
INDEX = ((0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (1, 2), (1, 3))


def record(path: str, subject: Toy) -> Record:
    tokens = [list(t) for t in TOKENS]
    return PathRun(toy.setting(), subject, PLANS, PathName.parse(path), tokens).run()


@pytest.mark.parametrize("path", ["batched", "mixed"])
def test_what_is_not_finite_is_marked_where_it_is_whatever_the_steps(path: str) -> None:
    found = record(path, Toy("nan-rows"))
    assert found.finite.tolist() == [p % 3 != 0 for _, p in INDEX]


@pytest.mark.parametrize("defect", ["nan-rows", "inf-values"])
def test_what_is_not_finite_is_marked(defect: str) -> None:
    found = record("prefill", Toy(defect, block=9))
    bad = (
        [i % 4 % 3 == 0 for i in range(8)]
        if defect == "inf-values"
        else [p % 3 == 0 for _, p in INDEX]
    )
    assert found.finite.tolist() == [not each for each in bad]


def test_a_nan_that_the_logprob_does_not_see_is_marked_too() -> None:
    found = record("decode", Toy("hidden-nan"))
    assert bool(torch.isfinite(found.values).all())
    assert not bool(found.finite.any())


class Holed(Toy):
    """One number of every row, or of every token's values, is not finite; nothing else shows it."""

    def __init__(self, *, column: int | None = None, temperature: int | None = None) -> None:
        super().__init__()
        self.column, self.temperature = column, temperature

    def logits(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = super().logits(q, k, v)
        if self.column is not None:
            found[self.column] = torch.nan
        return found

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        found = super().values(rows.nan_to_num(0.0), targets, temperatures)
        if self.temperature is not None:
            found[:, self.temperature] = -torch.inf
        return found


@pytest.mark.parametrize(
    "where",
    [{"column": 0}, {"column": 77}, {"column": VOCAB - 1}, {"temperature": 0}, {"temperature": 1}],
    ids=["first column", "column between", "last column", "first temperature", "last temperature"],
)
def test_one_number_that_is_not_finite_marks_its_row_wherever_it_is(where: dict[str, int]) -> None:
    assert not bool(record("decode", Holed(**where)).finite.any())
    assert bool(record("decode", Holed()).finite.all())


class Own(Tensor):
    """A tensor with functions of its own."""


@pytest.mark.parametrize("what", ["rows", "values"])
def test_a_tensor_that_could_compare_itself_is_refused(what: str) -> None:
    class Claiming(Toy):
        def logits(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found = super().logits(q, k, v)
            return found.as_subclass(Own) if what == "rows" else found

        def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
            found = super().values(rows, targets, temperatures)
            return found.as_subclass(Own) if what == "values" else found

    with pytest.raises(SubjectError, match=rf"{what} .*as a Own"):
        record("decode", Claiming())
