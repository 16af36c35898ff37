"""What the loop of generate() is asked for, over a model that computes nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_subject import Model
from torch import Tensor

from kvparity.subjects.base import SubjectError
from kvparity.subjects.hf import generate as generation
from kvparity.subjects.hf.run_counts import Observation


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_generate_is_asked_for_one_greedy_sequence(static: bool, watched: bool) -> None:
    model, shown, steps, drawn = Model(), [], [], [2, 0, 1, 2]

    def choose(position: int, row: Tensor) -> int:
        shown.append((position, row.tolist()))
        return drawn[position - 3]

    seen = Observation(cache=SimpleNamespace(layers=[]))

    def after(view: Any, filled: int) -> None:
        place = view.places[0]
        assert (place.cache, place.row, place.columns) == (seen.cache, 0, filled)
        steps.append((place.slots, filled))

    generation.generate(
        model, "w/0", [1, 1, 1], 7, choose, static=static, pad_token=2, seen=seen,
        after_step=after if watched else None,
    )  # fmt: skip
    assert shown == [(position, [0.0, 1.0, 2.0]) for position in range(3, 7)]
    # Nothing follows the last token.
    assert steps == ([([*range(n)], n) for n in range(3, 6)] if watched else [])
    for row, token in zip(model.left, drawn, strict=True):
        assert row == [0.0 if i == token else -float("inf") for i in range(3)]
    wanted = {
        "max_new_tokens": 4, "do_sample": False, "num_beams": 1, "use_cache": True,
        "cache_implementation": "static" if static else None, "disable_compile": True,
        "pad_token_id": 2, "eos_token_id": None, "bos_token_id": None, "mask": [[1, 1, 1]],
    }  # fmt: skip
    assert {name: model.asked[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ids: ids[:, :-1], "returned 4 tokens of which 4 are the chosen ones; expected 5"),
        (lambda ids: ids + (ids * 0).index_fill(1, torch.tensor([4]), 1), "5 tokens of which 4"),
        (lambda ids: torch.cat([ids, ids[:, :1]], dim=1), "returned 6 tokens of which 5"),
    ],
)
def test_a_loop_that_did_not_follow_is_an_error(spoil: Any, words: str) -> None:
    model = Model()
    model.spoil = spoil
    how: dict[str, Any] = {"static": False, "pad_token": 0, "seen": Observation()}
    with pytest.raises(SubjectError, match=words):
        generation.generate(model, "w/0", [1, 1], 5, lambda p, row: 1, after_step=None, **how)
