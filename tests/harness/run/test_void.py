"""Whole verifications of the toy: from a contract file to verdict, report and run folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import Toy
from toy_verification import BITS, NEAR, verify

from kvparity.plan.cases import make
from kvparity_contracts import CONTROLS
from kvparity_contracts.planning import in_kernels

SCORING = {"temperature-ignored", "log-of-softmax"}


def reasons(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(check["verdict"], check["reason"]) for check in report["checks"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the toy that is left alone: its place and its report."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        return place, verify(place, patch)


def test_the_toy_holds(whole: tuple[Path, dict[str, Any]]) -> None:
    tmp_path, report = whole
    assert report["verdict"] == "holds"
    assert [check["verdict"] for check in report["checks"]] == ["holds", "holds"]
    assert all(control["caught"] for control in report["controls"])
    # What cannot be reached, or has no check here, is said with `all`, and no more.
    unplanted = {entry["control"] for entry in report["unplanted"]}
    of_kernels = {name for name, row in CONTROLS.items() if in_kernels(row)}
    assert unplanted > {"split-by-batch", "tile-by-query-length"} | of_kernels
    assert unplanted | {entry["name"] for entry in report["controls"]} == set(CONTROLS)
    assert not any(entry["asked"] for entry in report["unplanted"])
    cases = (tmp_path / "run" / "cases.jsonl").read_text().splitlines()
    assert len(cases) == sum(len(check["cases"]) for check in report["checks"])


def test_a_defect_differs_and_its_failure_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, Toy("batch-dependent"), checks=[BITS, NEAR])
    assert report["verdict"] == "differs"
    verdicts = {c["path"]: c["verdict"] for c in report["checks"][0]["cases"]}
    assert verdicts == {"decode": "holds", "batched": "differs"}
    bad = next(c for c in report["checks"][0]["cases"] if c["verdict"] == "differs")
    assert (tmp_path / "run" / bad["evidence"]).is_file()


def test_decode_that_never_decodes_is_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both arms run prefill: bits are equal, and nothing was verified.
    report = verify(tmp_path, monkeypatch, Toy("never-decodes"), checks=[BITS])
    assert report["verdict"] == "void"
    ((verdict, reason),) = reasons(report)
    assert verdict == "void"
    assert "no decode was observed" in reason


FAST, SLOW = {"attention": "fast", "norm": "own"}, {"attention": "slow", "norm": "own"}
SWAPPED = "attention 'fast' was asked for, but 'slow' was used"
UNTOLD = "norm 'own' was asked for, and the subject does not say what was used"


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (FAST, FAST, None),
        (FAST | {"more": 1}, FAST, None),
        (SLOW, FAST, SWAPPED),
        (FAST, SLOW, SWAPPED),
        (FAST, FAST | {"norm": "other"}, "norm 'own' was asked for, but 'other' was used"),
        (FAST, {"attention": "fast"}, UNTOLD),
        (FAST, FAST | {"norm": None}, "norm 'own' was asked for, but None was used"),
    ],
    ids=["as-asked", "more", "first-unit", "second-unit", "second-name", "untold", "none"],
)
def test_a_replaced_backend_is_void_whichever_it_is(
    first: dict[str, Any],
    second: dict[str, Any],
    reason: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``first``, ``second``: what is read back in the first and in the second execution."""

    class Reading(Toy):
        def describe(self, ran: Any = None) -> dict[str, Any]:
            return {"kind": "toy", "requested": FAST, "used": self.used}

    def build(model: Any, *, execution: str, **options: Any) -> Toy:
        subject = Reading()
        subject.used = first if execution == "float32" else second
        return subject

    report = verify(
        tmp_path,
        monkeypatch,
        factory=build,
        numerics={"execution": ["float32", "bfloat16"]},
        workloads=[{"name": "short", "prompt_tokens": [3], "generate": 2}],
        checks=[BITS | {"paths": ["decode"]}],
        controls=["position-off-by-one"],
    )
    assert report["verdict"] == ("holds" if reason is None else "void")
    assert reason is None or reasons(report) == [("void", reason)]


