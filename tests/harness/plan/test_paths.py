from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvparity.plan.paths import ALIKE, build, strangers
from kvparity.plan.schedule import Action, Layout, Plan, Span, check_schedule
from kvparity.plan.workload import Prompts
from kvparity_contracts.controls import base as controls
from kvparity_contracts.paths import KINDS, UNNAMED, PathName

EVERY = [
    "prefill", "decode", "generate", "chunked(1)", "chunked(7)", "chunked(64)", "batched",
    "uniform", "permuted", "mixed", "paged(16)", "padded-left", "padded-right", "uncached",
    "streamed(7)", "verify(3)", "reset", "prefix(5)", "prefix-paged(5)", "exported", "compiled",
    "far",
]  # fmt: skip
DECODING = (
    "decode", "batched", "uniform", "mixed", "paged", "padded-left", "padded-right", "streamed",
    "reset", "prefix", "prefix-paged", "exported", "compiled", "far",
)  # fmt: skip
NEIGHBOURS = ("batched", "permuted", "mixed", "verify(3)")
LENGTHS = st.lists(st.integers(1, 130), min_size=1, max_size=5)


def prompts(lengths: list[int], generate: int) -> Prompts:
    return Prompts(
        name="w",
        ids=tuple(f"w/{i}" for i in range(len(lengths))),
        prompts=tuple((0,) * n for n in lengths),
        generate=generate,
    )


def plan(path: str, lengths: list[int], generate: int, seed: int = 0) -> Plan:
    return build(PathName.parse(path), prompts(lengths, generate), seed=seed)


def rows(found: Plan) -> list[tuple[int, int]]:
    return [(s.sequence, row) for step in found.schedule for s in step for row in s.rows]


def filled(found: Plan) -> dict[int, int]:
    return {s.sequence: s.stop for step in found.schedule for s in step}


def test_no_kind_of_path_is_left_out() -> None:
    assert {PathName.parse(path).kind for path in EVERY} == {*KINDS} - {"padded", *UNNAMED}
    assert {*DECODING, "generate", "drawn", "steps"} == {
        *controls.DECODING
    }  # where controls of decode are planted


@given(LENGTHS, st.integers(1, 20), st.sampled_from(EVERY), st.integers(0, 3))
def test_every_plan_computes_in_order_and_compares_each_row_once(
    lengths: list[int], generate: int, path: str, seed: int
) -> None:
    found = plan(path, lengths, generate, seed)
    check_schedule(found.members, found.schedule, found.actions)
    own = len(lengths)
    assert [(m.prompt, m.length) for m in found.members[:own]] == [
        (n, n + generate) for n in lengths
    ]
    if path == "generate":
        assert found.generate
        assert found.schedule == ()
        return
    assert not found.generate
    wanted = [(i, p) for i, n in enumerate(lengths) for p in range(n - 1, n + generate - 1)]
    assert sorted(rows(found)) == wanted  # each once, and no stranger's
    # A trainer is given all tokens; a rollout never computes the one drawn last.
    decodes = PathName.parse(path).kind in (*DECODING, "verify")
    assert [filled(found)[i] for i in range(own)] == [n + generate - decodes for n in lengths]


def test_drafts_are_verified_and_ever_more_of_them_rejected() -> None:
    found = plan("verify(3)", [5, 9], 9)
    for sequence, prompt in ((0, 5), (1, 9)):
        own = [s for step in found.schedule[1:] for s in step if s.sequence == sequence]
        at, turn = prompt, sequence
        for span in own:
            rows = min(4, prompt + 8 - at)
            assert (span.start, span.stop, span.verify) == (at, at + rows, True)
            assert span.rejected == turn % rows
            assert span.rows == range(at, at + rows - span.rejected)
            at, turn = span.end, turn + 1
        assert at == prompt + 8
    assert {s.rejected for step in found.schedule for s in step} == {0, 1, 2, 3}
    assert not any(s.verify for s in found.schedule[0])
    with pytest.raises(ValueError, match="among 1 rejected of 8"):
        Span(0, 5, 8, 5, verify=True, rejected=1)


