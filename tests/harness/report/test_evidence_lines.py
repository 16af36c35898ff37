"""Lines of a run folder that nobody ran: one with one thing changed, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import case_details
import pytest
import toy
from case_details import PLACE, RANKS
from planned_lines import (
    CASES,
    CONTRACT,
    FILES,
    PLANNED,
    READERS,
    WORK,
    Line,
    believed,
    case_line,
    kept,
    path_line,
    planned,
    rows_at,
    unit_line,
)

from kvparity.plan.cases import make
from kvparity.report import evidence_check, evidence_paths
from kvparity.report.run_dir import RunFolderError


def test_what_is_planned_and_whole_is_given_back_in_its_order(tmp_path: Path) -> None:
    lines = planned()
    assert len(WORK.units) == 2
    assert all(len(each) > 1 for each in lines.values())
    lines["cases.jsonl"].reverse()
    assert believed(kept(tmp_path, lines)) == lines


def test_which_paths_of_a_unit_run_with_a_probe() -> None:
    unit = next(unit for unit in WORK.units if unit.workload == "short")
    wanted = {("decode", True), ("mixed", True)}
    wanted |= {(path, False) for path in ("prefill", "decode", "batched", "mixed")}
    assert evidence_paths.planned_paths(unit) == wanted


def spoilt(lines: list[Line], change: dict[str, Any]) -> None:
    """The last line of these, changed."""
    lines[-1] = lines[-1] | change


def without_end(sequence: Line) -> Line:
    return sequence | {"ids": sequence["ids"][:-1]}


SEQUENCES: dict[str, tuple[Callable[[list[Line]], list[Line]], str]] = {
    "one is gone": (lambda own: own[1:], "its sequences are ['padded/1', 'padded/2'], and"),
    "one twice": (lambda own: [*own, own[0]], "'padded/0'], and"),
    "another name": (lambda own: [own[0] | {"id": "x"}, *own[1:]], "its sequences are ['x',"),
    "a token is gone": (lambda own: [*own[:2], without_end(own[2])], "padded/2 has 11 ids and a"),
    "a token of the prompt is generated": (
        lambda own: [*own[:2], own[2] | {"prompt": 8}], "a prompt of 8, and 12 and 9 are",
    ),
    "another prompt": (
        lambda own: [own[0] | {"ids": [own[0]["ids"][0] + 1, *own[0]["ids"][1:]]}, *own[1:]],
        "the prompt of padded/0 is not the one that is planned",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_that_are_not_the_workloads_are_refused(name: str, tmp_path: Path) -> None:
    change, words = SEQUENCES[name]
    line = unit_line(WORK.units[-1].id)
    changed = line | {"sequences": change(line["sequences"])}
    with pytest.raises(RunFolderError) as error:
        evidence_check.units(kept(tmp_path, {"units.jsonl": [changed]}), CONTRACT, WORK)
    assert str(error.value).startswith(f"{tmp_path}/units.jsonl:1: ")
    assert words in str(error.value)


def test_ids_of_a_kernel_pair_are_zeros(tmp_path: Path) -> None:
    line = unit_line(WORK.units[-1].id)
    zeros = [each | {"ids": [0] * len(each["ids"])} for each in line["sequences"]]
    evidence = kept(tmp_path, {"units.jsonl": [line | {"sequences": zeros}]})
    assert len(evidence_check.units(evidence, CONTRACT, WORK)) == 1


PATHS: dict[str, tuple[dict[str, Any], str]] = {
    "another unit": ({"unit": "w"}, "the unit 'w' is not in this contract's plan"),
    "another path": ({"path": "shifted(7)"}, "without a probe is not planned"),
    "steps that are not drawn": ({"steps": "steps(0:0)"}, "ran other steps than are drawn now"),
    "rows that are not in order": ({"rows": rows_at((0, 2), (0, 1))}, "its rows are at [[0, 2]"),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_with_one_thing_changed_is_refused(name: str, tmp_path: Path) -> None:
    change, words = PATHS[name]
    line = path_line(WORK.units[-1].id, "prefill", probed=False)
    evidence_paths.check(kept(tmp_path, {"paths.jsonl": [line]}), WORK)
    with pytest.raises(RunFolderError) as error:
        evidence_paths.check(kept(tmp_path, {"paths.jsonl": [line | change]}), WORK)
    assert str(error.value).startswith(f"{tmp_path}/paths.jsonl:1: ")
    assert words in str(error.value)


def test_a_path_is_planned_with_a_probe_or_without(tmp_path: Path) -> None:
    line = path_line(WORK.units[-1].id, "prefill", probed=True)
    with pytest.raises(RunFolderError, match=r"jsonl:1: path prefill of .* with a probe is not"):
        evidence_paths.check(kept(tmp_path, {"paths.jsonl": [line]}), WORK)


def test_a_path_that_stands_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    lines = planned()
    lines["paths.jsonl"].append(lines["paths.jsonl"][0])
    with pytest.raises(RunFolderError, match=r"paths\.jsonl:\d+: line 1 holds path .* already"):
        evidence_paths.check(kept(tmp_path, lines), WORK)


def changes() -> list[tuple[str, str, Any]]:
    """(file, key, another value) of everything that the plan says of a line."""
    keys = {
        "cases.jsonl": ("check", "relation", "dtype", "kv_cache", "path", "reference", "workload",
                        "temperature"),
        "controls.jsonl": ("by", "workload", "path", "numerics", "expected", "relation"),
    }  # fmt: skip
    return [(file, key, other) for file in keys for key in keys[file] for other in (None, "other")]


@pytest.mark.parametrize(("file", "key", "other"), changes())
def test_a_line_that_says_otherwise_than_the_plan_is_refused(
    file: str, key: str, other: Any, tmp_path: Path
) -> None:
    lines = planned()
    first = lines[file][0]
    assert first[key] not in (other, "other")
    lines[file] = [first | {key: other}]
    evidence = kept(tmp_path, lines)
    with pytest.raises(RunFolderError, match=rf"{file}:1"):
        READERS[file](evidence)


PLACES = [PLACE | {"process": number, "node": f"n{number}"} for number in (1, 2)]
RAN = [RANKS | {"ranks": ranks, "path": path} for ranks, path in ((1, "decode"), (2, "decode"))]
DECODER = {
    "kind": "decoder", "row_blocks": 4,
    "config": {"vocab_size": 256, "hidden_size": 16, "intermediate_size": 16, "layers": 1,
               "heads": 4, "kv_heads": 4, "head_dim": 4, "max_positions": 32},
}  # fmt: skip
LESS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "processes": ({"times": 3}, {"runs": PLACES}, "by 2 processes, and 3 were asked for"),
    "nodes": (
        {"times": 2, "across": "nodes"},
        {"runs": [place | {"node": "a"} for place in PLACES]},
        "on 1 node, and 2 were asked for",
    ),
    "the reference": (
        {"ranks": [1, 2]}, {"found": RAN}, "and prefill at 2 ranks was not compared",
    ),
    "a number of ranks": (
        {"ranks": [1, 2, 4]}, {"found": [*RAN, RANKS | {"path": "prefill"}]},
        "and decode at 4 ranks was not compared",
    ),
    "one rank": (
        {"ranks": [1, 2]}, {"found": [RANKS, RANKS | {"path": "prefill"}]},
        "and decode at 1 rank was not compared",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LESS)
def test_what_holds_by_less_than_its_check_asks_is_refused(name: str, tmp_path: Path) -> None:
    asked, details, words = LESS[name]
    relation = "reproduction" if "times" in asked else "tp-invariance"
    subject = {"subject": DECODER} if relation == "tp-invariance" else {}
    check = {"name": "c", "relation": relation, "paths": ["decode"]} | asked
    contract = toy.contract(**subject, checks=[check], controls="all")
    work = make(contract)
    case = work.units[0].cases[0]
    more = case_details.line(relation, "holds", details)
    told = more | {key: it for key, it in case_line(case).items() if key in PLANNED}
    evidence = kept(tmp_path, {"cases.jsonl": [told]})
    with pytest.raises(RunFolderError, match=f"it holds.* {words}"):
        evidence_check.cases(evidence, contract, work)
    assert evidence_check.cases(kept(tmp_path, {"cases.jsonl": [told | {"verdict": "void"}]}),
                                contract, work)  # fmt: skip


@pytest.mark.parametrize("file", ["cases.jsonl", "units.jsonl", "controls.jsonl"])
@pytest.mark.parametrize("name", ["c999", ["c000"], None, 3])
def test_a_name_that_is_not_planned_is_refused(file: str, name: Any, tmp_path: Path) -> None:
    lines = planned()
    key = {"cases.jsonl": "id", "units.jsonl": "unit", "controls.jsonl": "name"}[file]
    spoilt(lines[file], {key: name})
    evidence = kept(tmp_path, lines)
    with pytest.raises(RunFolderError, match=rf"{file}:{len(lines[file])} .*not plan"):
        READERS[file](evidence)


@pytest.mark.parametrize("file", ["cases.jsonl", "units.jsonl"])
@pytest.mark.parametrize("gone", [slice(0, 1), slice(-1, None)], ids=["first", "last"])
def test_a_line_that_is_gone_is_named(file: str, gone: slice, tmp_path: Path) -> None:
    lines = planned()
    (line,) = lines[file][gone]
    del lines[file][gone]
    name = line["id" if file == "cases.jsonl" else "unit"]
    with pytest.raises(RunFolderError) as error:
        evidence_check.whole(kept(tmp_path, lines), WORK)
    assert str(error.value).startswith(f"{tmp_path / file} has no line of {name!r}, which ran")


def test_of_many_lines_that_are_gone_eight_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as error:
        evidence_check.whole(kept(tmp_path, {file: [] for file in FILES}), WORK)
    names = ", ".join(repr(case.id) for case in CASES[:8])
    assert f"has no line of {names}, which" in str(error.value)


def test_what_only_a_report_says_of_a_case_is_no_line_of_it(tmp_path: Path) -> None:
    found = next(case for case in CASES if case.relation == "cache")
    line = case_line(found) | {"verdict": "differs"}
    line |= {"tokens": 1, "differing_tokens": 1, "recheck": "differs"}
    evidence = kept(tmp_path, {"cases.jsonl": [line]})
    with pytest.raises(RunFolderError, match=r"cases\.jsonl:1: case .* only a report says"):
        evidence_check.cases(evidence, CONTRACT, WORK)
