"""When a number of ranks holds, differs or shows nothing: the rules, on records that nobody ran."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from case_details import RANKS, line
from records import DECODE, PREFILL, changed, record

from kvparity.relations.tp.judging import bits, compared, worst
from kvparity.relations.tp.line import TpCase
from kvparity.relations.tp.rank import Collective, RankedPath, _ranked, rank_path
from kvparity.relations.tp.relation import first_unlike
from kvparity_contracts.paths import DECODE as DECODE_PATH

GATHERED = Collective(operator="allgather_", ranks=2, dtype="float32", times=6, bytes=96)
REDUCED = GATHERED.model_copy(update={"operator": "allreduce_"})
SCATTERED = GATHERED.model_copy(update={"operator": "reduce_scatter_"})
FEW = GATHERED.model_copy(update={"times": 5})
PLANS: Any = SimpleNamespace(of=lambda path: DECODE)


def side(**changes: Any) -> RankedPath:
    """Decode at two ranks: three steps, each with two sums over ranks."""
    whole = {"unlike": (), "collectives": (GATHERED,), "record": record(DECODE)} | changes
    return RankedPath(2, DECODE_PATH, by_operation={}, **whole)


HOLDS = {
    "gathers": side(),
    "the reference's own steps": side(record=record(PREFILL), collectives=(GATHERED,)),
}
DIFFERS = {
    "a value": (side(record=record(DECODE, values=changed(1, 0, -9.0))), "bits differ"),
    "a value at the second temperature": (
        side(record=record(DECODE, values=changed(1, 1, -9.0))),
        "bits differ",
    ),
    "a row": (side(record=record(DECODE, digests=(1, 2, 3, -4, 6))), "bits differ"),
    "a rank": (side(unlike=(1,)), "rank 1 gave different bits than rank 0"),
    "a value, and a sum that was not asked for": (
        side(record=record(DECODE, values=changed(0, 0, -9.0)), collectives=(REDUCED,)),
        "bits differ",
    ),
}
VOID = {
    "all_reduce": (side(collectives=(REDUCED,)), "allreduce_ ran 6 times, and adds in its own"),
    "one more": (side(collectives=(GATHERED, SCATTERED)), "reduce_scatter_ ran 6 times"),
    "none": (side(collectives=()), "partial sums are added 6 times, and 0 collectives ran"),
    "a part of the ranks": (
        side(collectives=(GATHERED.model_copy(update={"ranks": 1}),)),
        "partial sums are added 6 times, and 0 collectives ran",
    ),
    "too few": (side(collectives=(FEW,)), "partial sums are added 6 times, and 5 collectives ran"),
    "no decode": (
        side(record=record(DECODE, observed={"attention.prefill": 2})),
        "the path asks for single-query decode, but no decode was observed",
    ),
    "fewer tokens": (
        side(record=record(DECODE, index=((0, 1),), values=changed(0, 0, -1.0)[:1], targets=(10,),
                           digests=(1,))),
        "the two sides differ in length",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLDS)
def test_equal_bits_hold(name: str) -> None:
    found = compared(record(PREFILL), HOLDS[name], reduce="fixed", sums=2).found
    assert (found.outcome, found.tokens) == ("holds", 5), found.reason


@pytest.mark.parametrize("name", DIFFERS)
def test_other_bits_differ_and_outrank_what_shows_nothing(name: str) -> None:
    given, words = DIFFERS[name]
    found = compared(record(PREFILL), given, reduce="fixed", sums=2).found
    assert (found.outcome, found.reason) == ("differs", f"decode at 2 ranks: {words}")


@pytest.mark.parametrize("name", VOID)
def test_what_shows_nothing_is_void(name: str) -> None:
    given, words = VOID[name]
    found = compared(record(PREFILL), given, reduce="fixed", sums=2).found
    assert found.outcome == "void"
    assert found.reason.startswith(f"decode at 2 ranks: {words}")


def test_a_claimed_all_reduce_must_have_run() -> None:
    ran = compared(record(PREFILL), side(collectives=(REDUCED,)), reduce="all_reduce", sums=2)
    assert ran.found.outcome == "holds"
    other = compared(record(PREFILL), side(), reduce="all_reduce", sums=2).found
    assert other.reason.endswith("partial sums are added 6 times, and 0 collectives ran for it")


def test_ranks_whose_bits_are_unlike_are_named() -> None:
    told = rank_path(record(DECODE))
    found = _ranked(PLANS, DECODE_PATH, [told, told, told.model_copy(update={"digests": [0] * 5})])
    assert (found.ranks, found.unlike, found.collectives) == (3, (2,), ())
    ran = [rank_path(record(DECODE), each) for each in ([GATHERED], [GATHERED, REDUCED])]
    assert _ranked(PLANS, DECODE_PATH, ran).collectives == (GATHERED, REDUCED)
    assert bits(record(PREFILL), found.record).outcome == "holds"


def test_one_rank_shows_nothing_by_the_same_steps() -> None:
    same = bits(record(PREFILL), record(PREFILL), same_path=False)
    assert (same.outcome, same.reason) == ("void", "both sides ran the same steps")


def test_the_first_that_differs_is_told_then_the_first_that_is_void() -> None:
    holds, void = (
        compared(record(PREFILL), each, reduce="fixed", sums=2)
        for each in (side(), side(collectives=()))
    )
    differs = [
        compared(record(PREFILL), side(record=record(DECODE, values=changed(n, 0, -9.0))),
                 reduce="fixed", sums=2)
        for n in (1, 0)
    ]  # fmt: skip
    assert worst([holds, void, *differs]) is differs[0]
    assert worst([holds, void]) is void
    assert worst([void, holds]) is void
    assert worst([holds, holds]).found.outcome == "holds"


def test_the_first_operation_is_that_of_the_first_row() -> None:
    ours = {"o_proj": {("w/0", 0): 1, ("w/0", 1): 2}, "logits": {("w/0", 0): 3, ("w/0", 1): 4}}
    assert first_unlike(ours, ours) is None
    theirs = {"o_proj": {("w/0", 0): 1, ("w/0", 1): 9}, "logits": {("w/0", 0): 9, ("w/0", 1): 9}}
    assert first_unlike(ours, theirs) == "logits"  # row 0 parts there, row 1 only after it
    assert first_unlike(ours, {"o_proj": theirs["o_proj"]}) == "o_proj"


def test_a_line_that_holds_lists_ranks_that_all_agree() -> None:
    assert TpCase.model_validate(line("tp-invariance", "holds", approx_kl0=0.0)).verdict == "holds"
    for change in ({"differing_tokens": 1}, {"differing_rows": 1}, {"unlike_ranks": [1]}):
        told = line("tp-invariance", "holds", {"found": [RANKS | change]})
        with pytest.raises(ValueError, match="it holds, and decode at 2 ranks differs"):
            TpCase.model_validate(told)
    for details, words in (
        ({"found": []}, "no number of ranks is listed"),
        ({"first": {"ranks": 2, "path": "decode", "operation": None}}, "it holds, and first is"),
        ({"found": [RANKS | {"collectives": []}]}, "decode at 2 ranks ran no collective"),
    ):
        with pytest.raises(ValueError, match=words):
            TpCase.model_validate(line("tp-invariance", "holds", details))
    apart = line("tp-invariance", "differs", {"found": [RANKS | {"unlike_ranks": [1]}]})
    alone = apart | {"differing_rows": 0, "first_divergence": None}
    assert TpCase.model_validate(alone).verdict == "differs"
    agreeing = line("tp-invariance", "differs")["tp-invariance"]
    with pytest.raises(ValueError, match="counts nothing that does"):
        TpCase.model_validate(alone | {"tp-invariance": agreeing})
