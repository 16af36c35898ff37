"""Planted defects: the operation that has each is named, and why; the truth is the control's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from few import few
from located import located
from torch import Tensor

from kvparity.births import transplant
from kvparity.births.account import Account
from kvparity.births.causes import cause
from kvparity.births.text import account_json, lines
from kvparity.births.transplant import scaled
from kvparity.controls.base import PlantedSession, each_session
from kvparity.controls.table import PLANTS
from kvparity.core.words import rounded
from kvparity.labs.defect_matrix.locating import cause_of, placed
from kvparity.labs.defect_matrix.locating import located as locate
from kvparity.plan.schedule import Step
from kvparity.record.path_run import Setting
from kvparity.subjects.decoder.backends import sdpa
from kvparity.subjects.decoder.subject import build
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.paths import PathName

LINEAR = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "logits"]
READ = ["keys read", "values read", "attention"]
PLANTED: dict[str, tuple[str, list[str], bool]] = {
    "split-by-batch": ("plain", ["attention"], True),
    "split-from-chunk": ("plain", ["attention"], True),
    "stale-slot": ("plain", ["attention"], True),
    "narrow-cache": ("plain", READ, True),
    "window-one-short": ("window", ["keys seen", "attention"], True),
    "position-off-by-one": ("plain", ["query", "key"], True),
    "rope-table-bfloat16": ("plain", ["query", "key"], True),
    "norm-block-by-rows": ("plain", ["key norm", "query norm"], True),
    "linear-kernel-by-rows": ("plain", LINEAR, True),
    "stale-after-update": ("plain", ["attention"], True),
    "retokenised": ("plain", ["embed"], False),
    "temperature-ignored": ("plain", [], False),
    "inlined-logprob": ("plain", [], False),
    "cached-rows-uninitialised": ("plain", [], False),
    "order-by-launch": ("plain", ["attention"], False),
    "baked-cache": ("plain", [], False),
}
PAIRS = {
    "split-by-batch": "pair",
    "order-by-launch": "pair",
    "stale-slot": "pair",
    "narrow-cache": "pair",
    "strides-ignored": "pair",
    "nan-without-keys": "pair",
    "out-left-unwritten": "paged-pair",
    "append-writes-padding": "paged-pair",
    "page-past-the-end": "paged-pair",
    "window-of-last-row": "masked-pair",
}


@cache
def account(fixture: str, control: str | None, *, room: int = 1 << 28) -> Account:
    found = located(fixture, control, room=room)
    assert isinstance(found, Account)
    return found


@pytest.mark.parametrize("control", few(PLANTED, 6))
def test_a_planted_defect_is_born_where_it_was_planted(control: str) -> None:
    fixture, operations, complete = PLANTED[control]
    found, true = account(fixture, control), CONTROLS[control]
    assert found.differing
    born = {each.operation.partition(" ")[2] or each.operation for each in found.births}
    assert born <= set(operations), born
    assert bool(born) == bool(operations)
    assert (cause(found).kind, cause(found).part) == (true.cause, true.born)
    assert found.complete is complete


def test_pads_that_are_taken_for_tokens_are_no_other_weights() -> None:
    """They are seen first where tokens enter, not where they are attended to."""
    control = "padding-mask-skipped-alone"
    why = cause(account("plain", control))
    assert (why.kind, why.part) == (CONTROLS[control].cause, "tokens")


@pytest.mark.parametrize("control", PAIRS)
def test_the_cause_in_a_pair_is_that_of_the_control(control: str) -> None:
    found = located(PAIRS[control], control)
    assert found.complete
    assert cause_of(found).kind == CONTROLS[control].cause


def test_a_foreign_cell_is_no_other_format() -> None:
    narrow = account("plain", "narrow-cache")
    assert all(each.same for each in narrow.births if each.read)
    a, b = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).double()
    assert [scaled(a, 3 * a.bfloat16().double()), scaled(a, b), scaled(b, a)] == [
        True,
        False,
        False,
    ]


def test_a_program_is_not_accused_of_what_its_steps_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect is in every step, traced or not, and in code that reports nothing."""
    row = replace(CONTROLS["raw-rollout-logprobs"], path=PathName("exported"))
    setting, plans, own = placed("plain", "edge", "baked-cache")
    plant = each_session(OneUp)
    monkeypatch.setitem(PLANTS, row.name, plant)
    found = locate(setting, plans, own, row)
    assert isinstance(found, Account)
    assert (cause(found).kind, found.signs.traced, found.births) == ("unknown", False, ())


class OneUp(PlantedSession):
    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        yield from (rows + 1 for rows in self.inner.forward(step, ids))


