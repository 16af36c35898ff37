"""A pair whose cache is written by a function of its own: writer and reader in one claim."""

from __future__ import annotations

import re
from typing import Any

import pytest
from engine_calls import caught, differs, run, setting
from spied_pair import MEMBERS, prefill
from spied_pair import run as step

from kvparity.plan.schedule import Layout
from kvparity.subjects.base import SubjectError

PATHS = ["decode", "batched", "chunked(24)", "verify(2)", "prefix(17)", "reset"]
PAGES = {"decode": "paged_pair.py:decode", "page": 2}
CONTROL = "append-writes-padding"


def writing(append: str, paths: list[str] | None = None, **more: Any) -> Any:
    pair = {"append": f"paged_pair.py:{append}"} | more
    module = "paged_pair.py" if "page" in more else "naive_pair.py"
    return setting(paths or ["decode", "batched"], [CONTROL], module=module, **pair)


@pytest.mark.parametrize(
    "more",
    [
        {},
        PAGES,
        {"layout": "head-slot", "kv_cache": "bfloat16"},
        {"layout": "interleaved"},
        PAGES | {"layout": "head-major"},
    ],
    ids=["caches", "pages", "head-slot, narrow", "interleaved", "head-major"],
)
def test_a_right_writer_holds_and_the_control_is_caught(more: dict[str, Any]) -> None:
    found = writing("append", PATHS, **more)
    assert {path: each.outcome for path, each in run(found).items()} == dict.fromkeys(
        PATHS, "holds"
    )
    assert caught(found) == {CONTROL: True}


@pytest.mark.parametrize("more", [{}, PAGES], ids=["caches", "pages"])
@pytest.mark.parametrize(
    ("append", "words"),
    [
        ("append_before", "append_before changed v in slot [0-9]+, which it was not given"),
        (
            "append_all_but_one",
            "append_all_but_one left another v in slot [0-9]+ than it was given",
        ),
        ("append_keys_twice", "append_keys_twice left another v in slot [0-9]+ than it was given"),
        ("append_padding", "append_padding changed v in slot 0, which it was not given"),
    ],
)
def test_a_wrong_writer_differs_and_its_slot_is_named(
    append: str, words: str, more: dict[str, Any]
) -> None:
    found = writing(append, **more)
    padding = append == "append_padding"
    assert differs(run(found)) == ({"batched"} if padding else {"decode", "batched"})
    session = found.subject.session(MEMBERS, Layout(empties=True))
    step(session, prefill(0, 4), prefill(1, 5))
    assert re.fullmatch(f"paged_pair.py:{words}", session.faults()[0])


@pytest.mark.parametrize(
    ("append", "words"),
    [
        ("append_spoils", "append_spoils wrote to its input k"),
        ("append_raises", "append_raises raised ZeroDivisionError: no blocks"),
    ],
)
def test_a_writer_that_spoils_or_raises_is_an_error(append: str, words: str) -> None:
    with pytest.raises(SubjectError, match=words):
        run(writing(append))
