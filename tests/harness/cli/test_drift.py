"""``kvparity drift`` on recordings: verdicts as exit codes, bad input as one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gaps import tiny
from rollouts.recorded import (
    LAYOUTS,
    SEQUENCES,
    Drawn,
    sglang_rollout,
    vllm_rollout,
    vllm_scores,
    written,
)

from kvparity.cli import drift as verb
from kvparity.cli.main import main
from kvparity.gaps.report import LIMITS
from kvparity.rollouts import RolloutWriter
from kvparity.rollouts.names import FRAMEWORKS


@pytest.fixture
def rollout(tmp_path: Path) -> str:
    return str(written([vllm_rollout(each) for each in SEQUENCES], tmp_path / "rollout.json"))


@pytest.fixture
def scores(tmp_path: Path) -> str:
    return str(written([vllm_scores(each) for each in SEQUENCES[::-1]], tmp_path / "scores.json"))


def test_the_help_knows_every_name() -> None:
    """They are written down where no numpy is imported."""
    assert set(verb.FRAMEWORKS) == set(FRAMEWORKS)
    assert verb.LIMITS == LIMITS


def test_two_recordings(rollout: str, scores: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", rollout, "--against", scores, "--names", "trl"]) == 1
    out = capsys.readouterr().out
    assert "matched  3 sequences, 9 tokens compared" in out
    assert "DIFFERS: 4 of 9 tokens differ in bits" in out
    assert "sampling/sampling_logp_difference/max          0.5" in out
    assert main(["drift", rollout, "--against", scores, "--limit", "max_abs_d=0.5"]) == 0
    assert main(["drift", rollout, "--against", scores, "--limit", "max_abs_d=0.4"]) == 1


def test_a_recording_of_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    assert main(["drift", path, "--json", "--worst", "2"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert found["rollout"] == {"name": path, "layout": "slime train shard"}
    assert found["metrics"]["tokens"] == 7
    assert [each["sequence"] for each in found["worst"]] == ["rollout0.rank0.2", "rollout0.rank0.0"]


def test_equal_bits_hold_and_what_is_lacking_is_void(rollout: str, tmp_path: Path) -> None:
    assert main(["drift", rollout, "--against", rollout]) == 0
    part = str(written([vllm_rollout(each) for each in SEQUENCES[1:]], tmp_path / "part.json"))
    assert main(["drift", rollout, "--against", part]) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "sequence 0 has logprobs of one side alone: name what has the other's, by --against"),
        (["--against", "no.json"], "no.json cannot be read: No such file or directory"),
        (["--limit", "k3"], "--limit k3: expected a number from 0 behind k3="),
        (["--limit", "k3=nan"], "--limit k3=nan: expected a number from 0 behind k3="),
        (["--limit", "k3=-1"], "--limit k3=-1: expected a number from 0 behind k3="),
        (["--limit", "k4=1"], "--limit k4=1: expected NAME=VALUE with NAME of max_abs_d, "),
        (["--worst", "-1"], "--worst -1: expected a number from 0"),
        (["--vocabulary", "0"], "--vocabulary 0: expected a number from 1"),
    ],
)
def test_bad_input(
    rollout: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift", rollout, *more]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err
    assert len(err.splitlines()) == 1
    assert main(["drift", rollout, *more, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_ids_outside_of_the_vocabulary(rollout: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", rollout, "--against", rollout, "--vocabulary", "12"]) == 0
    assert main(["drift", rollout, "--against", rollout, "--vocabulary", "11"]) == 2
    assert "token_ids[3] is 11; expected ids from 0 to 10" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A checkpoint, and a rollout that it drew itself."""
    folder = tiny.checkpoint(tmp_path_factory.mktemp("model"))
    return str(folder), str(tiny.rollout(folder, folder / "rollout.jsonl"))