@given(LENGTHS, st.integers(1, 20), st.sampled_from(EVERY))
def test_decode_is_asked_for_where_it_is_meant(
    lengths: list[int], generate: int, path: str
) -> None:
    found = plan(path, lengths, generate)
    steps = found.schedule[found.warm_up :]
    decoded = [(s.sequence, s.start) for step in steps for s in step if s.decode]
    if PathName.parse(path).kind not in DECODING:
        assert decoded == []
        return
    wanted = {(i, p) for i, n in enumerate(lengths) for p in range(n, n + generate - 1)}
    assert {place for place in decoded if place[0] < len(lengths)} == wanted
    assert not any(s.position_shift for step in found.schedule for s in step)


@given(LENGTHS, st.integers(1, 20))
def test_strangers_are_like_nobody_else(lengths: list[int], generate: int) -> None:
    filler = prompts(lengths, generate)
    others = strangers(filler)
    own = set(lengths)
    assert len({m.prompt for m in others}) == len(others) == 2
    assert not own & {m.prompt for m in others}
    assert not {n + generate for n in own} & {m.length for m in others}
    assert not {m.id for m in others} & set(filler.ids)
    for path in EVERY:
        found = plan(path, lengths, generate)
        extra = tuple(m for m in found.members[len(lengths) :] if not m.like)
        if path != "uniform":
            assert extra == (others if path in NEIGHBOURS else ())


def test_no_workload_can_have_a_strangers_name() -> None:
    workload = Prompts("stranger", ("stranger/0",), ((0,) * 4,), 2)
    assert not {m.id for m in strangers(workload)} & set(workload.ids)


@given(LENGTHS, st.integers(1, 5), st.integers(0, 200))
def test_permuted_is_one_step_in_another_order(
    lengths: list[int], generate: int, seed: int
) -> None:
    (step,) = plan("permuted", lengths, generate, seed).schedule
    order = [s.sequence for s in step]
    assert sorted(order) == list(range(len(lengths) + 2))
    assert order != sorted(order)


def test_permuted_follows_the_seed() -> None:
    assert len({plan("permuted", [3, 4, 5], 2, seed).schedule for seed in range(20)}) > 5
    assert plan("permuted", [3, 4, 5], 2, 7) == plan("permuted", [3, 4, 5], 2, 7)


@given(LENGTHS, st.integers(2, 20))
def test_mixed_has_a_step_of_both_kinds(lengths: list[int], generate: int) -> None:
    def both(path: str) -> bool:
        return any(
            len({s.decode for s in step}) == 2 for step in plan(path, lengths, generate).schedule
        )

    assert both("mixed")
    # The control: side by side, all prompts come first.
    assert not both("batched")


@given(LENGTHS, st.integers(1, 20))
def test_all_rows_of_a_uniform_step_see_as_many_keys(lengths: list[int], generate: int) -> None:
    found = plan("uniform", lengths, generate)
    for step in found.schedule:
        assert len(step) == 1 + ALIKE
        assert len({(span.start, span.stop, span.decode) for span in step}) == 1
        assert all(not span.rows for span in step if span.sequence >= len(lengths))
    names = [member.id for member in found.members]
    assert len(set(names)) == len(names) == len(lengths) * (1 + ALIKE)


@given(LENGTHS, st.integers(1, 20), st.sampled_from([1, 7, 64]))
def test_chunks_have_their_size(lengths: list[int], generate: int, size: int) -> None:
    found = plan(f"chunked({size})", lengths, generate)
    for i, n in enumerate(lengths):
        spans = [s for step in found.schedule for s in step if s.sequence == i]
        sizes = [s.stop - s.start for s in spans]
        assert sizes[:-1] == [size] * (len(sizes) - 1)
        assert 1 <= sizes[-1] <= size
        assert sum(sizes) == n + generate
    assert all(len(step) == 1 for step in found.schedule)


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        ("padded-left", Layout(batch="left")),
        ("padded-right", Layout(batch="right")),
        ("paged(16)", Layout(page=16)),
        ("paged(1)", Layout(page=1)),
        ("batched", Layout(empties=True)),
        ("batched(5)", Layout()),
        ("far", Layout(far=True)),
        ("prefill", Layout()),
        ("decode", Layout()),
        ("uncached", Layout(cached=False)),
        ("prefix(1)", Layout()),
        ("prefix-paged(1)", Layout(page=16)),
        ("reset", Layout()),
        ("exported", Layout(program="exported")),
        ("compiled", Layout(program="compiled")),
    ],
)
def test_layouts(path: str, layout: Layout) -> None:
    found = plan(path, [2, 9], 3)
    assert replace(found.layout, chunk=0) == layout
    assert layout.slack > 0  # there is always a slot whose poison would show


