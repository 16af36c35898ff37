"""What each path computes in which step, written down by hand for three small workloads.

A step is ``SEQUENCE:FIRST-LAST`` of each span, ``!`` where it decodes, ``=FIRST-LAST`` where rows
are wanted; ``|`` stands between steps.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvparity.plan.paths import build
from kvparity.plan.schedule import Action, Layout, Member, Plan, Span, Step, check_schedule
from kvparity.plan.workload import Prompts
from kvparity_contracts.paths import PathName

TWO = ((3, 1), 3)  # prompts of 3 tokens and of 1, and 3 tokens generated
ONE_TOKEN = ((2, 4), 1)
ALONE = ((4,), 2)
TOGETHER = {
    TWO: "0:0-2=2 1:0-0=0 | 0:3-3!=3 1:1-1!=1 | 0:4-4!=4 1:2-2!=2",
    ONE_TOKEN: "0:0-1=1 1:0-3=3",
    ALONE: "0:0-3=3 | 0:4-4!=4",
}
DECODE = {
    TWO: "0:0-2=2 | 0:3-3!=3 | 0:4-4!=4 | 1:0-0=0 | 1:1-1!=1 | 1:2-2!=2",
    ONE_TOKEN: "0:0-1=1 | 1:0-3=3",
    ALONE: "0:0-3=3 | 0:4-4!=4",
}
WHOLE = {
    TWO: "0:0-5=2-4 | 1:0-3=0-2",
    ONE_TOKEN: "0:0-2=1-1 | 1:0-4=3-3",
    ALONE: "0:0-5=3-4",
}
STEPS = {
    "prefill": WHOLE,
    "uncached": WHOLE,
    "decode": DECODE,
    "exported": DECODE,
    "compiled": DECODE,
    "batched(1)": DECODE,
    "streamed(4)": DECODE,
    "chunked(6)": WHOLE,
    "paged(4)": TOGETHER,
    "padded-left": TOGETHER,
    "padded-right": TOGETHER,
    "generate": dict.fromkeys((TWO, ONE_TOKEN, ALONE), ""),
    "chunked(2)": {
        TWO: "0:0-1 | 0:2-3=2-3 | 0:4-5=4 | 1:0-1=0-1 | 1:2-3=2",
        ONE_TOKEN: "0:0-1=1 | 0:2-2 | 1:0-1 | 1:2-3=3 | 1:4-4",
        ALONE: "0:0-1 | 0:2-3=3 | 0:4-5=4",
    },
    "streamed(2)": {
        TWO: "0:0-1 | 0:2-2=2 | 0:3-3!=3 | 0:4-4!=4 | 1:0-0=0 | 1:1-1!=1 | 1:2-2!=2",
        ONE_TOKEN: "0:0-1=1 | 1:0-1 | 1:2-3=3",
        ALONE: "0:0-1 | 0:2-3=3 | 0:4-4!=4",
    },
    "reset": {
        TWO: "0:0-2 | 0:3-3! | 0:4-4! | 1:0-0 | 1:1-1! | 1:2-2! | " + DECODE[TWO],
        ONE_TOKEN: "0:0-1 | 1:0-3 | " + DECODE[ONE_TOKEN],
        ALONE: "0:0-3 | 0:4-4! | " + DECODE[ALONE],
    },
    "prefix(2)": {
        TWO: "2:0-2 | 0:2-2=2 | 0:3-3!=3 | 2:3-3! | 0:4-4!=4 | 1:0-0=0 | 1:1-1!=1 | 1:2-2!=2",
        ONE_TOKEN: "0:0-1=1 | 2:0-2 | 1:2-3=3 | 2:3-3!",
        ALONE: "1:0-2 | 0:2-3=3 | 1:3-3! | 0:4-4!=4",
    },
    "batched": {
        TWO: "0:0-2=2 1:0-0=0 2:0-1 3:0-7 | 0:3-3!=3 1:1-1!=1 2:2-2! 3:8-8! | "
        "0:4-4!=4 1:2-2!=2 2:3-3! 3:9-9!",
        ONE_TOKEN: "0:0-1=1 1:0-3=3 2:0-2 3:0-8",
        ALONE: "0:0-3=3 1:0-1 2:0-8 | 0:4-4!=4 1:2-2! 2:9-9!",
    },
    "batched(5)": {
        TWO: "0:0-2=2 2:0-0 3:0-1 4:0-2 1:0-0=0 | 0:3-3!=3 2:1-1! 3:2-2! 4:3-3! 1:1-1!=1 | "
        "0:4-4!=4 2:2-2! 3:3-3! 4:4-4! 1:2-2!=2",
        ONE_TOKEN: "0:0-1=1 2:0-0 3:0-1 4:0-2 1:0-3=3",
        ALONE: "1:0-0 2:0-1 3:0-2 4:0-0 0:0-3=3 | 1:1-1! 2:2-2! 3:3-3! 4:1-1! 0:4-4!=4",
    },
    "far": {
        TWO: "0:0-2=2 | 1:0-0=0 | 0:3-3!=3 1:1-1!=1 | 0:4-4!=4 1:2-2!=2",
        ONE_TOKEN: "0:0-1=1 | 1:0-3=3",
        ALONE: "0:0-3=3 | 0:4-4!=4",
    },
    "uniform": {
        TWO: "0:0-2=2 2:0-2 3:0-2 | 0:3-3!=3 2:3-3! 3:3-3! | 0:4-4!=4 2:4-4! 3:4-4! | "
        "1:0-0=0 4:0-0 5:0-0 | 1:1-1!=1 4:1-1! 5:1-1! | 1:2-2!=2 4:2-2! 5:2-2!",
        ONE_TOKEN: "0:0-1=1 2:0-1 3:0-1 | 1:0-3=3 4:0-3 5:0-3",
        ALONE: "0:0-3=3 1:0-3 2:0-3 | 0:4-4!=4 1:4-4! 2:4-4!",
    },
    "mixed": {
        TWO: "0:0-2=2 | 0:3-3!=3 1:0-0=0 | 0:4-4!=4 1:1-1!=1 2:0-1 | 1:2-2!=2 2:2-2! 3:0-7 | "
        "2:3-3! 3:8-8! | 3:9-9!",
        ONE_TOKEN: "0:0-1=1 | 1:0-3=3 | 2:0-2 | 3:0-8",
        ALONE: "0:0-3=3 | 0:4-4!=4 1:0-1 | 1:2-2! 2:0-8 | 2:9-9!",
    },
}
STEPS["prefix-paged(2)"] = STEPS["prefix(2)"]


def plan(path: str, workload: tuple[tuple[int, ...], int], seed: int = 0) -> Plan:
    lengths, generate = workload
    names = tuple(f"w/{i}" for i in range(len(lengths)))
    prompts = Prompts("w", names, tuple((0,) * n for n in lengths), generate)
    return build(PathName.parse(path), prompts, seed=seed)


def read(text: str) -> tuple[Step, ...]:
    """Steps of a line of the table."""
    return tuple(tuple(map(_span, step.split())) for step in text.split("|") if step.strip())


def _span(text: str) -> Span:
    sequence, _, rest = text.partition(":")
    places, _, rows = rest.partition("=")
    start, stop = (int(each) for each in places.rstrip("!").split("-"))
    if rows:
        first, _, last = rows.partition("-")
        wanted = range(int(first), int(last or first) + 1)
    else:
        wanted = range(stop + 1, stop + 1)
    decode = places.endswith("!")
    return Span(int(sequence), start, stop + 1, wanted.start, decode, rows_to=wanted.stop)


def same(step: Step) -> list[tuple[int, int, int, bool, list[int], int]]:
    """Whichever way a span says which rows it wants."""
    return [(s.sequence, s.start, s.stop, s.decode, list(s.rows), s.position_shift) for s in step]


@pytest.mark.parametrize("path", STEPS)
def test_a_path_computes_these_steps(path: str) -> None:
    for workload, text in STEPS[path].items():
        found = plan(path, workload)
        assert list(map(same, found.schedule)) == list(map(same, read(text))), workload
        longest = max((s.stop - s.start for step in read(text) for s in step), default=0)
        assert found.layout.chunk == longest


@pytest.mark.parametrize("workload", [TWO, ONE_TOKEN, ALONE])
def test_permuted_computes_all_of_everybody_in_one_step(
    workload: tuple[tuple[int, ...], int],
) -> None:
    found = plan("permuted", workload)
    (step,) = found.schedule
    others = enumerate(found.members[len(workload[0]) :], len(workload[0]))
    wanted = same(tuple(span for each in read(WHOLE[workload]) for span in each))
    wanted += [(n, 0, member.length, False, [], 0) for n, member in others]
    assert sorted(same(step)) == wanted


OTHERS = {
    "decode": (),
    "prefix(2)": (Member("(donor)/w/0", 4, 3, "w/0", 2),),
    "prefix-paged(2)": (Member("(donor)/w/0", 4, 3, "w/0", 2),),
    "batched": (Member("(stranger)/0", 5, 2), Member("(stranger)/1", 11, 8)),
    "mixed": (Member("(stranger)/0", 5, 2), Member("(stranger)/1", 11, 8)),
    "batched(3)": (Member("(stranger)/3/0/0", 4, 1),),
    "batched(5)": tuple(Member(f"(stranger)/5/0/{n}", 4 + n, 1 + n) for n in range(3)),
    "uniform": tuple(
        Member(f"(stranger)/w/{i}/{n}", length, prompt)
        for i, (length, prompt) in enumerate([(6, 3), (4, 1)])
        for n in range(2)
    ),
}


@pytest.mark.parametrize("path", OTHERS)
def test_the_neighbours_of_a_path(path: str) -> None:
    own = (Member("w/0", 6, 3), Member("w/1", 4, 1))
    assert plan(path, TWO).members == own + OTHERS[path]


def test_strangers_of_groups_have_names_of_their_own() -> None:
    found = plan("batched(4)", ((3,) * 5, 2))
    assert [m.id for m in found.members[5:]] == [f"(stranger)/4/4/{n}" for n in range(3)]
    steps = [[span.sequence for span in step] for step in found.schedule]
    assert steps == [[0, 1, 2, 3]] * 2 + [[5, 6, 7, 4]] * 2


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ((1,), (2, 6)),
        ((2,), (3, 7)),
        ((2, 3), (4, 8)),
        ((2, 3, 4, 9), (5, 14)),
        ((9, 14), (2, 19)),
        ((4, 96), (2, 101)),
        ((4, 200), (2, 101)),
        ((101, 200), (2, 102)),
        ((101, 102, 104), (2, 103)),
        ((*range(2, 101), 200), (101, 102)),
    ],
)
def test_strangers_have_other_lengths_than_the_workload(
    lengths: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    found = plan("batched", (lengths, 3)).members[len(lengths) :]
    assert tuple(member.prompt for member in found) == wanted
    assert tuple(member.length for member in found) == tuple(n + 3 for n in wanted)


@pytest.mark.parametrize("path", ["prefix(2)", "prefix-paged(2)"])
def test_a_prefix_is_adopted_once_the_donor_has_it(path: str) -> None:
    assert plan(path, TWO).actions == (Action(1, "adopt", 0, 2, 2),)
    assert plan(path, ONE_TOKEN).actions == (Action(2, "adopt", 1, 2, 2),)
    both = plan(path, ((3, 4), 2))
    assert both.actions == (Action(1, "adopt", 0, 2, 2), Action(5, "adopt", 1, 3, 2))


LAYOUTS = {
    "mixed": Layout(empties=True),
    "permuted": Layout(empties=True),
    "uniform": Layout(slack=-1),
}


@pytest.mark.parametrize("path", LAYOUTS)
def test_how_batches_lie(path: str) -> None:
    assert replace(plan(path, TWO).layout, chunk=0) == LAYOUTS[path]


@pytest.mark.parametrize("seed", range(4))
def test_two_members_are_never_in_their_own_order(seed: int) -> None:
    found = plan("permuted", ((1,), 1), seed)
    assert [span.sequence for span in found.schedule[0]] != [0, 1, 2]


def test_a_plan_of_two_resets_is_used_from_the_last_on() -> None:
    """An adoption is no reset."""
    found = plan("reset", TWO)
    again = replace(found, actions=(Action(3, "reset"), Action(6, "reset"), Action(9, "adopt")))
    assert (found.warm_up, again.warm_up) == (6, 6)
    assert replace(again, actions=again.actions[2:]).warm_up == 0


THREE = (Member("a", 5, 2), Member("b", 3, 1), Member("c", 4, 1))


def test_what_a_reset_and_an_adoption_count_for() -> None:
    steps = read("0:0-2 1:0-1 | 0:0-2 2:0-1 | 1:2-2 0:3-4")
    actions = [Action(1, "reset"), Action(2, "adopt", 1, 2, 2)]
    check_schedule(THREE, steps, actions)
    with pytest.raises(ValueError, match="sequence 0 is filled to 3, but the span starts at 0"):
        check_schedule(THREE, steps, actions[1:])
    with pytest.raises(ValueError, match=r"1 is filled to 0, but the span starts at 2"):
        check_schedule(THREE, steps, actions[:1])
    check_schedule(THREE, steps, [*actions, Action(3, "adopt", 0, 0, 9)])  # after the last step


@pytest.mark.parametrize(
    ("sequence", "tokens", "words"),
    [
        (1, 3, "sequence 1 (filled to 0) cannot adopt 3 tokens of sequence 0 (filled to 2)"),
        (1, 0, "sequence 1 (filled to 0) cannot adopt 0 tokens of sequence 0 (filled to 2)"),
        (2, 1, "sequence 2 (filled to 1) cannot adopt 1 tokens of sequence 0 (filled to 2)"),
    ],
)
def test_what_cannot_be_adopted(sequence: int, tokens: int, words: str) -> None:
    steps = read("0:0-1 2:0-0 | 1:2-2")
    with pytest.raises(ValueError) as error:  # noqa: PT011 - its whole text is compared below
        check_schedule(THREE, steps, [Action(1, "adopt", sequence, 0, tokens)])
    assert str(error.value) == words
    check_schedule(THREE, steps, [Action(1, "adopt", 1, 0, 2)])


def test_as_few_as_one_token_can_be_adopted() -> None:
    check_schedule(THREE, read("0:0-1 | 1:1-2"), [Action(1, "adopt", 1, 0, 1)])


def test_what_is_not_said_of_a_plan() -> None:
    """Paths say only what is special in them; the rest is this."""
    found = plan("prefill", TWO)
    assert found.layout == Layout(
        batch="packed", page=0, slack=3, cached=True, chunk=6, program="eager", empties=False,
        far=False,
    )  # fmt: skip
    assert (found.generate, found.actions) == (False, ())
    assert all((member.like, member.shared) == ("", 0) for member in found.members)
    assert Member("a", 2) == Member("a", 2, prompt=1, like="", shared=0)
    (reset,) = plan("reset", TWO).actions
    assert (reset.sequence, reset.donor, reset.tokens) == (0, 0, 0)
    span = plan("decode", TWO).schedule[0][0]
    assert (span.decode, span.position_shift) == (False, 0)
