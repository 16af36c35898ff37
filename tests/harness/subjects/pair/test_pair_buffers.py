"""A pair that writes into the tensor it is given: wholly, and nothing beside it."""

from __future__ import annotations

from typing import Any

import pytest
from engine_calls import caught, differs, run, setting

from kvparity.subjects.base import SubjectError

CONTROL = "out-left-unwritten"


def buffered(decode: str = "decode_out", **more: Any) -> Any:
    pair = {"prefill": "paged_pair.py:prefill_out", "decode": f"paged_pair.py:{decode}"}
    return setting(
        ["decode", "batched", "chunked(24)"], [CONTROL], **{"out": "given"} | pair | more
    )


@pytest.mark.parametrize("inputs", ["strided", "contiguous"])
def test_a_right_pair_holds_and_the_control_is_caught(inputs: str) -> None:
    found = buffered(inputs=inputs)
    assert differs(run(found)) == set()
    assert caught(found) == {CONTROL: True}


def test_what_is_not_written_differs() -> None:
    assert differs(run(buffered("decode_out_skips"))) == {"decode", "batched"}


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        ("decode_out_beside", "wrote beside the out that it was given"),
        ("decode_out_other", "returned another tensor than the out that it was given"),
    ],
)
def test_another_out_or_memory_beside_it_is_an_error(decode: str, words: str) -> None:
    with pytest.raises(SubjectError, match=f"{decode} {words}"):
        run(buffered(decode))


def test_it_is_given_only_where_it_is_declared() -> None:
    with pytest.raises(SubjectError, match="missing 1 required keyword-only argument: 'out'"):
        run(buffered(out="returned"))