@pytest.mark.parametrize(
    ("path", "most"),
    [("prefill", 12), ("decode", 9), ("chunked(4)", 4), ("streamed(4)", 4), ("prefix(2)", 7)],
)
def test_the_layout_knows_the_most_tokens_that_a_step_adds(path: str, most: int) -> None:
    assert plan(path, [2, 9], 3).layout.chunk == most


@given(LENGTHS, st.integers(1, 20), st.sampled_from([1, 7, 64]))
def test_a_streamed_prompt_comes_in_chunks(lengths: list[int], generate: int, size: int) -> None:
    found = plan(f"streamed({size})", lengths, generate)
    for i, n in enumerate(lengths):
        spans = [s for step in found.schedule for s in step if s.sequence == i and not s.decode]
        sizes = [s.stop - s.start for s in spans]
        assert sizes[:-1] == [size] * (len(sizes) - 1)
        assert 1 <= sizes[-1] <= size
        assert sum(sizes) == n
    # In one chunk it is decode.
    longest = plan(f"streamed({max(lengths)})", lengths, generate)
    assert longest == plan("decode", lengths, generate)


@given(LENGTHS, st.integers(1, 20))
def test_reset_is_decode_after_the_same_steps_for_nobody(lengths: list[int], generate: int) -> None:
    found, decode = plan("reset", lengths, generate), plan("decode", lengths, generate)
    half = len(decode.schedule)
    assert found.actions == (Action(half, "reset"),)
    assert found.warm_up == half
    assert found.schedule[half:] == decode.schedule
    assert not any(len(span.rows) for step in found.schedule[:half] for span in step)
    assert [[(s.start, s.stop, s.decode) for s in step] for step in found.schedule[:half]] == [
        [(s.start, s.stop, s.decode) for s in step] for step in decode.schedule
    ]


@given(LENGTHS, st.integers(2, 20), st.sampled_from([1, 5, 64]))
def test_a_prefix_comes_from_a_donor_that_goes_on(
    lengths: list[int], generate: int, tokens: int
) -> None:
    found = plan(f"prefix({tokens})", lengths, generate)
    donors = {m.like: i for i, m in enumerate(found.members) if m.like}
    assert set(donors) == {f"w/{i}" for i, n in enumerate(lengths) if n > tokens}
    actions = {action.sequence: action for action in found.actions}
    assert len(actions) == len(found.actions) == len(donors)
    for sequence, action in actions.items():
        assert lengths[sequence] > tokens
        assert (action.donor, action.tokens) == (donors[f"w/{sequence}"], tokens)
        assert found.members[action.donor].shared == tokens
        steps = [(n, s) for n, step in enumerate(found.schedule) for s in step]
        spans = [(n, s.start, s.stop) for n, s in steps if s.sequence == sequence]
        assert spans[0] == (action.step, tokens, lengths[sequence])
        wrote = [n for n, s in steps if s.sequence == action.donor for _ in range(s.start, s.stop)]
        # The donor has gone on by one token before, and goes on by another among the rows.
        assert len([n for n in wrote if n < action.step]) == tokens + 1
        assert len([n for n in wrote if n > action.step]) == 1
        if len(spans) > 2:
            assert spans[1][0] < wrote[-1] < spans[2][0]


def test_a_donor_and_a_prefix_of_another_length_are_no_plan() -> None:
    found = plan("prefix(3)", [7], 3)
    (action,) = found.actions
    check_schedule(found.members, found.schedule, found.actions)
    for wrong in (replace(action, tokens=5), replace(action, tokens=2), replace(action, step=0)):
        with pytest.raises(ValueError, match=r"cannot adopt|is filled to"):
            check_schedule(found.members, found.schedule, [wrong])


def test_no_two_paths_are_the_same_plan() -> None:
    plans = {path: plan(path, [2, 9, 70], 3) for path in EVERY}
    assert len(set(plans.values())) == len(EVERY)
    # The control: a chunk that holds everything is prefill itself.
    assert plan("chunked(100)", [2, 9, 70], 3) == plans["prefill"]
    assert plan("prefix(70)", [2, 9, 70], 3) == plans["decode"]


def test_a_path_without_a_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="no schedule is known for path padded"):
        plan("padded", [2], 2)
