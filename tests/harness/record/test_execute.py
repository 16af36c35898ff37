from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import toy
from small_records import INDEX, PLANS, PROMPTS, TOKENS, Pretender, record
from torch import Tensor
from toy import GeneratingToy, Toy, ToySession
from toy_cache import VOCAB

from kvparity.plan.paths import build
from kvparity.plan.schedule import Layout, Member, Plan, Step
from kvparity.record.execute import Choose, run
from kvparity.record.path_run import PathRun
from kvparity.record.run_events import Watch, watching
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity_contracts.paths import PathName
from kvparity_kernels.digest import naive
from kvparity_kernels.launch import LaunchLog

TEMPERATURES = (1.0, 0.7)


def plan(path: str) -> Plan:
    return build(PathName.parse(path), PROMPTS, seed=0)


def row(position: int, ids: list[int]) -> Tensor:
    """The toy's logits without any harness."""
    model = Toy()
    q, k, v = model.embed(torch.tensor(ids[: position + 1]), torch.arange(position + 1))
    return model.logits(q[-1], k, v)


@pytest.mark.parametrize(
    "path",
    [
        "prefill",
        "decode",
        "chunked(2)",
        "permuted",
        "mixed",
        "uncached",
        "streamed(2)",
        "verify(2)",
        "reset",
        "prefix(2)",
        "prefix-paged(2)",
    ],
)
@pytest.mark.parametrize("block", [1, 2, 5, 1000])
def test_rows_come_in_order_whatever_the_steps_and_blocks(path: str, block: int) -> None:
    found = record(path, Toy(block=block))
    assert found.index == INDEX
    assert found.targets.tolist() == [TOKENS[s][p + 1] for s, p in INDEX]
    rows = torch.stack([row(p, TOKENS[s]) for s, p in INDEX])
    assert torch.equal(found.digests, naive.row_digest(rows))
    for column, t in enumerate(TEMPERATURES):
        for i, target in enumerate(found.targets.tolist()):
            wanted = torch.log_softmax(rows[i].double() / t, -1)[target].float()
            assert torch.equal(found.values[i, column], wanted)
    assert bool(found.finite.all())
    assert found.values.dtype == torch.float32


def test_what_ran_is_the_subjects_word() -> None:
    assert record("decode").observed == {"attention.prefill": 2, "attention.decode": 6}
    assert record("prefill").observed == {"attention.prefill": 2}
    assert record("decode", Toy("never-decodes")).observed == {"attention.prefill": 8}
    assert record("prefill").launches == LaunchLog()


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("extra-row", "gave more than the 1 row wanted"),
        ("missing-row", "gave 0 rows of the 1 wanted"),
        ("flat-rows", r"rows of shape \[3\] in torch.float32, expected \[rows, 256\]"),
        ("integer-rows", r"rows of shape \[1, 256\] in torch.int64"),
        ("narrow-rows", r"rows of shape \[1, 128\]"),
        (
            "float64-values",
            r"values of shape \[1, 2\] in torch.float64 as a Tensor, expected \[1, 2\] in float32",
        ),
        ("raises", "the subject raised RuntimeError: no such kernel"),
        ("exits", "the subject raised SystemExit: 0"),
    ],
)
def test_a_broken_promise_is_a_subject_error(defect: str, message: str) -> None:
    with pytest.raises(SubjectError, match=message):
        record("decode", Toy(defect))


def test_a_short_block_of_values_is_a_subject_error() -> None:
    with pytest.raises(SubjectError, match=r"values of shape \[3, 2\].*expected \[4, 2\]"):
        record("prefill", Toy("short-values", block=9))


@pytest.mark.parametrize("path", ["prefill", "decode"])
def test_kept_rows_are_the_whole_rows(path: str) -> None:
    keep = frozenset([(0, 4), (1, 1), (9, 9)])
    side = PathRun(toy.setting(), Toy(), PLANS, PathName(path), [list(t) for t in TOKENS])
    found = side.run(keep=keep)
    assert set(found.kept) == {(0, 4), (1, 1)}
    assert torch.equal(found.kept[0, 4], row(4, TOKENS[0]))
    assert torch.equal(found.kept[1, 1], row(1, TOKENS[1]))
    assert record("decode").kept == {}


def chooser(seen: list[tuple[int, int]]) -> Choose:
    def choose(sequence: int, position: int, row: Tensor) -> int:
        assert row.shape == (VOCAB,)
        seen.append((sequence, position))
        return int(row.argmax())

    return choose


@pytest.mark.parametrize("path", ["decode", "batched", "mixed", "generate"])
def test_a_rollout_draws_each_missing_token_once_from_the_row_before_it(path: str) -> None:
    tokens = [list(p) for p in PROMPTS.prompts]
    if path in ("batched", "mixed"):
        tokens += [[1] * m.length for m in plan(path).members[2:]]
    seen: list[tuple[int, int]] = []
    found = run(
        GeneratingToy(), plan(path), tokens, temperatures=TEMPERATURES, choose=chooser(seen)
    )
    assert sorted(seen) == [(s, p + 1) for s, p in INDEX]
    assert [len(t) for t in tokens[:2]] == [7, 5]
    for sequence, position in INDEX:
        wanted = int(row(position, tokens[sequence]).argmax())
        assert tokens[sequence][position + 1] == wanted
    assert found.targets.tolist() == [tokens[s][p + 1] for s, p in INDEX]


