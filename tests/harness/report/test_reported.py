"""What a report is made of, and what a run tells and writes: nothing is computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import run_documents
from carrying import LONG, SHORT, contract, holding
from run_documents import control, unchecked

from kvparity.core.isolation.pool import BadEndError, Here
from kvparity.plan.cases import Omitted, make
from kvparity.plan.kernel_cases import Unplanted
from kvparity.plan.results import CaseLine, ControlLine
from kvparity.relations.order.line import OrderCase, OrderDetails
from kvparity.report.document import CheckOfRun, OmittedPath
from kvparity.report.lines import Launches, UnitLine
from kvparity.report.lines import Sequence as Drawn
from kvparity.report.run_dir import Evidence
from kvparity.report.verdict import Judged, not_modelled, other_than_requested
from kvparity.run import pools as where
from kvparity.run import verify as running
from kvparity.run.jobs import Jobs
from kvparity.run.recheck.outcome import Outcome
from kvparity.subjects.base import UnsupportedError

OURS, TORCH = "products of sm_90 bfloat16", "torch's own mm"
SM_90 = "products of sm_90 were asked for"
UNMODELLED: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "all are the model's": (
        [{"decode": {OURS: 3}, "prefill": {OURS: 1, "attention.decode": 4}}], None,
    ),
    "in float32": ([{"decode": {"products of sm_90 float32": 3}}], None),
    "no unit": ([], f"{SM_90}, and no path ran whose products are counted"),
    "none in the last path of the last unit": (
        [{"decode": {OURS: 3}}, {"prefill": {OURS: 3}, "decode": {"attention.decode": 4}}],
        f"{SM_90}, and decode over u1 computed none that the model reaches",
    ),
    "those of another device": (
        [{"decode": {"products of sm_80 bfloat16": 3}}],
        f"{SM_90}, and decode over u0 computed none that the model reaches",
    ),
    "torch's beside them": (
        [{"decode": {OURS: 3, TORCH: 1}}],
        f"{SM_90}, and decode over u0 took {TORCH}, which the model does not reach",
    ),
    "in TF32": (
        [{"decode": {OURS: 3, "products of sm_90 tf32": 1}}],
        f"{SM_90} with TF32 off, and decode over u0 took products of float32 cut to TF32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNMODELLED)
def test_a_product_that_no_model_reached_is_told(name: str) -> None:
    counts, words = UNMODELLED[name]
    rows = ({"unit": f"u{i}", "observed": each} for i, each in enumerate(counts))
    units = unchecked(UnitLine, *rows)
    asked = contract(numerics={"execution": ["bfloat16"], "device": "sm_90"})
    assert not_modelled(asked, units) == words
    assert not_modelled(contract(), units) is None


FAST, SLOW = {"attention": "fast"}, {"attention": "slow"}
LAID = {"devices": {"": "cuda:0", "head": "cuda:1"}}
REPLACED: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "nothing is asked for": ([{}], None),
    "no unit": ([], None),
    "it was used": ([{"requested": FAST, "used": FAST | {"more": 1}}], None),
    "another was used": (
        [{"requested": FAST, "used": SLOW}], "attention 'fast' was asked for, but 'slow' was used",
    ),
    "it is not told": (
        [{"requested": FAST, "used": {}}],
        "attention 'fast' was asked for, and the subject does not say what was used",
    ),
    "nothing is told": (
        [{"requested": FAST}],
        "attention 'fast' was asked for, and the subject does not say what was used",
    ),
    "in the last unit": (
        [{"requested": FAST, "used": FAST}, {}, {"requested": FAST, "used": SLOW}],
        "attention 'fast' was asked for, but 'slow' was used",
    ),
    "a module lies as asked": ([{"requested": LAID, "used": LAID}], None),
    "a module lies elsewhere": (
        [{"requested": LAID, "used": {"devices": {"": "cuda:0", "head": "cuda:0"}}}],
        "devices['head'] 'cuda:1' was asked for, but 'cuda:0' was used",
    ),
    "a module is offloaded": (
        [{"requested": LAID, "used": {"devices": {"": "cuda:0, meta", "head": "cuda:1"}}}],
        "devices[''] 'cuda:0' was asked for, but 'cuda:0, meta' was used",
    ),
    "a module is not told": (
        [{"requested": LAID, "used": {"devices": {"": "cuda:0"}}}],
        "devices['head'] 'cuda:1' was asked for, and the subject does not say what was used",
    ),
    "no module is told": (
        [{"requested": LAID, "used": {"devices": None}}],
        "devices {'': 'cuda:0', 'head': 'cuda:1'} was asked for, but None was used",
    ),
    "the second of two": (
        [{"requested": {"a": 1, "b": 2}, "used": {"a": 1, "b": 3}}],
        "b 2 was asked for, but 3 was used",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLACED)
def test_what_was_used_in_place_of_what_was_asked_for_is_told(name: str) -> None:
    subjects, words = REPLACED[name]
    assert other_than_requested(unchecked(UnitLine, *({"subject": it} for it in subjects))) == words


CHECK = Judged("c", "cache", "void", "why", (), (Omitted("c", "w", "decode", "so"),))


@pytest.mark.parametrize("units", [2, 0])
def test_a_report_is_in_the_order_of_the_plan_and_has_every_kernel(
    units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contract(workloads=[SHORT, LONG])
    work = make(own)
    if not units:
        work = replace(work, units=())
    lines = [
        UnitLine(
            unit=unit.id, sequences=(Drawn(id="w/0", prompt=1, ids=(0, 1)),), observed={},
            subject={"kind": unit.workload}, seconds={}, rows={}, launches={
                path: Launches(counts={}, kernels={f"{path} of {unit.workload}": {"a": 1}})
                for path in "ab"
            },
        )
        for unit in work.units
    ]  # fmt: skip
    found = unchecked(CaseLine, *({"id": c.id} for unit in work.units for c in unit.cases))
    orders = unchecked(OrderDetails, *({"kernels": {c.id: {"a": 2}}} for c in work.kernel_cases))
    found += unchecked(
        OrderCase,
        *({"id": c.id, "details": it} for c, it in zip(work.kernel_cases, orders, strict=True)),
    )
    ran = [
        ControlLine.model_validate(control(name=c.control, relation=c.relation))
        for c in work.every_control
    ]
    folder = holding(
        monkeypatch, cases=found[::-1], units=lines[::-1], controls=list(reversed(ran))
    )
    judged: list[Any] = []
    monkeypatch.setattr(running, "judged", lambda units, results, fresh: results)
    monkeypatch.setattr(running, "judge", lambda *given: judged.append(given) or ("void", [CHECK]))
    loaded: Any = SimpleNamespace(
        contract=own, path="c.yaml", base=tmp_path, sha256="ab", prompt_files=()
    )
    (tmp_path / "identity.json").write_text(json.dumps({"command": "kvparity verify", "path": "c"}))
    left = (Unplanted("x", "order", "why", asked=True),)
    place: Any = SimpleNamespace(document=lambda: {"device": "d"})
    report = running._report(loaded, work, Evidence(tmp_path), place, left, Outcome({}))
    ((_, _, results, in_order, unplanted, replaced),) = judged
    assert [each.id for each in results] == sorted(each.id for each in found)
    assert (in_order, unplanted, replaced) == (ran, left, None)
    entry = CheckOfRun(
        name="c", relation="cache", verdict="void", reason="why", cases=(),
        omitted=(OmittedPath(workload="w", path="decode", reason="so"),),
    )  # fmt: skip
    assert (report["verdict"], report["checks"], report["controls"]) == ("void", [entry], ran)
    assert report["subject"] == ({"kind": "short"} if units else {})
    kernels = {f"{path} of {unit.workload}": {"a": 1} for unit in work.units for path in "ab"}
    assert report["kernels"] == kernels | {case.id: {"a": 2} for case in work.kernel_cases}
    assert report["unplanted"] == [
        {"control": "x", "relation": "order", "reason": "why", "asked": True}
    ]
    assert folder.whole_seen == 1


def test_a_setting_that_the_environment_overrides_ends_a_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contract()
    loaded: Any = SimpleNamespace(
        contract=own, path="c.yaml", base=tmp_path, sha256="ab", prompt_files=()
    )
    texts = SimpleNamespace(loaded=loaded)
    monkeypatch.setattr(running, "given", lambda loaded: texts)
    monkeypatch.setattr(where, "overridden", lambda device: f"{device}: X=1 is set")
    with pytest.raises(UnsupportedError, match="cpu: X=1 is set"):
        running.verify(
            loaded, device="cpu", folder=tmp_path / "run", jobs=1, resume=False, command="",
            progress=lambda *_: None,
        ).document()  # fmt: skip
    assert not (tmp_path / "run").exists()


PARTS = run_documents.report("holds", run_documents.case())
TILES = {"arch": None}
TEXTS = {"by": "byte by byte", "ids": {"w": [[1, 2], [3]]}}


class Noting(Here):
    """Does nothing, and notes when it is to end."""

    def __init__(self, seen: list[str], error: Exception | None) -> None:
        self.seen, self.error = seen, error

    def finish(self) -> None:
        self.seen.append("finished")
        if self.error is not None:
            raise self.error


def verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """A run whose parts are made up; its report, and what was told and done in order."""
    own = contract()
    loaded: Any = SimpleNamespace(
        contract=own, path="c.yaml", sha256="ab", raw=b"", prompt_files=()
    )
    texts = SimpleNamespace(loaded=loaded, identity=lambda: {}, json=lambda: TEXTS)
    clock = iter([10.0, 11.23456])
    seen: list[Any] = []
    made_up: dict[str, Any] = {
        "given": lambda loaded: texts,
        "settle": lambda: seen.append("settled"),
        "identity": lambda *_: {"kvparity": 1},
        "time": SimpleNamespace(perf_counter=lambda: next(clock)),
        "_cases": lambda *_: {},
        "_controls": lambda *_: (),
        "_recheck": lambda *_: Outcome({}),
        "_report": lambda *_: PARTS,
    }
    pools: Any = SimpleNamespace(
        seen=lambda job: SimpleNamespace(setting=SimpleNamespace(document=dict), tiles={}),
        tiles=lambda job: TILES,
        jobs=lambda job, asked: Jobs(asked, "as asked for"),
        open=lambda *_: Noting(seen, error),
    )
    for name, value in made_up.items():
        monkeypatch.setattr(running, name, value)
    report = running.verify(
        loaded, device="cpu", folder=folder, jobs=1, resume=False, command="words",
        progress=lambda *given: seen.append(given), pools=pools,
    ).document()  # fmt: skip
    return report, seen


def test_a_run_tells_how_much_there_is_to_do_and_writes_the_report_that_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    report, seen = verified(folder, monkeypatch)
    total = sum(len(unit.cases) for unit in make(contract()).units) + 2
    assert seen == ["settled", (0, total, "starting"), "finished"]
    assert report == PARTS | {
        "tiles": {"arch": None}, "texts": TEXTS, "jobs": None,
        "run_dir": str(folder), "elapsed_s": 1.23,
    }  # fmt: skip
    assert json.loads((folder / "run.json").read_text()) == report


def test_a_process_that_ends_badly_leaves_a_note_and_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(BadEndError, match="worker 3 died"):
        verified(folder, monkeypatch, BadEndError("worker 3 died"))
    assert not (folder / "run.json").exists()
    assert "worker 3 died" in "".join(x.read_text() for x in folder.iterdir() if x.is_file())
