"""Processes that work together: one that dies, raises or hangs ends all, in one sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvparity.core.errors import SubjectError
from kvparity.core.isolation import ranks
from kvparity.core.isolation.pool import InternalError


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    ranks.end()


def test_ranks_stay_for_the_next_group_and_end_when_asked() -> None:
    first = ranks.together(os.getpid, [(), ()], 30)
    assert len({*first, os.getpid()}) == 3
    assert ranks.together(os.getpid, [()], 30) == first[:1]
    ranks.end()
    assert not any(Path(f"/proc/{pid}").exists() for pid in first)


@pytest.mark.parametrize(
    ("function", "given", "error", "words"),
    [
        pytest.param(
            os._exit, [(3,), (3,)], SubjectError,
            "rank . is gone: the subject ended the process with exit code 3, in starting$",
            marks=pytest.mark.slow,
        ),
        (os.kill, [(0, 0), "self"], SubjectError,
         "rank 1 is gone: the subject's process was killed by SIGKILL.*, in "),
        pytest.param(
            int, [("1",), ("one",)], InternalError, "rank 1 of 2: ValueError: invalid literal",
            marks=pytest.mark.slow,
        ),
        (time.sleep, [(0,), (60,)], SubjectError,
         "not done after 1 s, the limit: rank 1 in starting$"),
    ],
    ids=["ends", "is killed", "raises", "hangs"],
)  # fmt: skip
def test_one_that_does_not_answer_ends_all_in_one_sentence(
    function: Callable[..., object], given: list[Any], error: type[Exception], words: str
) -> None:
    pids = [int(str(pid)) for pid in ranks.together(os.getpid, [(), ()], 30)]
    given = [(pids[1], 9) if each == "self" else each for each in given]
    start = time.monotonic()
    with pytest.raises(error, match=f"^{words}") as caught:
        ranks.together(function, given, 1 if function is time.sleep else 30)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 10
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    # The next group starts anew.
    assert ranks.together(abs, [(-1,), (-2,)], 30) == [1, 2]
