"""Goals, judged on documents made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.labs.bench import cases as sizes
from kvparity.labs.bench import text
from kvparity.labs.bench.calls import OURS
from kvparity.labs.bench.cases import SHAPES
from kvparity.labs.bench.goals import GOALS, judge
from kvparity.labs.bench.measure import CaseTimes
from kvparity.labs.bench.timing import Time

SHAPE = SHAPES["qwen3-8b"]
SHORT, LONG = sizes.decode(SHAPE, 8, 1024), sizes.decode(SHAPE, 8, 32_768)
MANY, FEW, BETWEEN = (sizes.linear(SHAPE, rows, 4096, 6144) for rows in (64, 8, 32))
STEP = sizes.step(SHAPE, 8, 1, 1024)


def at(ms, run="a"):
    return Time(ms, ms, ms, run)


def found(case, run="a", cannot=(), **ms):
    times = {name.replace("_", " "): at(value, run) for name, value in ms.items()}
    return CaseTimes(case, times, dict(cannot))


def document(*measured, rate=4000.0, copy_run="a"):
    return {
        "run": "a",
        "copy": {"run": copy_run, "gb_per_s": rate},
        "cases": [each.json() for each in measured],
    }


def answers(*measured, **more):
    return {row.goal: row for row in judge(document(*measured, **more))}


def test_every_goal_of_a_run_that_measured_nothing_is_not_measured():
    rows = answers()
    assert {row.verdict for row in rows.values()} == {"not measured"}
    assert set(rows) == {goal.name for goal in GOALS}


def test_speed_is_met_at_the_threshold_and_missed_below():
    good = answers(found(SHORT, ours=10.0, sdpa=9.0, flashinfer=9.5))["decode attention"]
    assert (good.verdict, good.factor, good.missed) == ("met", 1.0, ())
    bad = answers(found(SHORT, ours=10.0, sdpa=9.0, flashinfer=6.0))["decode attention"]
    assert (bad.verdict, bad.worst, bad.missed) == ("missed", SHORT.name, (SHORT.name,))
    assert bad.values == {SHORT.name: 0.6}
    assert bad.factor == 1.5  # so many times as fast would do


def test_the_worst_case_decides():
    rows = answers(
        found(SHORT, ours=1.0, sdpa=1.0, flashinfer=1.0),
        found(LONG, ours=2.0, sdpa=1.0, flashinfer=1.0),
    )
    row = rows["decode attention"]
    assert (row.verdict, row.worst, row.missed) == ("missed", LONG.name, (LONG.name,))
    assert row.values == {SHORT.name: 1.0, LONG.name: 0.5}


def test_bandwidth_is_that_of_a_copy_from_32k_keys_on():
    ms = LONG.bytes / 1e6 / 4000.0  # as fast as the copy
    assert answers(found(LONG, ours=ms / 0.86))["decode bandwidth"].verdict == "met"
    assert answers(found(LONG, ours=ms / 0.84))["decode bandwidth"].verdict == "missed"
    assert answers(found(SHORT, ours=9.0))["decode bandwidth"].verdict == "not measured"


def test_rows_choose_the_goal_of_a_linear():
    rows = answers(found(MANY, ours=1.0, torch=0.86), found(FEW, ours=1.0, torch=0.86))
    assert rows["linear, many rows"].verdict == "met"
    assert rows["linear, few rows"].verdict == "missed"
    neither = answers(found(BETWEEN, ours=9.0, torch=1.0))
    assert {row.verdict for row in neither.values()} == {"not measured"}


def test_a_step_is_compared_with_the_fastest_that_is_not_ours():
    ways = {"sdpa_and_cublas": 10.0, "sdpa_and_torch": 20.0, "ours_with_sdpa_attention": 1.0}
    rows = answers(found(STEP, ours=10.8, **ways))
    assert rows["step"].verdict == "met"
    assert rows["step"].values == {STEP.name: 1.08}
    assert rows["step, later"].verdict == "missed"
    assert rows["step, later"].factor == pytest.approx(1.08 / 1.05, abs=1e-4)


def test_variants_of_ours_meet_no_goal():
    rows = answers(found(SHORT, ours=10.0, ours_split_64=1.0, sdpa=6.0, flashinfer=6.0))
    assert rows["decode attention"].values == {SHORT.name: 0.6}


def test_what_was_not_there_is_said():
    row = answers(found(SHORT, ours=1.0, sdpa=1.0))["decode attention"]
    assert row.verdict == "met"
    assert row.note == "fastest of what was here: without flashinfer (not here)"
    broken = found(SHORT, cannot={"flashinfer": "no nvcc"}, ours=1.0, sdpa=1.0)
    also = found(LONG, ours=1.0, sdpa=1.0, flashinfer=1.0)
    note = answers(broken, also)["decode attention"].note
    assert note.endswith("without flashinfer in 1 of 2 cases (no nvcc)")
    alone = answers(found(SHORT, ours=1.0))["decode attention"]
    assert (alone.verdict, alone.unknown) == ("not measured", (SHORT.name,))
    left = CaseTimes(LONG, {}, {}, "needs much")
    some = answers(found(SHORT, ours=1.0, sdpa=1.0), left)["decode attention"]
    assert (some.verdict, some.unknown) == ("met", (LONG.name,))


@pytest.mark.parametrize(
    "mixed",
    [
        document(found(SHORT, ours=1.0, sdpa=1.0), found(LONG, run="b", ours=1.0)),
        document(found(SHORT, run="b", ours=1.0)),
        document(found(LONG, ours=1.0), copy_run="b"),
    ],
)
def test_two_runs_are_refused(mixed, tmp_path, capsys):
    with pytest.raises(ValueError, match="different runs"):
        judge(mixed)
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(mixed))
    assert main(["bench", "--show", str(file)]) == ExitCode.USAGE
    assert "different runs (a, b)" in capsys.readouterr().err


def test_goals_are_told_with_how_much_is_missing(tmp_path, capsys):
    made = document(
        found(SHORT, ours=1.0, ours_split_64=0.5, sdpa=0.6),
        CaseTimes(LONG, {}, {}, "needs much"),
        found(MANY, ours=1.0, torch=1.0),
        found(STEP, ours=1.2, sdpa_and_cublas=1.0),
    )
    made["copy"] |= {"before": 4000.0, "after": 3000.0}
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(made))
    assert main(["bench", "--show", str(file)]) == ExitCode.HOLDS
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    name = "decode batch 8, keys 1024"
    assert (
        f"decode attention speed >= 0.90 missed in 1 of 1, needs to be x 1.50 as fast 0.60 {name}"
        in lines
    )
    assert f"decode attention is missed in {name} (0.60)" in lines
    assert f"decode attention does not know of {LONG.name}" in lines
    assert any(line.startswith("decode attention: fastest of what was here") for line in lines)
    assert "decode bandwidth bandwidth >= 0.85 not measured" in lines
    assert f"linear, many rows speed >= 0.85 met 1.00 {MANY.name}" in lines
    assert f"{STEP.name}: ours 1.200 ms; sdpa and cublas x 0.83" in lines
    assert "a copy moved 4000.0 GB/s before" in said
    assert "x 2.00 (64)" in said


def test_the_page_lists_every_goal_as_not_measured():
    page = (Path(__file__).parents[4] / "docs" / "bench.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.endswith("| not measured |")
    ]
    assert [(row[0], row[1]) for row in rows] == [(goal.name, goal.needed) for goal in GOALS]
    for row, goal in zip(rows, GOALS, strict=True):
        assert row[3] == f"`kvparity bench --only {' '.join(goal.whats)}`"


def test_candidates_are_told_beside_ours():
    each = CaseTimes(MANY, {OURS: at(1.0), "ours [a]": at(2.0), "ours [b]": at(0.5)}, {})
    assert text.tiles([each]).endswith("ours 1.0000 ms; [b] x 0.50; [a] x 2.00")
    assert text.tiles([found(MANY, ours=1.0, torch=1.0)]) == ""
    assert text.drift({"before": 100.0, "after": 99.0}) == text.drift(None) == ""
