"""Two sides are matched by their tokens, whatever the order and the form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rollouts.recorded import LAYOUTS, SEQUENCES, Drawn, sglang_scores, vllm_scores, written

from kvparity.rollouts import Rollout, RolloutError, read_rollouts
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
    with pytest.raises(RolloutError, match="sequence 0 has logprobs of one side alone: name the"):
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


def test_a_missing_score_is_found(tmp_path: Path) -> None:
    left = _read(LAYOUTS["prime-rl tokens"](), tmp_path / "a.json")
    document = vllm_scores(SEQUENCES[0])
    choice = document["response"]["choices"][0]  # type: ignore[index]
    choice["prompt_logprobs"][3] = None
    anomalies = Anomalies()
    found, _ = _paired(left[:1], _read([document], tmp_path / "b.json"), anomalies)
    assert found[0].rollout.tolist() == [SEQUENCES[0].rollout[at] for at in (0, 2)]
    assert anomalies.examples[Anomaly.MISSING] == [(Anomaly.MISSING, "0", 1)]


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
