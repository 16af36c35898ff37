"""kvparity's own file: what is written is read again, bit for bit; what is unusual is found."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvparity.rollouts import RolloutError, RolloutWriter, read_rollouts
from kvparity.rollouts.anomalies import MOST_EXAMPLES, Anomalies, Anomaly
from kvparity.rollouts.open import layout_of
from kvparity.rollouts.parquet import write_parquet

LOGPROB = st.floats(max_value=0.0, width=32, allow_nan=False) | st.just(math.nan)
PROMPTS = st.lists(st.integers(0, 9), max_size=4)
RESPONSES = st.lists(st.tuples(st.integers(0, 9), LOGPROB, st.integers(0, 1)), max_size=6)


@settings(max_examples=60)
@given(sequences=st.lists(st.tuples(PROMPTS, RESPONSES), max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    sequences: list[tuple[list[int], list[tuple[int, float, int]]]],
) -> None:
    path = tmp_path_factory.mktemp("native") / "r.jsonl"
    with RolloutWriter(path, {"engine": "e"}) as writer:
        for prompt, response in sequences:
            ids, logprobs, mask = zip(*response, strict=True) if response else ((), (), ())
            writer.write(prompt, ids, logprobs, mask=mask, temperature=0.5, weight_version="3")
    read = list(read_rollouts(path))
    assert len(read) == len(sequences)
    for found, (prompt, response) in zip(read, sequences, strict=True):
        wanted = np.array([it[1] for it in response], dtype=np.float32)
        kept = np.array([it[2] for it in response], dtype=np.bool_) & np.isfinite(wanted)
        kept &= wanted != -9999
        assert found.ids is not None
        assert found.ids.tolist() == prompt + [it[0] for it in response]
        assert found.mask.tolist() == kept.tolist()
        assert found.logprobs is not None
        numbers = ~np.isnan(wanted)
        assert (found.logprobs.view(np.int32) == wanted.view(np.int32))[numbers].all()
        assert np.isnan(found.logprobs[~numbers]).all()
        assert found.sampling.temperature == 0.5
        assert found.weight_versions == ("3",)


def _file(path: Path, **line: object) -> Path:
    with RolloutWriter(path) as writer:
        writer.write([1], [2, 3, 4], [-1.0, -2.0, -3.0])
        writer.write([1], [2, 3, 5], [-1.0, -2.0, -3.0])
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | line)
    path.write_text("\n".join(lines) + "\n")
    return path


TRAINED = {"logprobs": None, "trainer_logprobs": [-1.0, -2.0, -3.0]}


@pytest.mark.parametrize(
    ("line", "kind", "token", "kept"),
    [
        ({"logprobs": [-1.0, None, -3.0]}, Anomaly.MISSING, 1, [1, 0, 1]),
        ({"logprobs": ["nan", -2.0, -3.0]}, Anomaly.NOT_FINITE, 0, [0, 1, 1]),
        ({"logprobs": [-1.0, -2.0, "-inf"]}, Anomaly.NOT_FINITE, 2, [1, 1, 0]),
        ({"logprobs": [-1.0, -9999.0, -3.0]}, Anomaly.SENTINEL, 1, [1, 0, 1]),
        ({"logprobs": [-1.0, 0.0, -3.0]}, Anomaly.ZERO, 1, [1, 1, 1]),
        ({"logprobs": [-1.0, -0.1, -3.0]}, Anomaly.ROUNDED, 1, [1, 1, 1]),
        ({"trainer_logprobs": [-1.0, None, -3.0]}, Anomaly.MISSING, 1, [1, 0, 1]),
        ({"mask": [0, 0, 0]}, Anomaly.NO_TOKEN, None, [0, 0, 0]),
        (TRAINED | {"mask": [0, 0, 0]}, Anomaly.NO_TOKEN, None, [0, 0, 0]),
        ({"prompt_ids": None}, Anomaly.NO_PROMPT, None, [1, 1, 1]),
        ({"prompt_ids": None, "response_ids": None}, Anomaly.NO_IDS, None, [1, 1, 1]),
    ],
)
def test_what_is_unusual_is_found(
    line: dict[str, object], kind: Anomaly, token: int | None, kept: list[int], tmp_path: Path
) -> None:
    anomalies = Anomalies()
    found = list(read_rollouts(_file(tmp_path / "r.jsonl", **line), anomalies))
    assert dict(anomalies.counts) == {kind: 1}
    assert anomalies.examples[kind] == [(kind, "1", token)]
    assert found[1].mask.tolist() == [bool(it) for it in kept]
    where = "1" if token is None else f"1 token {token}"
    assert anomalies.sentences() == [f"1 × {kind.text}; {kind.rule.value} ({where})"]


def test_what_is_masked_is_not_looked_at(tmp_path: Path) -> None:
    """Prompt tokens and tool answers have no logprob, or a zero."""
    anomalies = Anomalies()
    line = {"mask": [1, 0, 0], "logprobs": [-1.0, 0.0, None]}
    list(read_rollouts(_file(tmp_path / "r.jsonl", **line), anomalies))
    assert not anomalies.counts


@pytest.mark.parametrize(
    "line",
    [
        {"temperature": 0.0, "top_p": 1.0},
        {"response_ids": [0, 2**31 - 1, 3]},
        {"routes": [[[1]]] * 4},
        {"routes": [[[1]]] * 3},  # the last token is not routed
    ],
)
def test_what_is_at_its_limit_is_right(line: dict[str, object], tmp_path: Path) -> None:
    anomalies = Anomalies()
    assert len(list(read_rollouts(_file(tmp_path / "r.jsonl", **line), anomalies))) == 2
    assert not anomalies.counts


def test_a_prompt_that_was_scored_alone_has_no_token_that_counts(tmp_path: Path) -> None:
    line = dict.fromkeys(("response_ids", "logprobs", "mask"), None) | {"prompt_logprobs": [-1.0]}
    anomalies = Anomalies()
    found = list(read_rollouts(_file(tmp_path / "r.jsonl", **line), anomalies))[1]
    assert (found.mask.size, found.logprobs) == (0, None)
    assert dict(anomalies.counts) == {Anomaly.NO_IDS: 1}


def test_findings_do_not_grow() -> None:
    anomalies = Anomalies()
    for sequence in range(100):
        anomalies.add(Anomaly.ZERO, str(sequence), range(50))
    assert anomalies.counts[Anomaly.ZERO] == 5000
    assert len(anomalies.examples[Anomaly.ZERO]) == MOST_EXAMPLES
    assert anomalies.sentences()[0].endswith("0 token 3, 0 token 4, …)")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"logprobs": [-1.0, -2.0]}, "3: sequence 1: its lists differ in length: response_ids 3"),
        ({"logprobs": [-1.0, -2.0, "x"]}, r":3: logprobs\[2\]"),
        ({"logprobs": None}, ":3: sequence 1: it has no logprobs"),
        ({"prompt_ids": [-1]}, r":3: prompt_ids\[0\]"),
        ({"sequence": "0"}, ":3: sequence 0 is there twice"),
        ({"logprob": []}, ":3: logprob: Extra inputs are not permitted"),
        ({"routes": [[1]]}, r":3: routes\[0\]\[0\]"),
        ({"routes": [[[1, 2]]]}, "routes is no list of .tokens, layers, experts. for 4 tokens"),
        ({"prompt_logprobs": [None, -1.0]}, "prompt_ids 1, prompt_logprobs 2; expected one value"),
        ({"temperature": -0.5}, "temperature is -0.5; expected a finite number from 0"),
        ({"temperature": 1e400}, "temperature is inf; expected a finite number from 0"),
        ({"temperature": math.nan}, "temperature is nan; expected a finite number from 0"),
        ({"top_p": 0.0}, "top_p is 0.0; expected a number above 0, at most 1"),
        ({"top_p": 90.0}, "top_p is 90.0; expected a number above 0, at most 1"),
        ({"top_p": 1.0000001}, "top_p is 1.0000001; expected a number above 0, at most 1"),
        ({"response_ids": [2, 0, 2**70]}, r":3: .*response_ids\[2\] is 11805916207174113034"),
        ({"response_ids": [2, 2**31 - 1, 2**70]}, r":3: .*response_ids\[2\] is 1180591620717411"),
        ({"routes": [[[1, 2]], [[1]]]}, "routes is no list of .tokens, layers, experts. for 4"),
        ({"routes": [[[1]]], "prompt_ids": []}, "routes is no list of .* for 3 tokens"),
        ({"sequence": "a\ud800"}, r":3: sequence 'a\\ud800' has half a character"),
        ({"weight_versions": ["\udfff"]}, r":3: weight '\\udfff' has half a character"),
    ],
)
def test_a_line_that_is_wrong(line: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match=message):
        list(read_rollouts(_file(tmp_path / "r.jsonl", **line)))


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "r.jsonl")
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(RolloutError, match="version 2 of kvparity-rollouts; this kvparity reads"):
        list(read_rollouts(path))


def test_writing(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with RolloutWriter(path) as writer:
        drawn = torch.tensor([2, 3]), torch.tensor([-0.5, -1.5])
        writer.write(torch.tensor([1]), *drawn, sequence="a")  # type: ignore[arg-type]
        assert len(path.read_text().splitlines()) == 2, "it is on the disk already"
        with pytest.raises(RolloutError, match="sequence a is written twice"):
            writer.write([1], [2], [-0.5], sequence="a")
        with pytest.raises(RolloutError, match="response_ids 1, logprobs 2"):
            writer.write([1], [2], [-0.5, -1.0])
        with pytest.raises(RolloutError, match="a logprob is never above 0"):
            writer.write([1], [2], [0.5])
    assert [each.sequence for each in read_rollouts(path)] == ["a"]
    with pytest.raises(RolloutError, match="exists; expected a new file"):
        RolloutWriter(path)
    with pytest.raises(RolloutError, match="cannot be written: No such file"):
        RolloutWriter(tmp_path / "no" / "r.jsonl")
    with pytest.raises(RolloutError, match="cannot be read: No such file"):
        next(read_rollouts(tmp_path / "no"))
    with pytest.raises(RolloutError, match="is a folder"):
        next(read_rollouts(tmp_path))


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    """Bit for bit, with everything that a sequence can have; other people's rows are read, too."""
    line = {
        "trainer_logprobs": [-1.5, None, -2.5],
        "prompt_logprobs": [None],
        "temperature": 0.5,
        "processed": True,
        "weight_versions": ["a", "b"],
        "routes": [[[1, 2]], [[0, 3]], [[1, 0]], [[2, 1]]],
        "logprobs": [-1.0, "nan", "-inf"],
    }
    read = list(read_rollouts(_file(tmp_path / "r.jsonl", **line)))
    write_parquet(read, tmp_path / "r.parquet")
    assert layout_of(tmp_path / "r.parquet") == "RolloutWriter"
    again = list(read_rollouts(tmp_path / "r.parquet"))
    for first, second in zip(read, again, strict=True):
        for name, value in vars(first).items():
            other = getattr(second, name)
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                assert (value.view(np.int32) == other.view(np.int32)).all(), name
            else:
                assert np.array_equal(value, other), name
    with pytest.raises(RolloutError, match="exists; expected a new file"):
        write_parquet(read, tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_bytes((tmp_path / "r.parquet").read_bytes()[:-9])
    with pytest.raises(RolloutError, match="is no whole Parquet file"):
        list(read_rollouts(tmp_path / "r.parquet"))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RolloutError, match="pyarrow is not installed: pip install"):
        write_parquet([], tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    with pytest.raises(RolloutError, match="is Parquet, and pyarrow is not installed"):
        list(read_rollouts(tmp_path / "r.parquet"))


def test_what_the_mask_leaves_out_is_not_looked_at(tmp_path: Path) -> None:
    """A placeholder above 0 there is no error, and one that is no float32 is not counted."""
    anomalies = Anomalies()
    path = _file(tmp_path / "r.jsonl", logprobs=[-1.0, 1.0, 0.1], mask=[1, 0, 0])
    *_, found = read_rollouts(path, anomalies)
    assert found.mask.tolist() == [True, False, False]
    assert not anomalies.counts
    bad = _file(tmp_path / "bad.jsonl", logprobs=[-1.0, 1.0, 0.0], mask=[1, 1, 0])
    with pytest.raises(RolloutError, match=r"logprobs\[1\] is 1.0; a logprob is never above 0"):
        list(read_rollouts(bad))


@pytest.mark.parametrize("token", [2**31, 2**70])
def test_an_id_that_no_vocabulary_has(token: int, tmp_path: Path) -> None:
    path = _file(tmp_path / "r.jsonl", response_ids=[2, token, 5])
    with pytest.raises(RolloutError, match=rf"response_ids\[1\] is {token}; expected ids from 0"):
        list(read_rollouts(path))


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (math.nan, Anomaly.MISSING),
        (-math.inf, Anomaly.NOT_FINITE),
        (-9999.0, Anomaly.SENTINEL),
    ],
)
def test_what_is_written_without_a_logprob_is_found_when_it_is_read(
    bad: float, kind: Anomaly, tmp_path: Path
) -> None:
    """And not taken for a token that the mask leaves out, which nobody misses."""
    with RolloutWriter(tmp_path / "r.jsonl") as writer:
        writer.write([1], [2, 3, 4], [-1.0, bad, bad], mask=[1, 1, 0])
    anomalies = Anomalies()
    (found,) = read_rollouts(tmp_path / "r.jsonl", anomalies)
    assert (found.mask.tolist(), anomalies.counts) == ([True, False, False], {kind: 1})