def test_a_control_that_is_not_caught_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Limits so wide that another prompt passes: an accuracy check that proves nothing.
    wide = NEAR | {"limits": {"max_abs_dlogp": 1e3}}
    report = verify(tmp_path, monkeypatch, checks=[BITS, wide])
    assert report["verdict"] == "void"
    assert [verdict for verdict, _ in reasons(report)] == ["holds", "void"]
    reason = reasons(report)[1][1]
    assert reason.startswith("planted and not caught: wrong-input; it measures max_abs_dlogp ")
    # What it names instead sees the control, and lets the subject pass.
    told = re.search(r": a limit of (\S+) would see it$", reason)
    assert told is not None
    narrow = NEAR | {"limits": {"max_abs_dlogp": float(told[1])}}
    (tmp_path / "again").mkdir()
    assert verify(tmp_path / "again", monkeypatch, checks=[BITS, narrow])["verdict"] == "holds"


def test_a_named_control_that_cannot_be_planted_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ["split-by-batch", "stale-slot"]
    report = verify(tmp_path, monkeypatch, checks=[BITS], controls=named)
    assert report["verdict"] == "void"
    assert "split-by-batch was asked for and not planted" in reasons(report)[0][1]


def test_a_cache_out_of_reach_leaves_its_controls_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, Toy("closed-cache"), checks=[BITS])
    assert report["verdict"] == "holds"
    found = {entry["control"]: entry["reason"] for entry in report["unplanted"]}
    assert "a cache that can be reached" in found["stale-slot"]
    assert "a cache that can be reached" in found["narrow-cache"]


def test_a_check_without_any_control_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tmp_path, monkeypatch, checks=[BITS, NEAR], controls=["stale-slot"])
    assert reasons(report)[0][0] == "holds"
    assert reasons(report)[1] == ("void", "no control of relation accuracy was planted")
    assert report["verdict"] == "void"


def test_nothing_but_prompts_is_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One generated token: the path that is named for decoding decodes nothing.
    one = [{"name": "one", "prompt_tokens": [3, 9], "generate": 1}]
    report = verify(tmp_path, monkeypatch, workloads=one, checks=[BITS])
    assert report["verdict"] == "void"
    assert reasons(report) == [("void", "decode: shows nothing in any workload and was not run")]


def test_what_differs_without_its_defect_catches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only permuted is compared, and it holds; decode differs by itself, so a defect planted in
    # decode would be "caught" for nothing.
    check = BITS | {"paths": ["chunked(4)"]}
    report = verify(tmp_path, monkeypatch, Toy("digest-only"), checks=[check])
    seen = {control["name"]: control["seen"] for control in report["controls"]}
    assert seen["narrow-cache"].startswith("it fails without the defect, too: differs")
    assert report["verdict"] == "void"
    fine = {c["name"] for c in report["controls"] if c["caught"]}
    assert fine >= SCORING


class Stopping(Toy):
    """Interrupted after ``after`` forward calls."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def session(self, members: Any, layout: Any) -> Any:
        if self.calls > self.after:
            raise KeyboardInterrupt
        return super().session(members, layout)


@pytest.mark.parametrize(
    "after",
    [pytest.param(10, marks=pytest.mark.slow), 40, pytest.param(65, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_resumes_to_the_same_report(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    whole: tuple[Path, dict[str, Any]],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, monkeypatch, Stopping(after))
    cases = tmp_path / "run" / "cases.jsonl"
    before = cases.read_text().splitlines()
    total = sum(len(unit.cases) for unit in make(toy.contract()).units)
    assert (0 < len(before) < total) == (after < 50)  # the last one stops among the controls
    cases.write_text("\n".join(before) + '\n{"id": "torn')
    resumed = verify(tmp_path, monkeypatch, resume=True)
    after = cases.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == total

    _, fresh = whole
    for key in ("verdict", "checks", "controls", "unplanted"):
        assert resumed[key] == fresh[key], key
