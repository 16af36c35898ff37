"""What a run writes is read by its models and said by their schemas; nothing else is."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_documents
from conforming import documents, findings, validators
from pydantic import TypeAdapter, ValidationError
from toy import Toy
from toy_verification import BITS, NEAR, verify

from kvparity.births.document import KeptAccount
from kvparity.plan.results import ControlLine
from kvparity.report.document import AnyCase, RunReport
from kvparity.report.json_schemas import FOLDER, files, schemas
from kvparity.report.lines import PathLine, RetryLine, UnitLine

CHECKS = [
    BITS, NEAR,
    {"name": "held", "relation": "cache", "paths": ["mixed"]},
    {"name": "live", "relation": "liveness", "paths": ["decode"]},
    {"name": "traced", "relation": "trace", "paths": ["mixed"]},
]  # fmt: skip
LOCATED = "located/*.json"
"""An account of a case has more beside these fields: what the command prints as JSON."""
MODELS: dict[str, TypeAdapter[Any]] = {
    "run.json": TypeAdapter(RunReport),
    "cases.jsonl": TypeAdapter(AnyCase),
    "controls.jsonl": TypeAdapter(ControlLine),
    "units.jsonl": TypeAdapter(UnitLine),
    "paths.jsonl": TypeAdapter(PathLine),
    RetryLine.file: TypeAdapter(RetryLine),
    LOCATED: TypeAdapter(KeptAccount),
}
ELSEWHERE = {RetryLine.file, LOCATED}
"""What only some runs write: those on Ray, and those of which a case was located."""


@pytest.mark.parametrize("defects", [(), ("batch-dependent",)], ids=["good", "bad"])
def test_a_run_is_read_as_it_was_written(
    defects: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numerics = {"execution": "float32", "temperatures": [1.0]}
    workloads = [{"name": "w", "prompt_tokens": [3, 17], "generate": 2}]
    verify(tmp_path, monkeypatch, Toy(*defects), checks=CHECKS, numerics=numerics,
           workloads=workloads)  # fmt: skip
    run = tmp_path / "run"
    assert schemas().keys() == validators().keys() == MODELS.keys()
    ours = {name: model for name, model in MODELS.items() if name not in ELSEWHERE}
    assert {file.name for file in run.glob("*.json*")} == {*ours, "identity.json"}
    for name, model in ours.items():
        for value in documents(run / name):
            assert model.validate_python(value).document() == value
    assert list(findings(run)) == []
    for name in ours:
        first, *others = documents(run / name)
        (run / name).write_text("\n".join(map(json.dumps, [first | {"more": 1}, *others])))
    found = [each.partition(": $: ")[0] for each in findings(run)]
    assert found == [f"{name}:1" for name in validators() if name in ours]


def test_the_shipped_schemas_are_those_of_the_models() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == {
        path.name: text for path, text in files().items()
    }
    assert len(files()) == 7


DIFFERS = run_documents.case(
    verdict="differs", differing_rows=1, first_divergence=run_documents.DIVERGENCE,
    invariance={"repeats": {"decode": True}},
)  # fmt: skip
REACH = {
    "check": "near", "dtype": "float32", "kv_cache": "float32", "limit": 1.0, "measured": 2.0,
    "rounding": 0.1, "seen": True,
}  # fmt: skip
PATH = {
    "unit": "u", "path": "decode", "probed": False, "observed": {"attention.decode": 2},
    "launches": {"counts": {"a": 2}, "kernels": {"a": {"SPLIT": 64}}}, "seconds": 0.5,
    "rows": [[0, 1, "0x" + "0" * 16, ["0x1"]]],
}  # fmt: skip
UNIT = {
    "unit": "u", "sequences": [{"id": "w/0", "prompt": 1, "ids": [0, 1]}], "subject": {"kind": "t"},
    **{name: {"decode": PATH[name]} for name in ("observed", "launches", "seconds", "rows")},
}  # fmt: skip
GOOD: dict[str, Any] = {
    "run.json": run_documents.report(
        "differs", run_documents.case(), DIFFERS, controls=[run_documents.control(reach=[REACH])],
        unplanted=[{"control": "x", "relation": "cache", "reason": "why", "asked": True}],
        recheck={"paths": 1, "of": 1, "rows": 1, "skipped": None,
                 "differing": [{"unit": "u", "path": "decode", "row": "position 3"}]},
        texts={"by": "byte by byte", "ids": {"w": [[1]]}},
    ),
    "cases.jsonl": DIFFERS,
    "controls.jsonl": run_documents.control(reach=[REACH]),
    "units.jsonl": UNIT,
    "paths.jsonl": PATH,
    RetryLine.file: {"task": "u", "attempt": 1, "node": "n", "why": "w", "changed": ["c000"]},
    LOCATED: {
        "case": "c000", "words": "w", "said": ["w"],
        "map": {"places": [["w/0", 1]],
                "operations": [{"operation": "o", "differs": [0], "born": [0], "ulps": 1}]},
        "inside": {"words": "w", "node": {"node": "score", "head": 0, "at": 1, "ulps": 1,
                                          "walks": ["a", "b"], "sums": "s"}},
        "cell": {"path": "decode", "layer": 0, "sequence": "w/0", "position": 1, "slot": 2,
                 "page_slots": 4, "part": "key", "read_step": 1, "read_by": 2, "holds": "h",
                 "written": {"step": 0, "sequence": "w/0", "first": 0, "last": 1}},
    },
}  # fmt: skip
FREE = {"subject", "kernels", "tiles", "versions", "variables", "ids", "measured", "repeats",
        "observed", "launches", "seconds", "rows"}  # fmt: skip
"""Objects whose keys no model fixes."""
OPTIONAL = {"reach", "invariance", "repeats", "said", "map", "inside", "cell"}
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Of every field."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            if key not in FREE:
                yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*at, number))


@pytest.mark.parametrize("name", MODELS)
def test_every_field_is_needed_and_has_its_type(name: str) -> None:
    model, schema, good = MODELS[name], validators()[name], GOOD[name]
    assert model.validate_python(good).document() == good
    assert schema.is_valid(good)
    for place in places(good):
        for bad in spoilt(good, place):
            with pytest.raises(ValidationError):
                model.validate_python(bad)
            assert not schema.is_valid(bad), place


@pytest.mark.parametrize("probed", [True, False])
@pytest.mark.parametrize("rows", [{}, {"rows": PATH["rows"]}], ids=["no rows", "rows"])
def test_the_schema_knows_of_which_path_rows_are_kept(probed: bool, rows: dict[str, Any]) -> None:
    line = {key: PATH[key] for key in PATH.keys() - {"rows"}} | {"probed": probed} | rows
    assert validators()["paths.jsonl"].is_valid(line) == (probed != bool(rows))


def spoilt(good: dict[str, Any], place: Place) -> Iterator[dict[str, Any]]:
    """The document with one field of another type, and without it."""
    bad: Any = copy.deepcopy(good)
    holder = bad
    *to, last = place
    for key in to:
        holder = holder[key]
    holder[last] = "x" if isinstance(holder[last], dict) else {"?": 1}
    yield bad
    if isinstance(last, str) and last not in OPTIONAL:
        del holder[last]
        yield bad
