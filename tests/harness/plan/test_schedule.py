from __future__ import annotations

import pytest

from kvparity.plan.schedule import Member, Span, check_schedule

TWO = (Member("a", 5, 2), Member("b", 3, 1))


def test_rows_are_the_end_of_a_span_unless_said() -> None:
    assert list(Span(0, 2, 6, rows_from=4).rows) == [4, 5]
    assert list(Span(0, 2, 6, rows_from=2, rows_to=4).rows) == [2, 3]
    assert list(Span(0, 2, 6, rows_from=6).rows) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 3, "stop": 3, "rows_from": 3}, "empty or negative span: 3..3"),
        ({"start": -1, "stop": 3, "rows_from": 0}, "empty or negative span"),
        ({"start": 2, "stop": 4, "rows_from": 1}, "outside 2..4"),
        ({"start": 2, "stop": 4, "rows_from": 5}, "outside 2..4"),
        ({"start": 2, "stop": 4, "rows_from": 3, "rows_to": 5}, "outside 2..4"),
        ({"start": 2, "stop": 4, "rows_from": 4, "rows_to": 3}, "outside 2..4"),
        ({"start": 2, "stop": 4, "rows_from": 3, "decode": True}, "exactly one position"),
    ],
)
def test_a_span_that_means_nothing_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Span(0, **arguments)


def span(sequence: int, start: int, stop: int) -> Span:
    return Span(sequence, start, stop, rows_from=stop)


def test_a_schedule_in_order_is_accepted() -> None:
    check_schedule(TWO, [(span(0, 0, 2), span(1, 0, 3)), (span(0, 2, 5),)])
    check_schedule(TWO, [(span(0, 0, 2),)])  # a rollout stops before the end
    check_schedule(TWO, [])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([(span(0, 0, 2), span(0, 2, 3))], "step 0 holds two spans of sequence 0"),
        ([(span(0, 0, 2),), (span(0, 3, 4),)], "step 1: sequence 0 is filled to 2, .* starts at 3"),
        ([(span(0, 0, 2),), (span(0, 1, 4),)], "filled to 2, .* starts at 1"),
        ([(span(1, 0, 4),)], "step 0 runs past the end of sequence 1"),
    ],
)
def test_a_gap_an_overlap_or_an_overrun_is_refused(
    schedule: list[tuple[Span, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(TWO, schedule)
