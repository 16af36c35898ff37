"""Every kind of side in a contract of two sides: recorded, model or server, given tokens or drawn.

Servers are stand-ins of this process, models tiny and seeded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gaps import tiny
from gaps.sided import (
    BATCHED,
    BITS,
    FILE,
    GIVEN,
    MODEL,
    NEAR,
    OTHER,
    PADDED,
    PROMPTS,
    SCORED,
    SERVER,
    SINGLE,
    TIGHT,
    WIDE,
    made,
    written,
)
from server_stand_in import StandIn, serving

from kvparity.core.errors import SubjectError
from kvparity.gaps.sides import ServerScorer
from kvparity.plan.kernel_cases import KernelControl, kernel_cases
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.parity import relation as parity
from kvparity.relations.parity.scored import scored
from kvparity.rollouts import Rollout, read_rollouts
from kvparity.run import verify as running
from kvparity.run.replay import replay
from kvparity.servers import metrics
from kvparity.subjects.server import subject as subject_of_servers
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.files import load_whole
from kvparity_contracts.linter import lint
from kvparity_contracts.parity_check import ParityCheck
from kvparity_contracts.planning import planned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("sides"))


def kernels_of(file: Path, run: Path) -> Kernels:
    loaded = load_whole(file)
    return Kernels(loaded.contract, file.parent, lambda: pytest.fail("no subject"), folder=run)


def look(kernels: Kernels) -> Comparison:
    (check,) = kernels.contract.checks
    assert isinstance(check, ParityCheck)
    return parity.compared(scored(kernels), check)


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    # sides, check, faults of the server, verdict, words of it
    "recorded-server": ({"rollout": SCORED, "trainer": SERVER}, BITS, "", "holds", ""),
    "recorded-another server": ({"rollout": FILE, "trainer": SERVER}, BITS, "", "differs", ""),
    "recorded-model": ({"rollout": FILE, "trainer": PADDED}, NEAR, "", "holds", ""),
    "recorded-another model": ({"rollout": FILE, "trainer": OTHER}, NEAR, "", "differs", ""),
    "server-recorded": ({"rollout": SERVER, "trainer": SCORED, **GIVEN}, BITS, "", "holds", ""),
    "server-model": ({"rollout": SERVER, "trainer": MODEL, **GIVEN}, NEAR, "", "differs", ""),
    "server-server": (
        {"rollout": SERVER, "trainer": SERVER | {"model": "toy"}, **GIVEN}, BITS, "", "holds", "",
    ),
    "model-recorded": ({"rollout": MODEL, "trainer": FILE, **GIVEN}, BITS, "", "holds", ""),
    "model-server": ({"rollout": MODEL, "trainer": SERVER, **GIVEN}, NEAR, "", "differs", ""),
    "model-settings": ({"rollout": MODEL, "trainer": PADDED, **GIVEN}, NEAR, "", "holds", ""),
    "model-models": ({"rollout": MODEL, "trainer": OTHER, **GIVEN}, NEAR, "", "differs", ""),
    "model draws-settings": ({"rollout": MODEL, "trainer": SINGLE}, NEAR, "", "holds", ""),
    "model draws-server": ({"rollout": MODEL, "trainer": SERVER}, NEAR, "", "differs", ""),
    "server draws-server": ({"rollout": SERVER, "trainer": SERVER}, BITS, "", "holds", ""),
    "server draws-model": ({"rollout": SERVER, "trainer": WIDE}, NEAR, "", "differs", ""),
    "server draws alone": (
        {"rollout": SERVER, "trainer": SERVER}, BITS, "alone-differs", "differs", "10 of 12",
    ),
    "server draws together": (
        {"rollout": BATCHED, "trainer": SERVER}, BITS, "alone-differs", "holds", "",
    ),
    "server hides that it does": (
        {"rollout": BATCHED, "trainer": SERVER}, BITS, "hides-batching", "void", "at most 1 run",
    ),
    "server warm": (
        {"rollout": SERVER, "trainer": SERVER}, BITS, "warm cannot-empty", "void", "path is cold",
    ),
    "server warm draws and differs": (
        {"rollout": SERVER, "trainer": WIDE}, NEAR, "warm cannot-empty", "differs", "mean_abs_d",
    ),
    "server without a format": (
        {"rollout": SCORED, "trainer": SERVER | {"dtype": "bfloat16"}}, BITS, "",
        "void", "does not say what it runs in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_each_pair_of_sides_has_its_verdict(
    row: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_of_servers, "TRIES", 2)
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    subject, check, faults, verdict, words = ROWS[row]
    together = subject["rollout"] is BATCHED
    (tmp_path / "rollouts.jsonl.part").write_text("of a run that was killed")
    with serving(StandIn(faults=frozenset(faults.split()), holds=together)) as stand_in:
        found = look(kernels_of(written(folder, stand_in.url, check, subject), tmp_path))
    assert (found.outcome, words in found.reason) == (verdict, True), found.reason
    assert found.tokens == (12 if "draws" in row or faults else 27)


def control(kernels: Kernels, name: str) -> Planted:
    (case,) = kernel_cases(kernels.contract, 0)
    return parity.ParityRelation().control(kernels, KernelControl(name, case))


def controls_of(kernels: Kernels) -> dict[str, bool]:
    names = [each.name for each in planned(kernels.contract)]
    return {name: control(kernels, name).caught for name in names}


OF_NUMBERS = {each.name for each in CONTROLS.values() if each.side == "sides" and not each.features}
SCORING = OF_NUMBERS | {"doubled-first-token"}
OF_MODELS = SCORING | {"stale-weights", "other-dtype"}
CAUGHT: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "recorded": ({"rollout": FILE, "trainer": FILE | {"file": "again.jsonl"}}, BITS, OF_NUMBERS),
    "server": ({"rollout": SCORED, "trainer": SERVER}, BITS, SCORING),
    "server draws": ({"rollout": SERVER, "trainer": SERVER}, BITS, SCORING),
    "rollout is a server": ({"rollout": SERVER, "trainer": SCORED, **GIVEN}, BITS, SCORING),
    "rollout is a model": ({"rollout": MODEL, "trainer": FILE, **GIVEN}, BITS, OF_MODELS),
    "two settings": (
        {"rollout": SINGLE, "trainer": SINGLE | {"attention": "eager"}, **GIVEN}, TIGHT, OF_MODELS,
    ),
    "two formats": (
        {"rollout": MODEL, "trainer": SINGLE}, NEAR, OF_MODELS - {"other-dtype"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", CAUGHT)
def test_each_pair_of_sides_has_its_controls(pair: str, folder: Path, tmp_path: Path) -> None:
    subject, check, names = CAUGHT[pair]
    (folder / "again.jsonl").write_bytes((folder / "ids.jsonl").read_bytes())
    with serving(StandIn()) as stand_in:
        kernels = kernels_of(written(folder, stand_in.url, check, subject), tmp_path)
        assert look(kernels).outcome == "holds"
        assert controls_of(kernels) == dict.fromkeys(names, True)
    # Once for all that is planted in numbers, and once for the doubled token: three sequences.
    assert pair != "server" or stand_in.asked.count("/v1/completions") == 2 * 3


def test_a_void_shows_nothing_of_a_check_that_differs(folder: Path, tmp_path: Path) -> None:
    kernels = kernels_of(written(folder, "", NEAR, {"rollout": FILE, "trainer": OTHER}), tmp_path)
    seen = control(kernels, "dropped-sequences")
    assert not seen.caught
    assert seen.seen.startswith("differs: ")
    assert seen.seen.endswith(" (alike)")
    assert float(seen.measured["mean_abs_d"]) > 0.05


def test_as_many_are_dropped_as_show(folder: Path, tmp_path: Path) -> None:
    """One more than may lack a counterpart, whatever the recordings lack already."""
    lines = (folder / "ids.jsonl").read_text().splitlines(keepends=True)
    (folder / "fewer.jsonl").write_text("".join(lines[:-1]))
    subject = {"rollout": FILE, "trainer": FILE | {"file": "fewer.jsonl"}}
    kernels = kernels_of(written(folder, "", BITS | {"unmatched": 1}, subject), tmp_path)
    assert look(kernels).outcome == "holds"
    seen = control(kernels, "dropped-sequences")
    assert (seen.caught, seen.seen) == (True, "void: 2 sequences without a counterpart (2, 1)")


def test_a_doubt_of_one_workload_is_one_of_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_of_servers, "TRIES", 1)
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    workloads = [PROMPTS[0], PROMPTS[0] | {"name": "v"}]
    subject = {"rollout": BATCHED, "trainer": SERVER}
    with serving(StandIn(faults=frozenset({"hides-batching"}), holds=True)) as stand_in:
        kernels = kernels_of(
            written(folder, stand_in.url, BITS, subject, workloads=workloads), tmp_path
        )
        drawn = PathRun.run

        def second_is_shown(run: PathRun) -> Record:
            found = drawn(run)
            stand_in.faults = frozenset()
            return found

        monkeypatch.setattr(PathRun, "run", second_is_shown)
        found = look(kernels)
    assert (found.outcome, found.tokens) == ("void", 24)


def ran(file: Path, run: Path, *, resume: bool = False) -> dict[str, Any]:
    return running.verify(
        load_whole(file), device="cpu", folder=run, jobs=2, resume=resume, command="",
        progress=lambda *_: None,
    ).document()  # fmt: skip


def test_a_run_with_a_server_keeps_its_tokens_and_no_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", "sk-1")
    side = SERVER | {"api": "sglang", "key_variable": "TOY_KEY", "dtype": "bfloat16"}
    subject = {"rollout": side | {"path": "decode"}, "trainer": side, "temperature": 0.7}
    run = tmp_path / "run"
    with serving(StandIn("sglang", frozenset({"dies"}), answers_before_fault=5)) as stand_in:
        file = written(folder, stand_in.url, BITS, subject)
        assert lint(load_whole(file)) == []
        with pytest.raises(SubjectError, match="did it die"):
            ran(file, run)
        tokens = (run / "rollouts.jsonl").read_bytes()
        stand_in.faults = frozenset()
        report = ran(file, run, resume=True)
        (check,) = report["checks"]
        assert (check["verdict"], (run / "rollouts.jsonl").read_bytes()) == ("holds", tokens)
        case = check["cases"][0]
        assert replay(load_whole(file), run, case["id"], "cpu").same
        stand_in.faults = frozenset({"unsteady"})
        assert replay(load_whole(file), run, case["id"], "cpu").same  # scores alone are asked again
        file = written(
            folder, stand_in.url, BITS, subject | {"trainer": side | {"dtype": "float32"}}
        )
        with pytest.raises(SubjectError, match="runs in 'bfloat16'"):
            ran(file, tmp_path / "other")
    found = case["parity"]
    digest = hashlib.sha256(tokens).hexdigest()
    assert found["ids"] == f"drawn into rollouts.jsonl, SHA-256 {digest}"
    assert found["trainer"]["flags"] == {"dtype": "bfloat16", "tp_size": 1, "version": "0.5.23"}
    assert found["trainer"]["about"] == "sglang 0.5.23, model toy"
    first = next(iter(read_rollouts(run / "rollouts.jsonl")))
    assert (first.sampling.temperature, first.sampling.processed) == (0.7, False)
    assert "Bearer sk-1" in stand_in.keys
    files = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not any(b"sk-1" in each for each in files)


def test_a_model_that_draws_is_repeated_and_told_by_its_fingerprint(
    folder: Path, tmp_path: Path
) -> None:
    subject = {"rollout": SINGLE, "trainer": MODEL | {"train": False}, "temperature": 0}
    file = written(folder, "", NEAR, subject)
    report = ran(file, tmp_path / "run")
    (check,) = report["checks"]
    assert check["verdict"] == "holds", check["reason"]
    found = check["cases"][0]["parity"]
    assert found["rollout"]["fingerprint"] == found["trainer"]["fingerprint"]
    assert found["rollout"]["about"].startswith("float32")
    model = tiny.plain(folder / "model", torch.float32)
    for each in read_rollouts(tmp_path / "run" / "rollouts.jsonl"):
        assert each.ids is not None
        assert each.logprobs is not None
        assert each.prompt_ids is not None
        ids, first = torch.from_numpy(each.ids), each.prompt_ids.size
        rows = model(input_ids=ids[None], use_cache=False).logits[0, first - 1 : -1]
        assert rows.argmax(-1).tolist() == each.ids[first:].tolist()
        assert each.logprobs.tolist() == tiny.script(model, ids, first).tolist()
    assert (
        json.loads((tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()[0])["made_by"][
            "engine"
        ]
        == "transformers"
    )


def test_a_rollout_that_scores_a_token_as_nan_differs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_nan(self: ServerScorer, rollouts: Iterator[Rollout]) -> Iterator[tuple[Any, Any]]:
        for each, logprobs in own(self, rollouts):
            logprobs[2] = np.nan
            yield each, logprobs

    own = ServerScorer.score
    monkeypatch.setattr(ServerScorer, "score", one_nan)
    subject = {"rollout": SERVER, "trainer": SCORED, **GIVEN}
    with serving(StandIn()) as stand_in:
        found = look(kernels_of(written(folder, stand_in.url, BITS, subject), tmp_path))
    assert (found.outcome, found.reason) == ("differs", "3 logprobs are NaN or infinite")
