"""Every layout gives the same rollout; what a file lacks is said, and how to record it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rollouts.recorded import (
    LAYOUTS,
    SEQUENCES,
    VOCABULARY,
    routes,
    sglang_scores,
    vllm_scores,
    written,
)

from kvparity.rollouts import RolloutError, read_rollouts
from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.open import LAYOUTS as READERS
from kvparity.rollouts.open import layout_of

NO_MASK = {"TRL server", "vLLM answers", "vLLM answers, with requests"}
NO_MASK |= {"SGLang answers, with requests"}
BOTH = {"prime-rl token export", "slime train shard", "verl batch", "TRL batch"}
BOTH |= {"OpenRLHF experience"}
ROUTES = {"prime-rl tokens", "verifiers trajectory", "slime rollout"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_the_rollout(layout: str, tmp_path: Path) -> None:
    document = LAYOUTS[layout]()
    name = layout.strip()
    path = written(document, tmp_path / ("r.jsonl" if isinstance(document, list) else "r.json"))
    assert layout_of(path) == name
    read = list(read_rollouts(path, vocabulary=VOCABULARY))
    assert len(read) == len(SEQUENCES)
    for found, each in zip(read, SEQUENCES, strict=True):
        mask = [True] * len(each.mask) if name in NO_MASK else [bool(it) for it in each.mask]
        n = len(each.response)
        assert found.prompt_ids is None or found.prompt_ids.tolist() == list(each.prompt)
        assert (found.prompt_ids is None) == (name == "tinker datum")
        assert found.response_ids is not None
        assert found.response_ids.tolist()[:n] == list(each.response)
        assert found.mask.tolist() == mask + [False] * (found.mask.size - n)
        assert found.logprobs is not None
        assert found.logprobs.dtype == np.float32
        assert found.logprobs[:n].tolist() == list(each.rollout)
        assert (found.trainer_logprobs is not None) == (name in BOTH)
        if found.trainer_logprobs is not None:
            assert found.trainer_logprobs[:n].tolist() == list(each.trainer)
        assert (found.routes is not None) == (name in ROUTES)
        if found.routes is not None:
            assert found.routes.tolist() == routes(each)


def test_every_layout_has_a_row() -> None:
    assert {layout.name for layout in READERS} - {name.strip() for name in LAYOUTS} == {
        "a tensor of logprobs",
        "SGLang answers",
    }


@pytest.mark.parametrize("layout", ["slime rollout", "slime train shard", "verl batch"])
def test_torch_files_are_read(layout: str, tmp_path: Path) -> None:
    document = LAYOUTS[layout]()
    assert isinstance(document, dict)
    if layout == "verl batch":
        document = {name: torch.tensor(rows) for name, rows in document.items()}
    torch.save(document, tmp_path / "r.pt")
    found = next(read_rollouts(tmp_path / "r.pt"))
    assert found.logprobs is not None
    assert found.logprobs[:3].tolist() == list(SEQUENCES[0].rollout)


class _Proto:
    """Stands for an object that only pickle could load."""


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    torch.save({"batch": _Proto()}, tmp_path / "r.pt")
    with pytest.raises(RolloutError, match="can run code and are never loaded"):
        list(read_rollouts(tmp_path / "r.pt"))
    (tmp_path / "r.pkl").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(RolloutError, match="can run code and are never loaded"):
        list(read_rollouts(tmp_path / "r.pkl"))


@pytest.mark.parametrize(("scores", "replaced"), [(vllm_scores, 0), (sglang_scores, 1)])
def test_scores_of_a_prompt(scores: object, replaced: int, tmp_path: Path) -> None:
    assert callable(scores)
    path = written([scores(each) for each in SEQUENCES], tmp_path / "r.json")
    anomalies = Anomalies()
    for found, each in zip(read_rollouts(path, anomalies), SEQUENCES, strict=True):
        assert found.prompt_ids is not None
        assert found.prompt_logprobs is not None
        assert found.prompt_ids.tolist() == [*each.prompt, *each.response]
        assert np.isnan(found.prompt_logprobs[0])
        assert found.prompt_logprobs[len(each.prompt) :].tolist() == list(each.trainer)
    assert anomalies.counts[Anomaly.REPLACED_ID] == replaced


def _slime(**change: object) -> object:
    document = json.loads(json.dumps(LAYOUTS["slime rollout"]()))
    document["samples"][1] |= change
    return document


def _vllm(**change: object) -> object:
    document = json.loads(json.dumps(LAYOUTS["vLLM answers, with requests"]()))
    document[0]["response"]["choices"][0] |= change
    return document


def _tinker(token: float | None) -> object:
    ids = {"data": [4, token, 5]}
    return [{"loss_fn_inputs": {"target_tokens": ids, "logprobs": {"data": [-1.0, -1.0, -1.0]}}}]


def _named(*tokens: str) -> object:
    logprobs = {"content": [{"token": each, "logprob": -1.0} for each in tokens]}
    return [{"choices": [{"index": 0, "message": {}, "logprobs": logprobs}]}]


REFUSED = {
    "an id that is infinite": (_tinker(math.inf), r"target_tokens\[1\] is inf; expected the id of"),
    "an id between two": (_tinker(3.5), r"target_tokens\[1\] is 3.5; expected the id of a token"),
    "an id that is none": (_named("token_id:3", "token_id:x"), "no ids of their tokens"),
    "longer list": (
        _slime(rollout_log_probs=[-1.0, -1.0, -1.0]),
        "sequence rollout0.1: its lists differ in length: response_length 2, rollout_log_probs 3, "
        "loss_mask 2",
    ),
    "mask that does not fit": (_slime(loss_mask=[1]), "lists differ in length.* loss_mask 1"),
    "mask of other numbers": (_slime(loss_mask=[1, 2]), r"loss_mask\[1\] is 2; expected 0 or 1"),
    "id outside": (
        _slime(tokens=[2, 7, 1, 8, 12]),
        r"response_length\[1\] is 12; expected ids from 0 to 11",
    ),
    "probabilities": (
        _slime(rollout_log_probs=[0.5, 0.5]),
        r"rollout_log_probs\[0\] is 0.5; a logprob is never above 0: are these probabilities",
    ),
    "no logprobs": (_slime(rollout_log_probs=None), "rollout0.1 has no rollout_log_probs"),
    "longer than its tokens": (_slime(response_length=9), "response_length is 9, and there are 5"),
    "text instead of ids": (_vllm(token_ids=None), "no ids of their tokens: request it with retur"),
    "nothing was asked for": (_vllm(logprobs=None), "has no logprobs: request it with logprobs: 1"),
    "words": (_slime(rollout_log_probs=["a", 1]), r"samples\[1\].rollout_log_probs\[0\].*: Input"),
    "verl's data dir": (
        [{"input": "a", "output": "b", "gts": None, "score": 1.0, "step": 1}],
        "looks like verl rollout_data_dir: it holds texts, no token ids and no logprobs. Save the",
    ),
    "TRL's completions": (
        [{"step": 1, "prompt": "a", "completion": "b", "advantage": 0.1}],
        "looks like TRL log_completions: it holds texts",
    ),
    "something else": ([{"a": 1}], r"is of no layout that kvparity knows \(fields: a\)"),
    "two at once": (
        [{**LAYOUTS["prime-rl tokens"]()[0], "logprobs": []}],  # type: ignore[index]
        "could be prime-rl tokens and TRL server",
    ),
    "a list of numbers": ([1, 2], "is 1; expected an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_one_sentence(case: str, tmp_path: Path) -> None:
    document, message = REFUSED[case]
    path = written(document, tmp_path / "r.json")
    with pytest.raises(RolloutError, match=message) as error:
        list(read_rollouts(path, vocabulary=VOCABULARY))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is neither JSON nor JSON Lines"),
        (b'{"a": 1}\n{"b"', r":2 is no JSON.*the file ends in the middle of this line"),
        (b"PK\x03\x04 and no more", "is no whole file of torch.save"),
        (b"PAR1 and no more", "is no whole Parquet file"),
    ],
)
def test_a_file_that_is_none(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r"
    if content.startswith(b'{"a"'):
        content = content.replace(b'{"a": 1}', json.dumps(LAYOUTS["prime-rl tokens"]()[0]).encode())  # type: ignore[index]
    path.write_bytes(content)
    with pytest.raises(RolloutError, match=message):
        list(read_rollouts(path))


def test_lines_of_two_layouts_are_refused(tmp_path: Path) -> None:
    documents = [LAYOUTS["prime-rl tokens"]()[0], LAYOUTS["vLLM answers"]()[0]]  # type: ignore[index]
    path = written(documents, tmp_path / "r.jsonl")
    with pytest.raises(RolloutError, match=r"r.jsonl:2 is not of the layout of those before it"):
        list(read_rollouts(path))


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    """A line that is torn does not keep those before it from being read."""
    path = written(LAYOUTS["prime-rl tokens"](), tmp_path / "r.jsonl")
    with path.open("a") as file:
        file.write('{"prompt_ids": [1')
    read = read_rollouts(path)
    assert [next(read).sequence for _ in SEQUENCES] == ["1", "2", "3"]
    with pytest.raises(RolloutError, match=r":4 is no JSON"):
        next(read)
