"""Each kind of line as its model writes and reads it: one good line, and one table of bad ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kvparity.report.lines import PathLine, UnitLine
from kvparity.report.run_dir import Evidence, RunFolderError


def rows(*places: tuple[Any, Any], digest: Any = "0x" + "0" * 16, bits: Any = ("0x1",)) -> Any:
    return [[*place, digest, [*bits]] for place in places]


PROBED = {
    "unit": "u", "path": "decode", "probed": True, "observed": {"attention.decode": 0},
    "launches": {"counts": {"attention": 2}, "kernels": {"attention": {"SPLIT": 64}}},
    "seconds": None,
}  # fmt: skip
PATH = PROBED | {"probed": False, "seconds": 0.5, "rows": rows((0, 1), (0, 3), bits=("0x1", "0xf"))}
ROW = PATH["rows"][0]
ABSENT: Any = object()
LAUNCHES = PATH["launches"]


@pytest.mark.parametrize("line", [PATH, PROBED, PATH | {"rows": []}], ids=["ran", "probed", "none"])
def test_a_path_is_written_as_it_is_read(line: dict[str, Any], tmp_path: Path) -> None:
    evidence, text = Evidence(tmp_path), json.dumps(line) + "\n"
    (tmp_path / "paths.jsonl").write_text(text)
    ((number, found),) = evidence.read(PathLine)
    assert (number, found.key) == (1, ("decode", line["probed"]))
    evidence.write(found)
    assert (tmp_path / "paths.jsonl").read_text() == text * 2


PATHS: dict[str, tuple[dict[str, Any], str]] = {
    "no unit": ({"unit": ABSENT}, "unit is missing"),
    "a unit that is a list": ({"unit": [1]}, "unit is [1], and should be a valid string"),
    "no path": ({"path": ABSENT}, "path is missing"),
    "a path that is a number": ({"path": 3}, "path is 3, and should be a valid string"),
    "probed in words": ({"probed": "no"}, "probed is 'no', and should be a valid boolean"),
    "probed as a number": ({"probed": 0}, "probed is 0, and should be a valid boolean"),
    "another key": ({"mood": "fine"}, "mood is not a field of this line"),
    "no counts": ({"observed": ABSENT}, "observed is missing"),
    "counts in a list": ({"observed": []}, "observed is [], and should be a valid mapping"),
    "a count in words": ({"observed": {"a": "1"}}, "observed.a is '1', and should be a valid int"),
    "half a count": ({"observed": {"a": 0.5}}, "observed.a is 0.5, and should be a valid integer"),
    "a count below 0": ({"observed": {"a": -1}}, "observed.a is -1, and should be greater than or"),
    "a count that is true": ({"observed": {"a": True}}, "observed.a is True, and should be a va"),
    "launches in a list": ({"launches": []}, "launches is [], and should be a valid mapping"),
    "no launches": ({"launches": {"kernels": {}}}, "launches.counts is missing"),
    "a launch below 0": (
        {"launches": LAUNCHES | {"counts": {"a": -1}}}, "launches.counts.a is -1, and should be",
    ),
    "no kernels": ({"launches": {"counts": {}}}, "launches.kernels is missing"),
    "kernels in a list": (
        {"launches": LAUNCHES | {"kernels": []}}, "launches.kernels is [], and should be a valid",
    ),
    "a kernel in words": (
        {"launches": LAUNCHES | {"kernels": {"a": "b"}}}, "launches.kernels.a is 'b', and should",
    ),
    "no seconds": ({"seconds": ABSENT}, "seconds is missing"),
    "seconds in words": ({"seconds": "long"}, "seconds is 'long', and should be a valid number"),
    "seconds that are true": ({"seconds": True}, "seconds is True, and should be a valid number"),
    "seconds below 0": ({"seconds": -0.1}, "seconds is -0.1, and should be greater than or equal"),
    "seconds without end": ({"seconds": 1e999}, "seconds is inf, and should be a finite number"),
    "a probe with rows": ({"probed": True}, "it was probed, and has rows"),
    "no rows": ({"rows": ABSENT}, "rows is missing"),
    "rows of null": ({"rows": None}, "rows is None, and should be a valid list"),
    "rows in a mapping": ({"rows": {}}, "rows is {}, and should be a valid list"),
    "a row that is a number": ({"rows": [3]}, "rows[0] is 3, and should be a valid list"),
    "a row that is a mapping": ({"rows": [{"0": 0}]}, "rows[0] is {'0': 0}, and should be a valid"),
    "a row of three": ({"rows": [ROW, ROW[:3]]}, "rows[1][3] is missing"),
    "a row of five": ({"rows": [[*ROW, 0]]}, ", and should have at most 4 items"),
    "half a sequence": ({"rows": rows((0.5, 0))}, "rows[0][0] is 0.5, and should be a valid int"),
    "a sequence that is true": ({"rows": rows((True, 1))}, "rows[0][0] is True, and should be a"),
    "a sequence below 0": ({"rows": rows((-1, 0))}, "rows[0][0] is -1, and should be greater"),
    "half a position": ({"rows": rows((0, 0.5))}, "rows[0][1] is 0.5, and should be a valid int"),
    "a position below 0": ({"rows": rows((0, -1))}, "rows[0][1] is -1, and should be greater"),
    "a digest in numbers": ({"rows": rows((0, 1), digest=3)}, "rows[0][2] is 3, and should be a"),
    "a short digest": (
        {"rows": rows((0, 1), digest="0x" + "0" * 15)}, "rows[0][2] is '0x000000000000000', and",
    ),
    "a long digest": (
        {"rows": rows((0, 1), digest="0x" + "0" * 16 + "\n")}, "'0x0000000000000000\\n', and",
    ),
    "a digest of other letters": (
        {"rows": rows((0, 1), digest="0x" + "g" * 16)}, "'0xgggggggggggggggg', and should match",
    ),
    "bits in words": ({"rows": [[*ROW[:3], "0x1"]]}, "rows[0][3] is '0x1', and should be a valid"),
    "bits in a number": ({"rows": [[*ROW[:3], 3]]}, "rows[0][3] is 3, and should be a valid list"),
    "bits of numbers": ({"rows": rows((0, 1), bits=(1,))}, "rows[0][3][0] is 1, and should be a"),
    "bits with a sign": ({"rows": rows((0, 1), bits=("-0x1",))}, "[3][0] is '-0x1', and should ma"),
    "the last of the bits": ({"rows": rows((0, 1), bits=("0x1", "1"))}, "rows[0][3][1] is '1', an"),
    "rows of two sequences": (
        {"rows": rows((0, 1), (1, 1))}, "rows: its rows are at [[0, 1], [1, 1]]",
    ),
    "rows not in order": ({"rows": rows((0, 3), (0, 1))}, "rows: its rows are at [[0, 3], [0, 1]]"),
    "one row twice": (
        {"rows": [ROW, [*ROW[:2], "0x" + "b" * 16, []]]}, "rows: its rows are at [[0, 1], [0, 1]]",
    ),
}  # fmt: skip
UNIT = {
    "unit": "u",
    "sequences": [
        {"id": "a", "prompt": 1, "ids": [0, 1]}, {"id": "b", "prompt": 2, "ids": [7, 7, 7]},
    ],
    "subject": {"kind": "toy", "notes": []}, "observed": {"decode": {"attention.decode": 2}},
    "launches": {"decode": LAUNCHES}, "seconds": {"decode": 0.5},
    "rows": {"decode": rows((0, 0), (0, 1)), "batched": []},
}  # fmt: skip


def drawn(**changes: Any) -> dict[str, Any]:
    return {"sequences": [UNIT["sequences"][0], UNIT["sequences"][1] | changes]}


UNITS: dict[str, tuple[dict[str, Any], str]] = {
    "no sequences": ({"sequences": []}, "sequences is [], and should have at least 1 item"),
    "sequences in a mapping": ({"sequences": {"a": 1}}, "sequences is {'a': 1}, and should be a"),
    "a sequence in words": ({"sequences": ["a"]}, "sequences[0] is 'a', and should be a valid map"),
    "ids in words": (drawn(ids="abc"), "sequences[1].ids is 'abc', and should be a valid list"),
    "a token of 0.5": (drawn(ids=[1, 2, 0.5]), "sequences[1].ids[2] is 0.5, and should be a valid"),
    "a token that is true": (drawn(ids=[1, True, 2]), "sequences[1].ids[1] is True, and should"),
    "a token below 0": (drawn(ids=[-1, 1, 2]), "sequences[1].ids[0] is -1, and should be greater"),
    "no token drawn": (drawn(ids=[1, 2]), "'b' has 2 ids and a prompt of 2"),
    "no prompt": (drawn(prompt=0), "sequences[1].prompt is 0, and should be greater"),
    "a prompt of true": (drawn(prompt=True), "sequences[1].prompt is True, and should be a valid"),
    "half a prompt": (drawn(prompt=1.5), "sequences[1].prompt is 1.5, and should be a valid int"),
    **{f"no {key}": ({key: ABSENT}, f"{key} is missing") for key in UNIT},
    **{
        f"{key} in a list": ({key: []}, f"{key} is [], and should be a valid mapping")
        for key in ("subject", "observed", "launches", "seconds", "rows")
    },
    "rows of the last path": (
        {"rows": UNIT["rows"] | {"mixed": [3]}}, "rows.mixed[0] is 3, and should be a valid list",
    ),
    "rows out of order": (
        {"rows": {"mixed": rows((0, 1), (0, 0))}}, "rows.mixed: its rows are at [[0, 1], [0, 0]]",
    ),
    "another key": ({"mood": "fine"}, "mood is not a field of this line"),
}  # fmt: skip
LINES = {PathLine: (PATH, PATHS), UnitLine: (UNIT, UNITS)}
BAD = [(model, name) for model, (_, bad) in LINES.items() for name in bad]


def test_a_unit_is_written_as_it_is_read(tmp_path: Path) -> None:
    evidence, text = Evidence(tmp_path), json.dumps(UNIT) + "\n"
    (tmp_path / "units.jsonl").write_text(text)
    ((_, found),) = evidence.read(UnitLine)
    assert found.tokens == [[0, 1], [7, 7, 7]]
    evidence.write(found)
    assert (tmp_path / "units.jsonl").read_text() == text * 2


@pytest.mark.parametrize(("model", "name"), BAD, ids=[f"{m.__name__}-{n}" for m, n in BAD])
def test_a_line_that_is_not_as_written_is_one_sentence_with_its_place(
    model: Any, name: str, tmp_path: Path
) -> None:
    good, bad = LINES[model]
    change, words = bad[name]
    line = {key: value for key, value in (good | change).items() if value is not ABSENT}
    file = tmp_path / model.file
    text = "".join(json.dumps(each).replace("Infinity", "1e999") + "\n" for each in (good, line))
    file.write_text(text)
    start = re.escape(f"{file}:2: ")
    with pytest.raises(RunFolderError, match=f"^{start}.*{re.escape(words)}") as error:
        list(Evidence(tmp_path).read(model))
    assert str(error.value).count("\n") == 0
    assert "remove the line, and --resume" in str(error.value)
