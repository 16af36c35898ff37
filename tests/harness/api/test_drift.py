"""A recorded rollout beside another side, from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from gaps import tiny
from rollouts.recorded import SEQUENCES, vllm_rollout, vllm_scores, written

import kvparity
from kvparity.cli.main import main
from kvparity.rollouts.record import RolloutError
from kvparity.rollouts.tokens import Tokens


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    return (
        written([vllm_rollout(each) for each in SEQUENCES], tmp_path / "rollout.json"),
        written([vllm_scores(each) for each in SEQUENCES[::-1]], tmp_path / "scores.json"),
    )


def test_it_says_what_the_command_line_says(
    sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = kvparity.drift(*sides)
    assert main(["drift", str(sides[0]), "--against", str(sides[1])]) == 1
    assert str(found) == repr(found) == capsys.readouterr().out.rstrip("\n")
    assert (found.verdict, found.holds) == ("differs", False)
    assert main(["drift", str(sides[0]), "--against", str(sides[1]), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert found.report.metrics is not None
    assert printed["metrics"]["all"]["k3"] == found.report.metrics.all.k3
    assert kvparity.drift(*sides, limits={"max_abs_d": 0.5}).holds
    assert not kvparity.drift(*sides, limits={"max_abs_d": 0.4}).holds
    assert kvparity.drift(sides[0], sides[0]).holds


def test_tokens_as_a_table(sides: tuple[Path, Path]) -> None:
    found = kvparity.drift(*sides)
    frame = found.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == found.tokens.count == 9
    assert (frame["trainer"].astype(float) - frame["rollout"] == frame["d"]).all()
    assert int((~frame["equal_bits"]).sum()) == 4
    sizes = frame.groupby("sequence", sort=False).size()
    assert sizes.to_dict() == dict(zip(found.tokens.names, found.tokens.lengths, strict=True))
    assert found.named("trl")["sampling/sampling_logp_difference/max"] == 0.5
    empty = kvparity.RolloutDrift(found.report, Tokens.of([]))
    assert empty.named("trl") == {}


def test_a_checkpoint_scores(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "model")
    path = tmp_path / "r.jsonl"
    tiny.rollout(folder, path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        same = kvparity.drift(path, folder, settings=kvparity.Settings(dtype="float32"))
        other = kvparity.drift(path, str(folder))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert "float32, sdpa" in str(same)
    assert "bfloat16, sdpa" in str(other)
    assert not np.array_equal(same.tokens.trainer, other.tokens.trainer)


def test_what_means_nothing_is_refused(sides: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = sides
    with pytest.raises(ValueError, match="limits: found 'k4', expected of max_abs_d"):
        kvparity.drift(one, other, limits={"k4": 1.0})
    with pytest.raises(ValueError, match="k3 is nan; expected a number from 0"):
        kvparity.drift(one, other, limits={"k3": float("nan")})
    with pytest.raises(ValueError, match="worst is -1"):
        kvparity.drift(one, other, worst=-1)
    with pytest.raises(ValueError, match="vocabulary is 0"):
        kvparity.drift(one, other, vocabulary=0)
    with pytest.raises(ValueError, match="settings: of a checkpoint, which against does not"):
        kvparity.drift(one, other, settings=kvparity.Settings())
    with pytest.raises(ValueError, match="device: of a checkpoint"):
        kvparity.drift(one, "http://localhost:1", device="cpu")
    with pytest.raises(ValueError, match="served: of a server"):
        kvparity.drift(one, tmp_path, served="m")
    with pytest.raises(ValueError, match="vocabulary: a checkpoint has its own"):
        kvparity.drift(one, tmp_path, vocabulary=9)
    with pytest.raises(ValueError, match="found 'trll', expected one of verl"):
        kvparity.drift(one, other).named("trll")
    with pytest.raises(ValueError, match="timeout: of a server"):
        kvparity.drift(one, other, timeout=1.0)
    for wrong, words in (
        ({"limits": {"k3": "small"}}, "k3 is 'small'; expected a number"),
        ({"limits": {"k3": True}}, "k3 is True; expected a number"),
        ({"limits": ["k3"]}, r"limits: found \['k3'\], expected numbers by"),
        ({"worst": 1.5}, "worst is 1.5; expected a whole number"),
        ({"vocabulary": "9"}, "vocabulary is '9'; expected a whole number"),
        ({"settings": {"dtype": "float32"}}, r"settings: found .*expected kvparity\.Settings"),
    ):
        with pytest.raises(ValueError, match=words):
            kvparity.drift(one, other, **wrong)
    for word in ({"dtype": "bf16"}, {"layout": "packd"}, {"log_softmax": "float"}):
        with pytest.raises(ValueError, match="expected one of"):
            kvparity.Settings(**word)
    with pytest.raises(RolloutError, match="absent"):
        kvparity.drift(tmp_path / "absent.jsonl")
    with pytest.raises(TypeError, match=r"ask for \.holds"):
        bool(kvparity.drift(one, other))