def test_known_tokens_are_scored_and_not_drawn_again() -> None:
    generated = record("generate", GeneratingToy())
    assert generated.targets.tolist() == [TOKENS[s][p + 1] for s, p in INDEX]
    assert torch.equal(generated.digests, record("prefill").digests)


def test_a_loop_that_ends_early_is_a_subject_error() -> None:
    tokens = [list(p) for p in PROMPTS.prompts]
    with pytest.raises(SubjectError, match=r"took 3 tokens for w/0, expected 4"):
        run(
            GeneratingToy("stops-early"),
            plan("generate"),
            tokens,
            temperatures=TEMPERATURES,
            choose=chooser([]),
        )


def test_missing_tokens_are_an_error_where_none_are_drawn() -> None:
    short = [TOKENS[0][:5], TOKENS[1]]
    with pytest.raises(SubjectError, match="only 5 tokens are known"):
        record("prefill", tokens=short)
    with pytest.raises(SubjectError, match="only 5 tokens are known"):
        record("decode", tokens=short)


def test_what_a_subject_cannot_do_is_said_and_not_replaced() -> None:
    with pytest.raises(UnsupportedError, match=r"no generate\(\) loop"):
        record("generate")
    with pytest.raises(UnsupportedError, match="no pages"):
        record("paged(4)", Toy("no-pages"))
    with pytest.raises(UnsupportedError, match=r"no generate\(\) loop of its own"):
        record("generate", Pretender())


def test_a_wrong_schedule_never_reaches_the_subject() -> None:
    good = plan("prefill")
    twice = Plan(good.members, good.schedule + good.schedule, good.layout)
    with pytest.raises(ValueError, match="is filled to"):
        run(Toy("raises"), twice, [list(t) for t in TOKENS], temperatures=TEMPERATURES)


def test_a_plan_without_rows_is_an_empty_record() -> None:
    good = plan("prefill")
    found = run(
        Toy(), Plan(good.members, (), good.layout), [list(t) for t in TOKENS], temperatures=(1.0,)
    )
    assert found.index == ()
    assert len(found.values) == len(found.digests) == len(found.targets) == 0


class Counting(Toy):
    """Counts the blocks of logits that are alive while the next one is made."""

    def __init__(self) -> None:
        super().__init__(block=1)
        self.blocks: list[weakref.ref[Tensor]] = []
        self.most = 0

    def session(self, members: Sequence[Member], layout: Layout) -> ToySession:
        model = self

        class Watched(ToySession):
            def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
                for span, own in zip(step, ids, strict=True):
                    for position in span.rows:
                        some = replace(span, rows_from=position, rows_to=position + 1)
                        alive = sum(ref() is not None for ref in model.blocks)
                        model.most = max(model.most, alive)
                        block = self._span(some, own, True)
                        model.blocks.append(weakref.ref(block))
                        yield block
                        del block

        return Watched(self, members, layout)


@pytest.mark.parametrize("path", ["prefill", "decode"])
def test_no_more_than_one_block_of_logits_is_held(path: str) -> None:
    model = Counting()
    found = record(path, model)
    assert len(model.blocks) == len(found.index) == 8
    assert model.most <= 1
    assert not any(ref() is not None for ref in model.blocks)
    # A row that is kept whole is a copy, and keeps no block alive.
    side = PathRun(toy.setting(), model, PLANS, PathName(path), [list(t) for t in TOKENS])
    side.run(keep=frozenset([(0, 4)]))
    assert not any(ref() is not None for ref in model.blocks)


def test_results_lie_in_one_piece() -> None:
    """One by one between blocks that are freed, they would let a process grow."""
    found = record("decode")
    assert found.values.untyped_storage().nbytes() == 8 * len(TEMPERATURES) * 4
    assert found.digests.untyped_storage().nbytes() == 8 * 8


def test_more_rows_than_the_plan_has_are_a_subject_error() -> None:
    class Longer(GeneratingToy):
        def generate(self, member: Member, prompt: Sequence[int], choose: Any) -> Counter[str]:
            found = super().generate(member, prompt, choose)
            if member.id == "w/1":
                choose(member.length - 1, torch.zeros(VOCAB))
            return found

    with pytest.raises(SubjectError, match="gave more than the 8 rows of the plan"):
        record("generate", Longer())


def test_rejected_drafts_are_handed_over_as_other_tokens() -> None:
    class Ids(Watch):
        seen: ClassVar[list[tuple[Step, Sequence[Sequence[int]]]]] = []

        def stepped(self, session: Any, step: Step, ids: Sequence[Sequence[int]]) -> None:
            self.seen.append((step, ids))

    with watching(Ids()):
        record("verify(2)")
    rejected = 0
    for step, ids in Ids.seen:
        for span, own in zip(step, ids, strict=True):
            if span.sequence >= len(TOKENS):
                continue  # a stranger
            given = TOKENS[span.sequence][span.start : span.stop]
            kept = span.end - span.start
            assert own[:kept] == given[:kept]
            assert own[kept:] == [(each + 1) % VOCAB for each in given[kept:]]
            rejected += span.rejected
    assert rejected
