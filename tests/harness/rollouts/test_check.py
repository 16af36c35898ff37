"""A sequence is checked: each rule, its neighbour that passes, and the words of what fails."""

from __future__ import annotations

import numpy as np
import pytest

from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.check import Checker
from kvparity.rollouts.record import RawRollout, Rollout, RolloutError, Sampling

LARGEST = 2147483647
"""Ids are at most an int32."""


def raw(**changes: object) -> RawRollout:
    given: dict[str, object] = {
        "at": "r.jsonl:1",
        "sequence": "s",
        "prompt_ids": [1, 2],
        "response_ids": [3, 4, 5],
        "logprobs": [-1.0, -2.0, -3.0],
    }
    return RawRollout(**(given | changes))  # type: ignore[arg-type]


def checked(vocabulary: int | None = None, **changes: object) -> tuple[Rollout, Anomalies]:
    told = Anomalies()
    return Checker(told, vocabulary).rollout(raw(**changes)), told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"response_ids": [3, 4, 10]}, "response_ids[2] is 10; expected ids from 0 to 9"),
        ({"response_ids": [3, -1, 10]}, "response_ids[1] is -1; expected ids from 0 to 9"),
        ({"prompt_ids": [10, 2]}, "prompt_ids[0] is 10; expected ids from 0 to 9"),
        ({"prompt_ids": [9, 2**64]}, f"prompt_ids[1] is {2**64}; expected ids from 0 to 9"),
        ({"prompt_ids": [0, -(2**64)]}, f"prompt_ids[1] is {-(2**64)}; expected ids from 0 to 9"),
        ({"logprobs": [-1.0, 0.5, 0.25]}, "logprobs[1] is 0.5; a logprob is never above 0"),
        ({"trainer_logprobs": [1.0, -1, -1]}, "trainer_logprobs[0] is 1.0; a logprob is never"),
        ({"logprobs": [-1.0, -2.0]}, "response_ids 3, logprobs 2; expected one value for each"),
        ({"mask": [1, 1]}, "response_ids 3, logprobs 3, mask 2; expected one value for each"),
        ({"trainer_logprobs": [-1.0]}, "logprobs 3, trainer_logprobs 1; expected one value for"),
        ({"prompt_logprobs": [-1.0]}, "prompt_ids 2, prompt_logprobs 1; expected one value each"),
        ({"mask": [1, 0.5, 2]}, "mask[1] is 0.5; expected 0 or 1"),
        ({"mask": [1, 0, -1]}, "mask[2] is -1; expected 0 or 1"),
        ({"logprobs": None}, "it has no logprobs"),
        ({"sampling": Sampling(temperature=-0.5)}, "temperature is -0.5; expected a finite number"),
        ({"sampling": Sampling(temperature=np.inf)}, "temperature is inf; expected a finite"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p is 0.0; expected a number above 0, at most 1"),
        ({"sampling": Sampling(top_p=1.5)}, "top_p is 1.5; expected a number above 0, at most 1"),
        ({"routes": [[1, 2]] * 5}, "routes is no list of [tokens, layers, experts] for 5 tokens"),
        ({"routes": [[[1]]] * 3}, "routes is no list of [tokens, layers, experts] for 5 tokens"),
        ({"routes": [[[1]]] * 6}, "routes is no list of [tokens, layers, experts] for 5 tokens"),
        ({"routes": [[[1]], [[1], [2]]]}, "routes is no list of [tokens, layers, experts]"),
        ({"routes": [[[2**40]]] * 5}, "routes is no list of [tokens, layers, experts]"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RolloutError) as told:
        checked(10, **changes)
    assert str(told.value).startswith("r.jsonl:1: sequence s: ")
    assert words in str(told.value)


@pytest.mark.parametrize("name", ["sequence", "weight"])
def test_half_a_character(name: str) -> None:
    odd = {"sequence": "a\ud800"} if name == "sequence" else {"weight_versions": ("a", "\udfff")}
    with pytest.raises(RolloutError, match=rf"r\.jsonl:1: {name} '.*' has half a character"):
        checked(**odd)
    plain = {"sequence": "\ud7ff\ue000"}
    assert checked(**plain)[0].sequence == plain["sequence"]


def test_edges_that_pass() -> None:
    found, told = checked(
        10,
        prompt_ids=[0, 9],
        mask=[1, 0, 1],
        logprobs=[-1.0, 5.0, -2.0],  # above 0 where no loss is taken
        sampling=Sampling(temperature=0.0, top_p=1.0),
        routes=[[[1]]] * 4,
    )
    assert found.mask.tolist() == [True, False, True]
    assert found.unusable.tolist() == [False] * 3
    assert found.routes is not None
    assert found.routes.dtype == np.int32
    assert not told.counts
    assert checked(prompt_ids=[LARGEST])[0].prompt_ids.tolist() == [LARGEST]  # type: ignore[union-attr]
    with pytest.raises(RolloutError, match=rf"is {LARGEST + 1}; expected ids from 0 to {LARGEST}$"):
        checked(prompt_ids=[LARGEST + 1])
    with pytest.raises(RolloutError, match=rf"from 0 to {LARGEST}$"):
        checked(2**40, prompt_ids=[LARGEST + 1])
    assert checked(prompt_ids=None, routes=[[[1]]])[0].routes is not None  # of unknown length


@pytest.mark.parametrize("values", ["logprobs", "trainer_logprobs"])
def test_what_is_no_logprob_is_told_and_not_compared(values: str) -> None:
    numbers = [-1.0, None, float("nan"), -np.inf, -9999.0, 0.0, -0.1, 2.0]
    mask = [1, 1, 1, 1, 1, 1, 1, 0]
    given = {"logprobs": [-1.0] * 8} | {values: numbers}
    found, told = checked(response_ids=list(range(8)), mask=mask, **given)
    assert found.mask.tolist() == [True, *[False] * 4, True, True, False]
    assert found.unusable.tolist() == [False, *[True] * 4, False, False, False]
    assert told.counts.keys() == told.examples.keys()
    assert {kind: [each.token for each in told.examples[kind]] for kind in told.examples} == {
        Anomaly.MISSING: [1],
        Anomaly.NOT_FINITE: [2, 3],
        Anomaly.SENTINEL: [4],
        Anomaly.ZERO: [5],
        Anomaly.ROUNDED: [6],
    }


def test_nothing_is_left() -> None:
    assert [*checked(mask=[0, 0, 0])[1].counts] == [Anomaly.NO_TOKEN]
    trainer = {"logprobs": None, "trainer_logprobs": [-1.0, -2.0, -3.0]}
    assert checked(**trainer)[0].mask.tolist() == [True] * 3
    assert [*checked(mask=[0, 0, 0], **trainer)[1].counts] == [Anomaly.NO_TOKEN]
    only_prompt = {"logprobs": None, "prompt_logprobs": [None, -1.0], "mask": [0, 0, 0]}
    assert not checked(**only_prompt)[1].counts
    bare = checked(**only_prompt | {"response_ids": None, "mask": None, "prompt_ids": None})[0]
    assert bare.mask.size == 0
    both = {"response_ids": None, "prompt_ids": None}
    assert [*checked(**both)[1].counts] == [Anomaly.NO_IDS]
    assert [*checked(prompt_ids=None)[1].counts] == [Anomaly.NO_PROMPT]
