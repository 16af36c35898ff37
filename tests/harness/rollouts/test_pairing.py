"""Two sides are matched by their tokens, whatever the order and the form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rollouts.recorded import (
    LAYOUTS,
    SEQUENCES,
    Drawn,
    sglang_scores,
    vllm_rollout,
    vllm_scores,
    written,
)

from kvparity.rollouts import Rollout, RolloutError, RolloutWriter, read_rollouts
from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.pairing import Matched, both_recorded, paired
from kvparity.rollouts.tokens import ScoredSequence, Tokens


def _read(document: object, path: Path) -> list[Rollout]:
    return list(read_rollouts(written(document, path)))


def _paired(
    left: list[Rollout], right: list[Rollout], anomalies: Anomalies | None = None
) -> tuple[list[ScoredSequence], Matched]:
    matched = Matched()
    found = paired(iter(left), iter(right), matched, anomalies or Anomalies())
    return list(found), matched


def _check(found: list[ScoredSequence], order: tuple[Drawn, ...] = SEQUENCES) -> None:
    for each, drawn in zip(found, order, strict=True):
        at = np.flatnonzero(drawn.mask)
        assert each.rollout.tolist() == [drawn.rollout[i] for i in at]
        assert each.trainer.tolist() == [drawn.trainer[i] for i in at]
        assert each.positions.tolist() == [len(drawn.prompt) + i for i in at]
        assert each.token_ids.tolist() == [drawn.response[i] for i in at]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("scores", [vllm_scores, sglang_scores])
def test_a_rollout_with_its_scores(
    scores: Callable[[Drawn], object], order: tuple[int, ...], tmp_path: Path
) -> None:
    left = _read(LAYOUTS["prime-rl tokens"](), tmp_path / "a.json")
    right = _read([scores(SEQUENCES[at]) for at in order], tmp_path / "b.json")
    found, matched = _paired(left, right)
    _check(found)
    assert (matched.pairs, matched.unmatched, matched.unused) == (3, [], [])


def test_one_recording_with_both_sides(tmp_path: Path) -> None:
    matched = Matched()
    read = _read(LAYOUTS["prime-rl token export"](), tmp_path / "a.json")
    _check(list(both_recorded(iter(read), matched)))
    assert matched.pairs == 3
    alone = _read(LAYOUTS["prime-rl tokens"](), tmp_path / "b.json")
    with pytest.raises(RolloutError, match="sequence 0 has logprobs of one side alone: name what"):
        list(both_recorded(iter(alone), matched))


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    left = _read(LAYOUTS["prime-rl tokens"](), tmp_path / "a.json")
    stranger = Drawn((5,), (5,), (1,), (-1.0,), (-1.0,))
    right = _read([vllm_scores(e) for e in (*SEQUENCES[1:], stranger)], tmp_path / "b.json")
    found, matched = _paired(left, right)
    _check(found, SEQUENCES[1:])
    assert (matched.pairs, matched.unmatched, matched.unused) == (2, ["0"], ["2"])


def test_a_sequence_is_taken_once(tmp_path: Path) -> None:
    left = _read(LAYOUTS["prime-rl tokens"](), tmp_path / "a.json")
    found, matched = _paired([left[0], left[0]], [left[0]])
    assert (len(found), matched.unmatched) == (1, ["0"])


def test_another_token_is_no_match(tmp_path: Path) -> None:
    """Also behind the first tokens, by which candidates are looked up."""
    long = Drawn(tuple(range(10)), (1,), (1,), (-1.0,), (-1.0,))
    other = Drawn((*range(9), 3), (1,), (1,), (-1.0,), (-1.0,))
    read = _read([vllm_scores(each) for each in (long, other)], tmp_path / "b.json")
    for first in (0, 1):
        with pytest.raises(RolloutError, match="it is no rollout"):
            _paired([read[first]], [])
    ids = [each.ids for each in read]
    assert ids[0] is not None
    wanted = Rollout("x", ids[0][:10], ids[0][10:], np.ones(1, np.bool_), np.zeros(1, np.float32))
    found, matched = _paired([wanted], [read[1]])
    assert (found, matched.unmatched, matched.unused) == ([], ["x"], ["1"])


@pytest.mark.parametrize("scores", [vllm_scores, sglang_scores])
def test_one_that_goes_on_is_left_for_the_longer(
    scores: Callable[[Drawn], object], tmp_path: Path
) -> None:
    """A sequence that begins another, beside it in either order."""
    short = Drawn((3, 1), (4,), (1,), (-1.0,), (-1.5,))
    longer = Drawn((3, 1), (4, 1), (1, 1), (-1.0, -2.0), (-1.5, -2.5))
    left = _read([vllm_rollout(short), vllm_rollout(longer)], tmp_path / "a.json")
    right = _read([scores(longer), scores(short)], tmp_path / "b.json")
    found, matched = _paired(left, right)
    _check(found, (short, longer))
    assert (matched.unmatched, matched.unused) == ([], [])


def test_a_missing_score_is_found(tmp_path: Path) -> None:
    left = _read(LAYOUTS["prime-rl tokens"](), tmp_path / "a.json")
    document = vllm_scores(SEQUENCES[0])
    choice = document["response"]["choices"][0]  # type: ignore[index]
    choice["prompt_logprobs"][3] = None
    anomalies = Anomalies()
    found, _ = _paired(left[:1], _read([document], tmp_path / "b.json"), anomalies)
    assert found[0].rollout.tolist() == [SEQUENCES[0].rollout[at] for at in (0, 2)]
    assert anomalies.examples[Anomaly.MISSING] == [(Anomaly.MISSING, "0", 1)]


def _line(sequence: str, **fields: object) -> dict[str, object]:
    rest = dict.fromkeys(("prompt_ids", "logprobs"))
    return {**rest, "sequence": sequence, "response_ids": [3, 8, 1], **fields}


def _native(path: Path, *lines: dict[str, object]) -> Path:
    with RolloutWriter(path):
        pass
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


WITHOUT: dict[str, tuple[object, list[int], dict[Anomaly, int]]] = {
    "none": (None, [1, 0, 1], {Anomaly.MISSING: 1}),
    "minus infinity": ("-inf", [1, 0, 1], {Anomaly.NOT_FINITE: 1}),
    "vLLM's": (-9999.0, [1, 0, 1], {Anomaly.SENTINEL: 1}),
    "a number": (-1.5, [1, 1, 1], {}),
}
FORMS = {
    "a response": lambda bad: {"prompt_ids": [5], "logprobs": [-0.25, bad, -0.75]},
    "no prompt": lambda bad: {"logprobs": [-0.25, bad, -0.75]},
    "a scored prompt": lambda bad: {
        "prompt_ids": [5, 3, 8, 1], "response_ids": [],
        "prompt_logprobs": [None, -0.25, bad, -0.75],
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", WITHOUT)
def test_a_logprob_that_is_none_is_told_once_and_in_no_number(
    bad: str, form: str, tmp_path: Path
) -> None:
    """Whatever the other side looks like."""
    value, kept, told = WITHOUT[bad]
    own = _line("a", prompt_ids=[5], logprobs=[-0.25, -1.5, -0.75])
    others = _native(tmp_path / "b.jsonl", _line("b", **FORMS[form](value)))
    anomalies, matched = Anomalies(), Matched()
    read = (read_rollouts(_native(tmp_path / "a.jsonl", own)), read_rollouts(others, anomalies))
    (found,) = paired(*read, matched, anomalies)
    compared = zip([-0.25, -1.5, -0.75], kept, strict=True)
    assert found.trainer.tolist() == [each for each, counts in compared if counts]
    counts = {kind: n for kind, n in anomalies.counts.items() if kind is not Anomaly.NO_PROMPT}
    assert counts == told


@pytest.mark.parametrize("prompt", [{"prompt_ids": [5]}, {}])
def test_a_token_that_the_other_side_leaves_out_is_missing(
    prompt: dict[str, object], tmp_path: Path
) -> None:
    values = {"logprobs": [-0.25, -1.5, -0.75]}
    own = _native(tmp_path / "a.jsonl", _line("a", prompt_ids=[5], **values))
    others = _native(tmp_path / "b.jsonl", _line("b", mask=[1, 0, 1], **values, **prompt))
    anomalies = Anomalies()
    (found,) = paired(read_rollouts(own), read_rollouts(others), Matched(), anomalies)
    assert (found.token_ids.tolist(), anomalies.counts[Anomaly.MISSING]) == ([3, 1], 1)


def test_without_ids_by_place(tmp_path: Path) -> None:
    mask = np.ones(2, np.bool_)
    values = np.array([-1.0, -2.0], dtype=np.float32)

    def side(*lengths: int) -> list[Rollout]:
        return [Rollout(str(i), None, None, mask[:n], values[:n]) for i, n in enumerate(lengths)]

    found, matched = _paired(side(2, 1), side(2, 1))
    assert [each.rollout.size for each in found] == [2, 1]
    assert found[0].token_ids.tolist() == [-1, -1]
    _, matched = _paired(side(2), side(1))
    assert matched.unmatched == ["0"]
    with_ids = Rollout("i", mask[:0].astype(np.int64), np.array([1, 2]), mask, values)
    assert _paired([with_ids], side(2))[1].unmatched == ["i"], "ids are never ignored"


def test_columns() -> None:
    def sequence(name: str, *values: float) -> ScoredSequence:
        x = np.array(values, dtype=np.float32)
        return ScoredSequence(name, x, x - 1, np.arange(x.size, dtype=np.int32), x.astype(np.int32))

    def sequences() -> Iterator[ScoredSequence]:
        yield from (sequence("a", -1, -2), sequence("b"), sequence("c", -4))

    tokens = Tokens.of(sequences())
    assert tokens.names == ("a", "c")
    assert tokens.starts.tolist() == [0, 2, 3]
    assert tokens.sums(tokens.d).tolist() == [-2.0, -1.0]
    assert [tokens.sequence_of(at) for at in range(3)] == [0, 0, 1]
    assert tokens.without(0).starts.tolist() == [0, 1, 2]
    assert tokens.without(2).names == ("a",)
    assert tokens.without(2).starts.tolist() == [0, 2]
    assert Tokens.of([]).count == 0
