"""The cause that is told, from accounts made by hand: each sign decides, and in its order."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kvparity.births.account import Account
from kvparity.births.causes import cause
from kvparity.births.digests import Digests
from kvparity.births.signs import Signs, alike, observed, without_program
from kvparity.births.transplant import Birth
from kvparity.plan.paths import build
from kvparity.plan.workload import Prompts
from kvparity.record.products import MODEL
from kvparity_contracts.paths import PathName


def birth(operation: str = "h.0 attention", position: int = 3, **more: Any) -> Birth:
    values: dict[str, Any] = {
        "sequence": "w/0", "elements": 1, "of": 4, "ulps": 1, "column": 0, "reference": 1.0,
        "candidate": 2.0, "ran": ((), ()), "read": False, "same": False,
    }  # fmt: skip
    return Birth(operation=operation, position=position, **values | more)


def account(*births: Birth, **changes: Any) -> Account:
    signs = {name: changes.pop(name) for name in vars(Signs()) if name in changes}
    values: dict[str, Any] = {
        "rows": 9, "differing": 4, "still": 0, "still_logits": 0, "operations": 20,
        "first": ("h.0 attention", ("w/0", 3)), "unlike": (), "left_out": 0, "gap": 1.0,
        "gap_left": 0.0,
    }  # fmt: skip
    return Account(births=births, signs=Signs(**signs), **values | changes)


BORN, READ = birth(), {"operation": "h.0 keys read", "read": True}
LEFT = {"still": 1, "still_logits": 1}
BMM, MM = ("bmm [1, 2]", "add [1]"), ("mm [1, 2]", "add [1]")
CAUSES: dict[str, tuple[Account, str, str | None, str]] = {
    "equal now": (account(differing=0), "no difference", None, "nothing was located"),
    "equal outside": (account(BORN, differing=0), "no difference", None, "inside"),
    "no time": (account(whole=False), "unknown", None, "rows differ is h.0 attention"),
    "no time at all": (account(whole=False, first=None), "unknown", None, "differ is nothing"),
    "scores": (account(logits_differ=False), "logprob semantics", "sampler", "logits are equal"),
    "unwritten": (account(logits_differ=False, unwritten=2), "memory", "sampler", "2 rows are NaN"),
    "a program": (account(traced=True, unwritten=2), "traced program", "program", "without a"),
    "nothing reported": (account(operations=0, unwritten=2), "unknown", None, "no operation"),
    "nothing unlike": (account(), "unknown", None, "in code that reports none"),
    "tokens first": (account(BORN, birth("embed")), "weights or tokens", "tokens", "other token"),
    "shifted": (account(birth("embed"), shifted=3), "mask or window", "tokens", "are 3 position"),
    "a store": (account(birth(**READ, same=True), BORN), "store", "cache", "in another format"),
    "two reads": (
        account(birth(**READ, same=True), birth(**READ)), "memory", "cache", "different bits",
    ),
    "moved": (account(BORN, moved=tuple("abcd")), "memory", "cache", "read once: a, b, c"),
    "left unwritten": (account(BORN, **LEFT, unwritten=2), "memory", "sampler", "2 rows are NaN"),
    "unwritten, and right": (account(BORN, unwritten=2), "reduction order", "attention", "rounds"),
    "scores are left": (account(BORN, still=1), "logprob semantics", "sampler", "once the births"),
    "an end before all": (account(BORN, still=1, whole=False), "reduction order", "attention", ""),
    "unsteady": (account(BORN, **LEFT, unsteady=True), "not deterministic", "attention", "rerun"),
    "unsteady, and right": (account(BORN, unsteady=True), "reduction order", "attention", ""),
    "most is left": (account(BORN, **LEFT, gap_left=0.6), "not deterministic", "attention", "came"),
    "half is left": (account(BORN, **LEFT, gap_left=0.5), "reduction order", "attention", ""),
    "most rows": (account(BORN, still=3, still_logits=1, gap=0.0), "not deterministic",
                  "attention", "came out wrong"),
    "half of the rows": (account(BORN, still=2, still_logits=1, gap=0.0), "reduction order",
                         "attention", ""),
    "a position before sums": (account(BORN, birth("h.0 key", 9)), "position", "rotary", "angles"),
    "keys before sums": (account(BORN, birth("h.0 keys seen", 9)), "mask or window", "attention",
                         "sees different keys"),
    "the first of the sums": (account(birth("h.0.mlp.down_proj", 9), BORN), "reduction order",
                              "attention", "rounds"),
    "an instruction": (account(BORN, products=(("a",), ("a", "b"))), "another instruction",
                       "attention", "side are a, of the other a, b"),
    "walked": (account(BORN, walked=tuple("abcd")), "reduction order", "attention", "n: a, b, c"),
    "a kernel": (account(birth(ran=(BMM, MM))), "another kernel", "attention", "bmm and mm"),
    "one side told": (account(birth(ran=(BMM, ()))), "reduction order", "attention", "rounds"),
    "the other told": (account(birth(ran=((), BMM))), "reduction order", "attention", "rounds"),
    "the same kernels": (account(birth(ran=(BMM + MM, MM + BMM + BMM))), "reduction order",
                         "attention", "rounds"),
    "no kernel": (account(birth(ran=(("add [1]",), ("mul [1]",)))), "reduction order", "attention",
                  "rounds"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_each_sign_decides_in_its_order(name: str) -> None:
    found, kind, part, words = CAUSES[name]
    why = cause(found)
    assert (why.kind, why.part) == (kind, part)
    assert words in why.words
    assert not why.words.endswith(", d")


PLACES = {
    "reduction order attention": ("h.0 attention",),
    "reduction order norm": ("h.0.input_layernorm", "h.0.ln_1", "h.0.q_norm"),
    "reduction order linear": ("q_proj", "logits", "h.0.fc1", "h.0.attention.query", "lm_head"),
    "reduction order other": ("h.0.act_fn", "h.0.rotary"),
    "position rotary": ("rotary_emb", "h.0 query", "h.0 key"),
    "memory cache": ("h.0 keys", "h.0 values read"),
    "weights or tokens tokens": ("embed", "embed_tokens input", "wte"),
}


@pytest.mark.parametrize(("said", "names"), PLACES.items(), ids=list(PLACES))
def test_an_operation_is_known_by_the_end_of_its_name(said: str, names: tuple[str, ...]) -> None:
    for name in names:
        why = cause(account(birth(name)))
        assert f"{why.kind} {why.part}" == said, name


def test_shares_of_an_account() -> None:
    found = account(BORN, still=3, others=1, gap=4.0, gap_left=1.0)
    assert (found.equal, found.mended, found.explained) == (2, 0.5, 0.75)
    assert account(BORN, gap_left=2.0).explained == 0.0
    assert account(differing=0).mended == 1.0


def signs(ours: dict[str, list[int]], theirs: dict[str, list[int]], **b: Any) -> Signs:
    """Of two sides whose first operation gave rows with these digests, by sequence."""

    def digests(rows: dict[str, list[int]], first: dict[str, Any]) -> Digests:
        own = {(name, at): each for name, row in rows.items() for at, each in enumerate(row)}
        return Digests(by_operation=first | {"embed": own})

    a = {
        "index": [(0, 0), (0, 1)],
        "values": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "digests": torch.tensor([5, 6]),
        "observed": {f"{MODEL}b": 1, f"{MODEL}a": 1, "x": 1},
    }
    one, other = SimpleNamespace(**a), SimpleNamespace(**a | b)
    first: dict[str, Any] = {"alone": {}}
    return observed(one, digests(ours, first), other, digests(theirs, {}))  # type: ignore[arg-type]


ROW = [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("theirs", "shifted"),
    [
        ({"w": [9, 9, 1, 2, 3]}, 2),
        ({"w": [9, 1, 2, 3, 4]}, 1),
        ({"w": [9, 9, 9, 1, 2]}, 3),
        ({"w": ROW}, 0),
        ({"w": ROW[:3]}, 0),
        ({"w": [9, 9, 9, 9, 1]}, 0),  # one row alone is none that moved
        ({"w": [9, 1, 2, 3, 4], "v": [9, 9, 1, 2, 3]}, 2),
        ({"w": [9, 1, 2, 3, 4], "v": ROW}, 1),
        ({"w": [9, 1, 2, 3, 4], "v": [5, 4, 3, 2, 1]}, 0),  # other tokens, too
        ({"w": [9, 1, 2, 3, 4], "u": [5, 4, 3, 2, 1]}, 1),  # of no sequence here
    ],
)
def test_tokens_behind_pads_are_seen_by_their_rows(
    theirs: dict[str, list[int]], shifted: int
) -> None:
    assert signs({"w": ROW, "v": ROW}, theirs).shifted == shifted


def test_rows_that_are_alike_are_not_seen_to_move() -> None:
    assert signs({"w": [7, 7, 7, 7]}, {"w": [9, 7, 7, 7]}).shifted == 0
    assert signs({"w": [7, 8]}, {"v": [7, 8]}).shifted == 0
    assert signs({"w": [7, 8, 8, 7]}, {"w": [9, 7, 8, 8]}).shifted == 1
    assert signs({}, {"w": ROW}).shifted == 0


def test_of_other_operations_none_has_moved() -> None:
    a: Any = SimpleNamespace(
        index=[(0, 0)], values=torch.zeros(1, 1), digests=torch.tensor([5]), observed={}
    )
    assert observed(a, Digests({"one": {("w", 0): 1}}), a, Digests({"two": {}})).shifted == 0


def test_what_two_records_show() -> None:
    """Rows are compared at their places."""
    found = signs({}, {})
    assert (found.logits_differ, found.unwritten) == (False, 0)
    assert found.products == ((f"{MODEL}a", f"{MODEL}b"),) * 2
    turned = {"index": [(0, 1), (0, 0)], "digests": torch.tensor([6, 5])}
    assert not signs({}, {}, **turned).logits_differ
    assert signs({}, {}, digests=torch.tensor([5, 7])).logits_differ
    nan = torch.tensor([[torch.nan, torch.nan], [3.0, 4.0]])
    assert signs({}, {}, values=nan).unwritten == 1


def test_a_side_that_is_run_again_is_alike_in_every_row_and_value() -> None:
    def record(*digests: int, value: float = 2.0) -> Any:
        values = torch.tensor([[1.0, value], [3.0, 4.0]])
        return SimpleNamespace(digests=torch.tensor(digests), values=values)

    assert alike(record(5, 6), record(5, 6))
    assert not alike(record(5, 6), record(5, 7))
    assert not alike(record(5, 6), record(7, 8))
    assert not alike(record(5, 6), record(5, 6, value=2.5))


@pytest.mark.parametrize("program", ["eager", "exported"])
def test_steps_of_a_program_are_run_again_without_it(program: str) -> None:
    plan = build(PathName("decode"), Prompts("w", ("w/0",), ((0,) * 5,), 3), seed=0)
    traced = replace(plan, layout=replace(plan.layout, program=program))  # type: ignore[arg-type]
    side: Any = SimpleNamespace(plan=traced, run=lambda cut: cut(traced))
    assert without_program(side) == (None if program == "eager" else plan)
