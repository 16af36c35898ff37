"""Plans of prompts whose rows are chosen, written down by hand: what is computed, what filled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvparity.plan.paths import build
from kvparity.plan.schedule import Plan, Span, check_schedule
from kvparity.plan.thinned import FILL, runs
from kvparity.plan.workload import Prompts
from kvparity_contracts.chosen import PATHS
from kvparity_contracts.paths import PathName, example


def prompts(*lengths: int, rows: tuple[tuple[int, ...], ...], generate: int = 2) -> Prompts:
    ids = tuple(f"w/{i}" for i in range(len(lengths)))
    tokens = tuple((7,) * each for each in lengths)
    return Prompts("w", ids, tokens, generate, rows=rows, block=4)


ONE = prompts(20, rows=((9,),))
CLOSE = prompts(13, rows=((1, 2, 6, 8),))
TWO = prompts(20, 5, rows=((9,), (1,)))


def words(span: Span) -> str:
    rows = f"={span.rows.start}-{span.rows.stop - 1}" if len(span.rows) else ""
    mark = "!" if span.decode else "~" if span.fill else ""
    return f"{span.sequence}:{span.start}-{span.stop - 1}{mark}{rows}"


def written(plan: Plan) -> str:
    return " | ".join(" ".join(map(words, step)) for step in plan.schedule)


LAST = "0:20-20!=20-20"
STEPS = {
    ("prefill", ONE): "0:0-7~ | 0:8-11=9-9 | 0:12-15~ | 0:16-21=19-20",
    ("decode", ONE): f"0:0-8~ | 0:9-9!=9-9 | 0:10-15~ | 0:16-19=19-19 | {LAST}",
    # Blocks begin where the chunk does: that of its own row is filled from behind the block on.
    ("chunked(6)", ONE): "0:0-5~ | 0:6-9=9-9 | 0:10-11~ | 0:12-17~ | 0:18-21=19-20",
    ("streamed(6)", ONE): "0:0-5~ | 0:6-9=9-9 | 0:10-11~ | 0:12-17~ | 0:18-19=19-19 | " + LAST,
    # Rows of one block that do not follow each other are pieces of it.
    ("prefill", CLOSE): "0:0-3=1-2 | 0:4-7=6-6 | 0:8-11=8-8 | 0:12-14=12-13",
    ("decode", CLOSE): "0:0-0~ | 0:1-1!=1-1 | 0:2-2!=2-2 | 0:3-5~ | 0:6-6!=6-6 | 0:7-7~ | "
    "0:8-8!=8-8 | 0:9-11~ | 0:12-12=12-12 | 0:13-13!=13-13",
    # The last pieces of all prompts come together, and neighbours with them.
    ("batched", TWO): "0:0-8~ | 1:0-0~ | 0:9-9!=9-9 1:1-1!=1-1 | 0:10-15~ | 1:2-3~ | 3:0-20~ | "
    "0:16-19=19-19 1:4-4=4-4 2:0-1 3:21-24 | 0:20-20!=20-20 1:5-5!=5-5 2:2-2! 3:25-25!",
}  # fmt: skip


@pytest.mark.parametrize(("path", "load"), STEPS, ids=lambda each: str(each)[:12])
def test_only_chosen_rows_and_their_blocks_are_computed(path: str, load: Prompts) -> None:
    assert written(build(PathName.parse(path), load, seed=0)) == STEPS[path, load]


def test_a_block_that_two_groups_of_rows_share_goes_on_behind_the_first() -> None:
    load = prompts(13, rows=((4, 6),))
    plan = build(PathName("prefill"), load, seed=0)
    assert written(plan) == "0:0-3~ | 0:4-5=4-4 | 0:6-7=6-6 | 0:8-11~ | 0:12-14=12-13"


@pytest.mark.parametrize("kind", PATHS)
def test_every_path_computes_the_rows_that_are_chosen_and_no_others(kind: str) -> None:
    load = prompts(900, 30, rows=((3, 4, 500, 702), (0, 28)), generate=3)
    path = PathName.parse(example(kind))  # type: ignore[arg-type]
    plan = build(path, load, seed=0)
    check_schedule(plan.members, plan.schedule)
    spans = [span for step in plan.schedule for span in step]
    for sequence in (0, 1):
        own = [row for span in spans if span.sequence == sequence for row in span.rows]
        assert own == list(load.compared(sequence))
    filled = [span for span in spans if span.fill]
    assert filled  # and in pieces, each in a step of its own
    assert max(span.stop - span.start for span in filled) <= FILL
    assert all(len(step) == 1 for step in plan.schedule if step[0].fill)
    computed = sum(span.stop - span.start for span in spans if not span.fill)
    assert computed < 150  # of a thousand
    assert plan.layout.chunk == max(span.stop - span.start for span in spans)
    whole = build(path, replace(load, rows=None), seed=0)
    assert not any(span.fill for step in whole.schedule for span in step)
    assert plan.members == whole.members


def test_nobody_reads_rows_of_a_span_that_only_fills() -> None:
    with pytest.raises(ValueError, match="only fills a cache has rows"):
        Span(0, 0, 4, rows_from=3, fill=True)
    with pytest.raises(ValueError, match="only fills a cache has rows"):
        Span(0, 3, 4, rows_from=4, decode=True, fill=True)


def test_runs_of_rows() -> None:
    assert list(runs((0, 1, 2, 5, 7, 8))) == [(0, 3), (5, 6), (7, 9)]
    assert list(runs(())) == []
