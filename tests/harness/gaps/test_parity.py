"""A contract with two sides: its verdicts, its controls, its mistakes, and its run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conforming import findings
from gaps import tiny

from kvparity.cli.main import main
from kvparity.controls import sides as plants
from kvparity.gaps.report import LIMITS
from kvparity.gaps.settings import Settings
from kvparity.relations.parity import opened, scored
from kvparity.relations.parity import relation as parity
from kvparity.relations.parity.line import ParityCase
from kvparity.report.document import RunReport
from kvparity.report.terminal import render
from kvparity.rollouts import RolloutWriter
from kvparity.rollouts.names import FRAMEWORKS, named
from kvparity.rollouts.tokens import ScoredSequence, Tokens
from kvparity.run import verify as running
from kvparity.run.replay import replay
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.files import load_whole
from kvparity_contracts.linter import lint
from kvparity_contracts.parity_check import PARITY_LIMITS
from kvparity_contracts.problems import ContractError
from kvparity_contracts.sides import ModelSideSpec

OWN = np.random.default_rng(3).uniform(-4, -0.2, (3, 6)).astype(np.float32)
EQUAL = {"name": "alike", "relation": "parity", "bits": "equal"}
NEAR = {"name": "near", "relation": "parity", "limits": {"mean_abs_d": 0.01, "mismatch_kl": 1e-4}}
WIDE = {"name": "wide", "relation": "parity", "limits": {"mean_abs_d": 50.0}}
RECORDED = {"kind": "recorded", "file": "rollout.jsonl"}


def written(file: Path, logprobs: np.ndarray, trainer: np.ndarray | None = None) -> Path:
    with RolloutWriter(file, {"engine": "made"}) as writer:
        for i, own in enumerate(logprobs):
            other = None if trainer is None else trainer[i]
            writer.write([1, i], [7, 8, 9, 3, 4, 5][: own.size], own, trainer_logprobs=other)
    return file


def contract(folder: Path, *checks: dict[str, Any], **parts: Any) -> Path:
    subject = {"kind": "sides", "rollout": RECORDED, "trainer": RECORDED} | parts.pop("subject", {})
    document = {"version": 1, "name": "c", "subject": subject, "checks": list(checks)} | parts
    (folder / "c.yaml").write_text(json.dumps(document, indent=1))
    return folder / "c.yaml"


def ran(file: Path, *, resume: bool = False) -> RunReport:
    found = running.verify(
        load_whole(file), device="cpu", folder=file.parent / "run", jobs=1, resume=resume,
        command="", progress=lambda *_: None,
    )  # fmt: skip
    assert list(findings(file.parent / "run")) == []
    return found


def verify(file: Path, *, resume: bool = False) -> dict[str, Any]:
    return ran(file, resume=resume).document()


def off(by: float) -> np.ndarray:
    trainer = OWN.copy()
    trainer[1, 2] += np.float32(by)
    return trainer


MISSING = OWN[:2]
FAULTS: dict[str, tuple[np.ndarray, tuple[dict[str, Any], ...], tuple[str, ...], str]] = {
    "nothing": (OWN, (EQUAL, NEAR), ("holds", "holds"), "5 controls caught"),
    "one bit": (off(1e-6), (EQUAL, NEAR), ("differs", "holds"), "1 of 1 cases differ"),
    "over its limit": (off(0.5), (NEAR,), ("differs",), "1 of 1 cases differ"),
    "not a number": (off(np.nan), (NEAR,), ("void",), "1 counted token without a logprob"),
    "a sequence is missing": (MISSING, (EQUAL,), ("void",), "1 sequence without a counterpart"),
    "a sequence may be missing": (MISSING, (EQUAL | {"unmatched": 1},), ("holds",), "both sides"),
    "a limit too wide": (OWN, (WIDE,), ("void",), "planted and not caught: unscaled-logprobs"),
    "a limit too wide beside another check": (
        OWN, (EQUAL, WIDE), ("void", "void"), "planted and not caught: unscaled-logprobs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_verdict(fault: str, tmp_path: Path) -> None:
    trainer, checks, verdicts, words = FAULTS[fault]
    written(tmp_path / "rollout.jsonl", OWN)
    written(tmp_path / "trainer.jsonl", trainer)
    trained = {"kind": "recorded", "file": "trainer.jsonl"}
    report = verify(contract(tmp_path, *checks, subject={"trainer": trained}))
    assert tuple(check["verdict"] for check in report["checks"]) == verdicts
    assert words in report["checks"][0]["reason"]


@pytest.mark.parametrize("control", [*sorted(plants.OF_NUMBERS), "dropped-sequences"])
def test_a_control_that_plants_nothing_voids_the_check(
    control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if control == "dropped-sequences":
        monkeypatch.setattr(parity, "less", lambda tokens, dropped: tokens)
    else:
        monkeypatch.setitem(plants.OF_NUMBERS, control, lambda tokens: tokens)  # type: ignore[arg-type]
    written(tmp_path / "rollout.jsonl", OWN, OWN)
    (check,) = verify(contract(tmp_path, EQUAL))["checks"]
    assert (check["verdict"], check["reason"]) == ("void", f"planted and not caught: {control}")


def test_a_run_is_told_resumed_and_replayed(tmp_path: Path) -> None:
    written(tmp_path / "rollout.jsonl", OWN, off(0.25))
    file = contract(tmp_path, NEAR, EQUAL)
    found = ran(file)
    report = found.document()
    first = report["checks"][0]["cases"][0]
    assert (first["reference"], first["path"], first["tokens"]) == ("rollout", "trainer", 18)
    assert first["parity"]["measured"]["mean_abs_d"] == pytest.approx(0.25 / 18)
    assert (first["parity"]["rollout"]["name"], first["parity"]["unmatched"]) == (
        "rollout.jsonl", 0,
    )  # fmt: skip
    text = render(found)
    assert "    worst token: 1 position 4, token 9: rollout " in text
    assert f"mean_abs_d {0.25 / 18:.3g} of 0.01, mismatch_kl " in text
    assert verify(file, resume=True)["checks"] == report["checks"]
    assert replay(load_whole(file), tmp_path / "run", first["id"], "cpu").same


def test_a_replay_says_which_file_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = written(tmp_path / "rollout.jsonl", OWN, off(0.25))
    ran(contract(tmp_path, NEAR))
    command = ["replay", str(tmp_path / "run"), "c000"]
    assert main(command) == 1
    assert "the same result as the run recorded\n" in capsys.readouterr().out
    recording.unlink()
    written(recording, OWN, off(0.5))
    assert main([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["changed_files"] == ["rollout.jsonl"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "since what it had has changed: rollout.jsonl" in said
    assert "not deterministic" not in said


def test_a_model_is_a_side_and_its_own_controls_are_caught(tmp_path: Path) -> None:
    tiny.rollout(tiny.checkpoint(tmp_path / "model"), tmp_path / "rollout.jsonl")
    model = {"kind": "model", "checkpoint": "model"}
    report = verify(contract(tmp_path, EQUAL, subject={"trainer": model}))
    assert [check["verdict"] for check in report["checks"]] == ["holds"]
    assert {each["name"]: each["caught"] for each in report["controls"]} == {
        each.name: True for each in CONTROLS.values() if each.side == "sides"
    }
    assert {each["path"] for each in report["controls"]} == {"trainer"}


@pytest.mark.parametrize("control", ["stale-weights", "other-dtype"])
def test_a_control_that_leaves_the_model_as_it_is_voids_the_check(
    control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if control == "stale-weights":
        monkeypatch.setattr(parity, "disturb", lambda model, seed: None)
    else:
        monkeypatch.setattr(parity, "scored", lambda kernels, defect=None: scored.scored(kernels))
    tiny.rollout(tiny.checkpoint(tmp_path / "model"), tmp_path / "rollout.jsonl")
    model = {"kind": "model", "checkpoint": "model"}
    file = contract(tmp_path, EQUAL, subject={"trainer": model}, controls=[control])
    (check,) = verify(file)["checks"]
    assert (check["verdict"], check["reason"]) == ("void", f"planted and not caught: {control}")


def test_a_side_that_did_not_run_as_asked_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(opened.ModelSide):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.model.config._attn_implementation = "eager"

    monkeypatch.setattr(opened, "ModelSide", Other)
    tiny.rollout(tiny.checkpoint(tmp_path / "model"), tmp_path / "rollout.jsonl")
    model = {"kind": "model", "checkpoint": "model"}
    with pytest.raises(Exception, match="'sdpa' was asked for, and the model uses 'eager'"):
        verify(contract(tmp_path, EQUAL, subject={"trainer": model}))


@pytest.mark.parametrize("wrong", ["limit", "nothing", "unmatched", "bits"])
def test_a_line_that_contradicts_itself_is_refused(wrong: str, tmp_path: Path) -> None:
    written(tmp_path / "rollout.jsonl", OWN, OWN)
    checks = verify(contract(tmp_path, NEAR, EQUAL))["checks"]
    near, equal = (check["cases"][0] for check in checks)
    ParityCase.model_validate(near)
    if wrong == "limit":
        near["parity"]["measured"]["mismatch_kl"] = 1.0
    elif wrong == "nothing":
        near["tokens"] = 0
    elif wrong == "unmatched":
        near["parity"]["unmatched"] = 1
    else:
        near = equal | {"differing_tokens": 1}
    with pytest.raises(ValueError, match="it holds, and "):
        ParityCase.model_validate(near)


MODEL = {"kind": "model", "checkpoint": "model"}
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "misspelt": ({"limits": {"mismatch_k": 1.0}}, {}, "limits.mismatch_k", "expected mismatch_kl"),
    "never": ({"limits": {"outside_clip": 1}}, {}, "limits.outside_clip", "never exceeded"),
    "always": ({"limits": {"token_mult_prob_error": 0.5}}, {}, "error", "at least 1"),
    "negative": ({"limits": {"k3": -1e-3}}, {}, "limits.k3", "at least 0"),
    "no number": ({"limits": {"k3": "small"}}, {}, "limits.k3", "expected a finite number"),
    "empty": ({"limits": {}}, {}, "limits", "limits by name"),
    "no claim": ({}, {}, "checks[0]", "exactly one of bits, limits"),
    "two claims": ({"bits": "equal", "limits": {"k3": 1.0}}, {}, "limits", "exactly one of"),
    "numerics": (EQUAL, {"numerics": {"execution": "float32"}}, "numerics", "no numerics"),
    "other relation": (
        {"relation": "order", "keys": [70]}, {}, "relation", "expected parity",
    ),
    "other kind": (EQUAL, {"subject": {"trainer": {"kind": "modle"}}}, "kind", "mean model?"),
    "no file": (
        EQUAL, {"subject": {"trainer": {"kind": "recorded", "file": "rollouts.jsonl"}}},
        "trainer.file", "mean rollout.jsonl?",
    ),
    "no checkpoint": (EQUAL, {"subject": {"trainer": MODEL}}, "checkpoint", "there is no folder"),
    "a setting that would not act": (
        EQUAL, {"subject": {"trainer": MODEL | {"micro_batch": 2}}}, "micro_batch", "layout alone",
    ),
    "a control of another kind": (
        EQUAL, {"controls": ["stale-slot"]}, "controls[0]", "cannot be planted in a subject of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_at_its_place(mistake: str, tmp_path: Path) -> None:
    check, parts, key, words = MISTAKES[mistake]
    written(tmp_path / "rollout.jsonl", OWN, OWN)
    file = contract(tmp_path, {"name": "c", "relation": "parity"} | check, **parts)
    with pytest.raises(ContractError) as caught:
        load_whole(file)
    (problem,) = caught.value.problems
    assert problem.key.endswith(key)
    assert words in str(problem)
    assert (
        key.rpartition(".")[2].partition("[")[0]
        in "".join(file.read_text().splitlines()[max(problem.line - 2, 0) : problem.line])
        or key == "checks[0]"
    )


def test_a_control_that_these_sides_cannot_show_is_told_and_voids(tmp_path: Path) -> None:
    written(tmp_path / "rollout.jsonl", OWN, OWN)
    file = contract(tmp_path, EQUAL, controls=["stored-zero", "stale-weights"])
    (finding,) = lint(load_whole(file))
    assert finding.key == "controls[1]"
    assert '"stale-weights"' in file.read_text().splitlines()[finding.line - 1]
    assert "cannot be planted: it takes a side that is a model" in finding.message
    (check,) = verify(file)["checks"]
    assert check["verdict"] == "void"
    assert "control stale-weights was asked for and not planted" in check["reason"]


def test_settings_and_limits_are_those_of_drift() -> None:
    fields = {name: each.default for name, each in ModelSideSpec.model_fields.items()}
    # The checkpoint has the weights: a contract names no others beside it.
    beside = ("kind", "checkpoint", "weights", "head_weights")
    asked = {k: v for k, v in fields.items() if k not in beside}
    assert asked == {k: v for k, v in vars(Settings()).items() if k not in beside}
    one = np.float32([-1.0])
    place = np.zeros(1, dtype=np.int32)
    tokens = Tokens.of([ScoredSequence("a", one, one, place, place)])
    logged = {k: v for each in FRAMEWORKS for k, v in named(each, tokens).items()}
    names = {name for name in PARITY_LIMITS if name in logged}
    assert {name: logged[name] for name in names} == {n: PARITY_LIMITS[n][0] for n in names}
    assert len(names) == len(PARITY_LIMITS) - len(LIMITS)