def test_sdpa_under_a_rectangular_mask_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes no such mask where a mode sees every operation. Whether its kernels give other
    bits under one depends on the CPU, so another scale is planted there."""

    def planted(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **how: object) -> Tensor:
        rectangular = 1 < q.shape[2] < k.shape[2]
        return attend(q, k, v, scale=scale * 1.5 if rectangular else scale, **how)  # type: ignore[arg-type]

    attend = sdpa.scaled_dot_product_attention
    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", planted)
    shape = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 32, "layers": 1, "heads": 2,
             "kv_heads": 1, "head_dim": 16, "max_positions": 32}  # fmt: skip
    contract = Contract.model_validate({
        "version": 1, "name": "sdpa", "controls": ["position-off-by-one"],
        "subject": {"kind": "decoder", "config": shape, "attention": "sdpa"},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [9], "generate": 2}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["chunked(4)"]}],
    })  # fmt: skip
    subject = build(
        contract.subject, execution="float32", kv_cache="float32", device=torch.device("cpu"),
        seed=0, base=Path(),
    )  # type: ignore[arg-type] # fmt: skip
    setting = Setting(contract, subject)
    path = PathName("chunked", 4)
    found = locate(setting, setting.plans("w"), [list(range(11))], None, clean=path)
    assert isinstance(found, Account)
    assert found.differing
    assert found.complete
    born = next(each for each in found.births if each.operation.endswith(" attention"))
    assert all("scaled_dot_product" in " ".join(side) for side in born.ran)


def test_a_row_that_nobody_computed_is_said_to_be_so() -> None:
    assert "not computed" in cause_of(located("pair", "batch-edge")).words


@pytest.mark.parametrize("fixture", ["plain", "pair"])
def test_without_a_defect_nothing_is_located(fixture: str) -> None:
    found = located(fixture, None)
    assert (found.differing, found.complete) == (0, False)
    assert cause_of(found).kind == "no difference"
    if isinstance(found, Account):
        assert not found.births
        assert found.operations > 10


def test_what_does_not_fit_into_memory_is_said() -> None:
    found = account("plain", "split-by-batch", room=1 << 12)
    assert found.left_out
    assert not found.complete


def test_an_account_of_a_part_is_not_complete() -> None:
    whole = account("plain", "split-by-batch")
    assert whole.complete
    for change in ({"left_out": 1}, {"still": 1}, {"births": ()}, {"differing": 0}):
        assert not replace(whole, **change).complete
    assert "inside" in cause(replace(whole, differing=0)).words


def test_shares_are_of_rows_that_differed_and_of_a_distance_that_is_one() -> None:
    """Births that were put right may let rows part that were equal by chance."""
    whole = account("plain", "split-by-batch")
    n = whole.differing
    worse = replace(whole, still=n + 2, others=3, whole=False)
    assert (worse.equal, account_json(worse)["explained_rows"]) == (1, 1 / n)
    told = "\n".join(lines(worse, "prefill", "batched"))
    assert f"1 of {n} rows that differ are equal and" in told
    assert "(3 other rows diverge then)" in told
    for gap in (0.0, float("inf")):  # equal logprobs of other logits; a token of probability 0
        some = replace(whole, still=1, still_logits=1, gap=gap, gap_left=gap)
        assert account_json(some)["explained"] is None
        assert "distance between logprobs" not in "\n".join(lines(some, "prefill", "batched"))
        assert cause(some).kind == "reduction order"  # most rows are equal
        assert cause(replace(some, still=n, still_logits=n)).kind == "not deterministic"


@pytest.mark.parametrize("heard", [0, 30])
def test_where_time_ends_it_is_told_what_the_births_so_far_explain(
    heard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still while so many operations are compared, and then jumps."""
    clock = (0.0 if n < heard else 1e13 for n in count())
    monkeypatch.setattr(transplant, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    found = located("plain", "split-by-batch", until=1e12)
    whole = account("plain", "split-by-batch")
    assert isinstance(found, Account)
    assert set(found.births) <= set(whole.births)
    assert bool(found.births) is (heard > 0)
    told = "\n".join(lines(found, "prefill", "batched"))
    if not heard:
        assert (found.equal, found.explained, cause(found).kind) == (0, 0, "unknown")
        assert "time ended before an operation was found" in told
        return
    assert len(found.births) < len(whole.births)
    assert not found.complete
    assert found.explained is not None
    assert 0 < found.explained < 0.5
    # What is left would be another cause, if all births had been looked for.
    assert cause(found).kind == "reduction order"
    shares = found.mended, found.explained
    equal = f"{found.equal} of {found.differing} rows that differ are equal"
    assert f"time ended before all were found; with these {len(found.births)} rows" in told
    assert f"{equal} and {rounded(100 * found.explained)} % of the distance" in told
    document = account_json(found)
    assert (document["explained_rows"], document["explained"]) == shares
    assert document["time_ended"] is True


def test_sums_of_another_instruction_or_kernel_are_no_other_order() -> None:
    whole = account("plain", "split-by-batch")
    other = replace(whole.signs, products=(("sm_80",), ("sm_80", "sm_90")))
    assert cause(replace(whole, signs=other)).kind == "another instruction"
    ran = (("bmm [1, 2, 3] [1, 3, 4]",), ("scaled_dot_product_attention [1] [1] [1]",))
    born = tuple(replace(each, ran=ran) for each in whole.births)
    assert cause(replace(whole, births=born)).kind == "another kernel"
    assert cause(
        replace(whole, births=tuple(replace(x, ran=(ran[0],) * 2) for x in born))
    ).kind == ("reduction order")


def test_rows_that_nobody_wrote_are_seen_behind_births() -> None:
    whole = account("plain", "split-by-batch")
    left = replace(whole, still=1, still_logits=1, signs=replace(whole.signs, unwritten=1))
    assert cause(left).kind == "memory"


def test_every_control_that_changes_bits_has_its_truth() -> None:
    for each in CONTROLS.values():
        shows = "invariance" in each.relations and each.expect == "differs"
        assert (each.cause is not None) is (each.born is not None) is shows, each.name
