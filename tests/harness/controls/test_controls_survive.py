"""No control ends a run, and controls are planted where they fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
import toy_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import GeneratingToy

from kvparity.controls.linears import linear_kernel_by_rows
from kvparity.controls.table import PLANTS
from kvparity.plan.cases import make
from kvparity.plan.kernel_cases import KernelCase, KernelControl, KernelNumerics
from kvparity.plan.results import ControlLine
from kvparity.plan.schedule import Layout, Member
from kvparity.report.run_dir import Evidence
from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity.run.unit import Setting, run_unit
from kvparity.subjects.base import Subject, SubjectError, UnsupportedError
from kvparity.subjects.decoder.subject import build
from kvparity_contracts.loader import load
from kvparity_contracts.placing import Edge
from kvparity_contracts.subjects import Decoder

BITS = {"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]}


def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    """The report of a verification of the toy, or of the subject that ``changes`` name."""
    if "subject" not in changes:
        monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: toy.Toy())
    monkeypatch.setattr(worker, "_subjects", {})
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(toy.document(**changes)))
    return verification.verify(
        load(file), device="cpu", folder=tmp_path / "run", jobs=1, resume=False,
        command="kvparity verify contract.yaml", progress=lambda done, total, what: None,
    ).document()  # fmt: skip


def raising(error: BaseException) -> Callable[[Subject], Subject]:
    def plant(subject: Subject) -> Subject:
        raise error

    return plant


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (SubjectError("rows of the\nwrong shape"), "rows of the wrong shape"),
        (RuntimeError("size mismatch"), "RuntimeError: size mismatch"),
        (MemoryError(), "out of memory"),
        (SystemExit(0), "the subject ended the process"),
        (AssertionError(), "AssertionError: without a message"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_control_that_raises_is_not_caught_and_the_report_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, seen: str
) -> None:
    monkeypatch.setitem(PLANTS, "stale-slot", raising(error))
    report = verify(tmp_path, monkeypatch, checks=[BITS])
    entries = {entry["name"]: entry for entry in report["controls"]}
    assert not entries["stale-slot"]["caught"]
    assert entries["stale-slot"]["seen"].startswith("the run with it ended: ")
    assert seen in entries["stale-slot"]["seen"]
    assert "\n" not in entries["stale-slot"]["seen"]
    assert all(entry["caught"] for name, entry in entries.items() if name != "stale-slot")
    assert report["verdict"] == "void"
    assert report["checks"][0]["reason"] == "planted and not caught: stale-slot"
    assert {case["verdict"] for case in report["checks"][0]["cases"]} == {"holds"}
    assert (tmp_path / "run" / "run.json").is_file()


def test_a_control_that_cannot_be_planted_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLANTS, "stale-slot", raising(UnsupportedError("no slot here")))
    report = verify(tmp_path, monkeypatch, checks=[BITS])
    assert {e["reason"] for e in report["unplanted"] if e["control"] == "stale-slot"} == {
        "no slot here"
    }
    assert report["verdict"] == "holds"


def test_a_control_of_kernels_that_raises_is_not_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: toy.Toy())
    monkeypatch.setattr(worker, "_subjects", {})
    monkeypatch.setitem(PLANTS, "ragged-split", raising(RuntimeError("gone")))
    case = KernelCase("c000", "order", "order", KernelNumerics("float32", "float32"), keys=17)
    job = worker.Job(toy.contract(), tmp_path, "cpu", tmp_path)
    worker.do_kernel_control(job, KernelControl("ragged-split", case))
    ((_, found),) = Evidence(tmp_path).read(ControlLine)
    assert (found.caught, found.seen) == (False, "the run with it ended: RuntimeError: gone")


# places that fit


def test_a_padded_prompt_fits_into_the_ring_of_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "vocab_size": 128, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1,
        "kv_heads": 1, "head_dim": 16, "max_positions": 64, "sliding_window": 20,
    }  # fmt: skip
    report = verify(
        tmp_path,
        monkeypatch,
        subject={"kind": "decoder", "config": config, "cache": {"ring": True}},
        numerics={"execution": "float32"},
        workloads=[{"name": "w", "prompts": [[1, 2], list(range(30))], "generate": 2,
                    "pad": ["left"]}],
        checks=[BITS | {"paths": ["padded-left"]}],
        controls=["padding-mask-skipped-alone", "padding-leaks"],
    )  # fmt: skip
    assert {e["name"]: e["caught"] for e in report["controls"]} == {
        "padding-mask-skipped-alone": True,
        "padding-leaks": True,
    }
    assert report["verdict"] == "holds"


def test_a_prompt_whose_pads_do_not_fit_is_left_alone() -> None:
    subject = PLANTS["padding-mask-skipped-alone"](toy.Toy())
    longest = [Member("m", toy_cache.POSITIONS, toy_cache.POSITIONS - 1)]
    with pytest.raises(
        UnsupportedError, match=f"513 tokens, but .* {toy_cache.POSITIONS} positions"
    ):
        subject.session(longest, Layout(batch="left"))


TRAINER = {
    "name": "trainer", "relation": "invariance", "reference": "padded-right", "paths": ["generate"],
}  # fmt: skip


@pytest.mark.usefixtures("every_path")
def test_a_padded_trainer_is_a_reference_that_gives_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: GeneratingToy())
    model: dict[str, Any] = toy.document()["subject"]
    load_of = [{"name": "w", "prompt_tokens": [5, 9], "generate": 3, "pad": ["right"]}]
    report = verify(tmp_path, monkeypatch, subject=model, workloads=load_of, checks=[TRAINER])
    caught = {entry["name"]: entry["caught"] for entry in report["controls"]}
    assert caught["narrow-cache"]
    assert all(caught.values())
    assert report["verdict"] == "holds"


@pytest.mark.usefixtures("every_path")
def test_a_reference_that_decodes_does_without_the_defect_of_both_sides() -> None:
    # A padded trainer: its steps decode as the rollout's do, and a narrow cache on both sides
    # would be the same on both.
    setting = Setting(toy.contract(checks=[TRAINER]), GeneratingToy())
    work = make(setting.contract)
    (unit,) = [each for each in work.units if each.workload == "short"]
    found = run_unit(setting, unit, tokens=None, done=frozenset(), emit=lambda *_: None)
    tokens = found.tokens
    job = next(each for each in work.controls if each.control == "narrow-cache")
    assert job.alone
    assert toy.run_control(setting, job, tokens)[0]
    assert not toy.run_control(setting, replace(job, alone=False), tokens)[0]
    # Against prefill both sides have it, as the system would.
    plain = make(toy.contract(checks=[BITS])).controls
    assert not any(each.alone for each in plain)


@given(st.integers(1, 50), st.sampled_from([16, 32]), st.integers(0, 150))
@settings(deadline=None)
def test_an_edge_is_found_where_the_window_holds_it(window: int, every: int, start: int) -> None:
    def cut(position: int) -> bool:
        seen = range(max(0, position - window + 1), position + 1)
        return any(key % (2 * every) == every for key in seen[1:])

    wanted = next((p for p in range(start, start + 8) if cut(p)), None)
    assert Edge(window, every).first(start, start + 8) == wanted


WINDOWED = {
    "vocab_size": 128, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1,
    "kv_heads": 1, "head_dim": 16, "max_positions": 160, "sliding_window": 10,
}  # fmt: skip
NARROW = {
    "subject": {"kind": "decoder", "config": WINDOWED,
                "order": {"split": 64, "tile": 32, "block_m": 16}},
    "numerics": {"execution": "float32"},
    "checks": [BITS],
}  # fmt: skip


def test_another_order_shows_where_a_window_holds_its_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tiles of 16 cut at 48, tiles of 32 do not: only rows 49 to 57 see across it.
    names = ["tile-by-query-length", "tile-by-mean-query", "order-by-launch", "stale-slot"]
    seeing = [{"name": "w", "prompt_tokens": [47], "generate": 6}]
    report = verify(tmp_path, monkeypatch, **NARROW, workloads=seeing, controls=names)
    assert {e["name"]: e["caught"] for e in report["controls"]} == dict.fromkeys(names, True)
    beyond = [{"name": "w", "prompt_tokens": [66], "generate": 6}]
    left = make(toy.contract(**NARROW, workloads=beyond, controls=names)).unplanted
    assert [each.control for each in left] == names[:3]
    assert "whose window of 10 keys goes over an odd multiple of 16" in left[0].reason


def test_every_long_prompt_is_multiplied_otherwise_than_one_row() -> None:
    depths: list[int] = []

    def linear(x: torch.Tensor, w: torch.Tensor, *_: Any, **more: Any) -> torch.Tensor:
        depths.append(x.shape[1])
        return torch.zeros(len(x), len(w))

    subject = build(
        Decoder.model_validate({"kind": "decoder", "config": WINDOWED}), execution="float32",
        kv_cache="float32", device=torch.device("cpu"), seed=0, base=Path(),
    )  # fmt: skip
    planted = linear_kernel_by_rows(subject.with_ops(replace(subject.ops, linear=linear)))
    for rows in (1, 32, 66, 100, 128, 300, 1000):  # at 66 to 128 rows nothing was split before
        depths.clear()
        planted.ops.linear(torch.zeros(rows, 16), torch.zeros(16, 16))
        assert (len(depths) == 1) == (rows == 1), rows