def test_a_model_scores(model: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, recorded = model
    assert main(["drift", recorded, "--against", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trainer"] == {"name": folder, "layout": "bfloat16, sdpa"}
    assert found["metrics"]["tokens"] == 27
    assert main(["drift", recorded, "--against", folder, "--dtype", "float32"]) == 1
    assert "trainer  " + folder + " (float32, sdpa)" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("engine", [vllm_rollout, sglang_rollout])
def test_answers_of_an_engine_against_a_model_are_a_plain_scripts(
    model: tuple[str, str],
    engine: Callable[[Drawn], object],
    dtype: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every count, mean and maximum, from the engine's own JSON."""
    made = np.random.default_rng(5)
    scorer, answers, apart = tiny.plain(Path(model[0]), getattr(torch, dtype)), [], []
    for prompt in tiny.PROMPTS:
        ids = [*prompt, *made.integers(0, tiny.VOCABULARY, 6).tolist()]
        values = tiny.script(scorer, torch.tensor(ids), len(prompt)).numpy()
        drawn = values * np.float32([1, 1, 1, 1.001, 0.9, 0.999])
        given = tuple(drawn.tolist())
        answers.append(engine(Drawn(prompt, tuple(ids[len(prompt) :]), (1,) * 6, given, given)))
        apart.append(values.astype(np.float64) - drawn)
    path = str(written(answers, tmp_path / "answers.json"))
    assert main(["drift", path, "--against", model[0], "--dtype", dtype, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    d = np.concatenate(apart)
    measured = found["metrics"]["all"]
    assert found["reason"] == f"{np.count_nonzero(d)} of 18 tokens differ in bits"
    assert measured["max_abs_d"] == np.abs(d).max() == abs(found["worst"][0]["d"])
    assert measured["mean_abs_d"] == pytest.approx(np.abs(d).mean(), rel=1e-12)
    assert measured["k1"] == pytest.approx(-d.mean(), rel=1e-9)
    assert measured["k3"] == pytest.approx((np.exp(d) - 1 - d).mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dtype", "float32"], "--dtype: of a model; expected --against a checkpoint's folder"),
        (["--no-position-ids"], "--no-position-ids: of a model; expected --against"),
        (["--against", "MODEL", "--seed", "1"], "--seed: dropout draws in train mode alone"),
        (["--against", "MODEL", "--invariant"], "invariant with attention sdpa: its sums cannot"),
        (["--against", "MODEL", "--attention", "x"], "cannot be loaded"),
        (
            ["--against", "MODEL", "--seconds", "1"],
            ": of --explain; expected --explain, too",
        ),
        (["--explain"], "--explain: of a model; expected --against a checkpoint's folder"),
        (
            ["--against", "MODEL", "--explain", "--seconds", "nan"],
            "--seconds nan: expected a number from 0",
        ),
        (
            ["--against", "MODEL", "--explain", "--candidate", "MODEL/../model0"],
            "is --against itself; expected other weights",
        ),
        (
            ["--against", "MODEL", "--explain", "--candidate", "EMPTY"],
            ": expected a checkpoint's folder",
        ),
        (["--against", "EMPTY"], "config.json is missing; a checkpoint needs it"),
    ],
)
def test_bad_settings(
    model: tuple[str, str],
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, recorded = model
    places = {"MODEL": folder, "EMPTY": str(tmp_path)}
    given = [places.get(it, it.replace("MODEL", folder)) for it in more]
    assert main(["drift", recorded, *given]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_gap_is_explained(
    model: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, recorded = model
    trials = tmp_path / "trials.jsonl"
    command = ["drift", recorded, "--against", folder, "--attention", "eager", "--dtype"]
    command += ["float32", "--explain", "--trials", str(trials)]
    assert main(command) == 1
    first = capsys.readouterr().out
    assert "explained: dtype bfloat16 + attention sdpa gives equal bits" in first
    assert "not tried: train mode (dropout): train: no dropout of this checkpoint" in first
    kept = trials.read_text()
    assert main([*command, "--seconds", "0"]) == 1
    again = capsys.readouterr().out
    assert again == first, "all of it is known"
    assert trials.read_text() == kept
    page = tmp_path / "page.html"
    assert main([*command, "--seconds", "0", "--json", "--html", str(page)]) == 1
    assert "explained: dtype bfloat16 + attention sdpa gives equal bits" in page.read_text()
    found = json.loads(capsys.readouterr().out)["explanation"]
    assert found["smallest"] == ["dtype bfloat16", "attention sdpa"]
    trials.write_text(kept + '{"of": 1')
    assert main(command) == 2
    assert f"{trials}:{len(kept.splitlines()) + 1} is no trial" in capsys.readouterr().err


def test_no_gap_needs_no_explanation(
    model: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, recorded = model
    assert main(["drift", recorded, "--against", folder, "--explain"]) == 0
    said = capsys.readouterr()
    assert "nothing to explain: as it is, every token has equal bits" in said.out
    assert "flipped" not in said.out
    none = tmp_path / "none.jsonl"
    with RolloutWriter(none) as writer:
        writer.write([1], [2], [-1.0], mask=[0])
    assert main(["drift", str(none), "--against", folder, "--explain"]) == 5
    assert "--explain: no token is compared" in capsys.readouterr().err


def test_a_model_needs_transformers(
    model: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "kvparity.subjects.hf.loading", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["drift", model[1], "--against", model[0]]) == 3
    err = capsys.readouterr().err.strip()
    assert 'pip install "kvparity[transformers]"' in err
    assert len(err.splitlines()) == 1


def test_no_torch_is_imported(rollout: str) -> None:
    code = "import sys; from kvparity.cli.main import main; main(sys.argv[1:]); "
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "drift", rollout, "--against", rollout],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "HOLDS" in done.stdout
