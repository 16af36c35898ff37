"""A recorded verdict and what its own line counts and measures: each contradiction by itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kvparity.report.evidence_verdict import contradiction, control_contradiction
from kvparity.report.failure_file import damage

LIMITS = {"max_abs_dlogp": 0.5, "clipfrac0": 0.0}
KEPT = {"invariance": "failures/c.safetensors", "accuracy": "accuracy/c.safetensors"}


def line(relation: str, verdict: str, **more: Any) -> dict[str, Any]:
    """What a case of ``relation`` with this verdict may look like."""
    found: dict[str, Any] = {
        "id": "c", "relation": relation, "verdict": verdict, "tokens": 3, "differing_tokens": 0,
        "differing_rows": 0, "first_divergence": None, "max_ulp": 0, "max_abs_dlogp": 0.5,
        "clipfrac0": 0.0,
    }  # fmt: skip
    if verdict == "differs":
        found |= {"differing_rows": 1, "first_divergence": {}, "evidence": "failures/c.safetensors"}
    if relation == "accuracy":
        found |= {"evidence": "accuracy/c.safetensors"}
    if relation == "order":
        found |= {"order": {"verdict": "consistent"}}
    if relation == "audit":
        found |= {"audit": {"verdict": "same"}}
    return found | more


RELATIONS = ("invariance", "accuracy", "cache", "liveness", "trace", "order", "audit")


@pytest.mark.parametrize("verdict", ["holds", "differs", "void", "error"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_a_line_that_agrees_with_itself_is_believed(relation: str, verdict: str) -> None:
    assert contradiction(line(relation, verdict), LIMITS if relation == "accuracy" else {}) is None


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no word": (line("invariance", "fine"), "its verdict is 'fine'"),
    "tokens in words": (line("invariance", "holds", tokens="3"), "tokens is '3'"),
    "fewer than no tokens": (line("invariance", "holds", tokens=-1), "tokens is -1"),
    "differing tokens true": (line("cache", "void", differing_tokens=True), "tokens is True"),
    "differing rows half": (line("cache", "error", differing_rows=0.5), "differing_rows is 0.5"),
    "details in words": (line("trace", "holds", trace="all"), "trace is 'all', expected a mapping"),
    "nothing compared": (line("cache", "holds", tokens=0), "nothing was compared"),
    "a token differs": (line("trace", "holds", differing_tokens=1), "differing_tokens is 1"),
    "a row differs": (line("invariance", "holds", differing_rows=1), "differing_rows is 1"),
    "a fault": (
        line("accuracy", "holds", accuracy={"faults": ["a row"]}), "faults is ['a row']",
    ),
    "a divergence": (
        line("cache", "holds", first_divergence={"layer": 1}), "it holds, and has a first",
    ),
    "a position of a cache": (
        line("cache", "holds", cache={"differing": [1]}), "differing is [1]",
    ),
    "a dead key": (line("liveness", "holds", liveness={"dead": [4]}), "dead is [4]"),
    "a key that should be dead": (
        line("liveness", "holds", liveness={"wrongly_alive": [4]}), "wrongly_alive is [4]",
    ),
    "a broken invariant": (line("trace", "holds", trace={"broken": ["x"]}), "broken is ['x']"),
    "an ulp": (line("invariance", "holds", max_ulp=1), "max_ulp is 1"),
    "no ulps": (line("invariance", "holds", max_ulp=None), "max_ulp is None"),
    "just over a limit": (
        line("accuracy", "holds", max_abs_dlogp=math.nextafter(0.5, 1)), "max_abs_dlogp is not",
    ),
    "the second limit": (line("accuracy", "holds", clipfrac0=0.01), "clipfrac0 is not within"),
    "both limits": (
        line("accuracy", "holds", clipfrac0=1.0, max_abs_dlogp=1.0), "max_abs_dlogp, clipfrac0 is",
    ),
    "a measure that is nan": (line("accuracy", "holds", max_abs_dlogp="nan"), "max_abs_dlogp is"),
    "a measure that is -inf": (line("accuracy", "holds", max_abs_dlogp=-math.inf), "dlogp is not"),
    "a measure that is false": (line("accuracy", "holds", clipfrac0=False), "clipfrac0 is not"),
    "a measure that is missing": (line("accuracy", "holds", clipfrac0=None), "clipfrac0 is not"),
    "another order": (
        line("order", "holds", order={"verdict": "different-order"}), "the order is 'different-",
    ),
    "an order not declared": (
        line("order", "holds", order={"verdict": "undeclared-order"}), "the order is 'undeclared-",
    ),
    "an order of other bits": (
        line("order", "holds", order={"verdict": "same-order-different-bits"}), "order is 'same-",
    ),
    "no order": (line("order", "holds", order={"verdict": "not-a-tree"}), "order is 'not-a-tree'"),
    "an order unsaid": (line("order", "holds", order={}), "the order is None"),
    "another program": (
        line("audit", "holds", audit={"verdict": "different"}), "the audit found 'different'",
    ),
    "an unknown program": (
        line("audit", "holds", audit={"verdict": "unknown"}), "the audit found 'unknown'",
    ),
    "accuracy that differs in nothing": (
        line("accuracy", "differs", differing_rows=0), "it differs, and is within every limit",
    ),
    "bits that differ in nothing": (
        line("invariance", "differs", differing_rows=0), "counts nothing that does",
    ),
    "no first divergence": (
        line("invariance", "differs", first_divergence=None), "has no first divergence",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_line_that_cannot_be_is_told(name: str) -> None:
    found, words = WRONG[name]
    limits = LIMITS if found["relation"] == "accuracy" else {}
    assert words in str(contradiction(found, limits))


@pytest.mark.parametrize(
    ("relation", "verdict", "words"),
    [
        ("accuracy", "holds", "names no file in accuracy/"),
        ("invariance", "differs", "names no file in failures/"),
        ("cache", "differs", "names no file in failures/"),
    ],
)
def test_a_verdict_without_its_file_is_told(relation: str, verdict: str, words: str) -> None:
    found = line(relation, verdict)
    del found["evidence"]
    assert words in str(contradiction(found, LIMITS if relation == "accuracy" else {}))


def test_accuracy_without_a_limit_holds_nothing() -> None:
    assert "no measure is not within" in str(contradiction(line("accuracy", "holds"), {}))


@pytest.mark.parametrize(
    ("tokens", "rows", "faults"), [(1, 0, None), (0, 1, None), (0, 0, ["a row"])]
)
def test_any_one_thing_that_differs_is_enough(tokens: int, rows: int, faults: Any) -> None:
    for relation in ("invariance", "accuracy"):
        found = line(relation, "differs", differing_tokens=tokens, differing_rows=rows)
        found[relation] = {"faults": faults} if faults else {}
        assert contradiction(found, LIMITS if relation == "accuracy" else {}) is None


def control(**more: Any) -> dict[str, Any]:
    reach = [{"measured": 2.0, "limit": 1.0, "rounding": 0.1, "seen": True}]
    found = {"caught": True, "expected": "differs", "seen": "differs: bits differ", "reach": reach}
    return found | more


def row(**more: Any) -> list[dict[str, Any]]:
    return [*control()["reach"], {**control()["reach"][0], **more}]


CONTROLS: dict[str, tuple[dict[str, Any], str]] = {
    "caught in words": ({"caught": "yes"}, "caught is 'yes'"),
    "seen in numbers": ({"seen": 3}, "seen is 3"),
    "another expectation": ({"expected": "holds"}, "expected is 'holds'"),
    "caught by what holds": ({"seen": "holds: every bit is equal"}, "caught as a difference"),
    "caught by what is void": ({"seen": "void: no token"}, "caught as a difference"),
    "caught without it": ({"seen": "without the defect: differs"}, "caught as a difference"),
    "caught as void by a difference": ({"expected": "void"}, "it was caught as void"),
    "a reach that is no list": ({"reach": {}}, "does not follow"),
    "a row that is no mapping": ({"reach": [3]}, "does not follow"),
    "a fault at its limit": ({"reach": row(measured=1.0)}, "does not follow"),
    "a fault over it unseen": ({"reach": row(seen=False)}, "does not follow"),
    "a measure that is nan": ({"reach": row(measured=math.nan)}, "does not follow"),
    "a measure without end": ({"reach": row(measured=math.inf)}, "does not follow"),
    "a limit that is true": ({"reach": row(limit=True)}, "does not follow"),
    "no rounding": ({"reach": row(rounding=None)}, "does not follow"),
    "one row of two unseen": ({"reach": row(measured=1.0, seen=False)}, "its reach says otherwise"),
    "all seen and not caught": ({"caught": False}, "its reach says otherwise"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_that_cannot_be_is_told(name: str) -> None:
    change, words = CONTROLS[name]
    assert control_contradiction(control()) is None
    assert words in str(control_contradiction(control(**change)))


def kept(folder: Path, relation: str, *without: str, index: Any = ((0, 1), (0, 2), (0, 3))) -> Path:
    names = {
        "invariance": ("reference.values", "candidate.values", "reference.digests"),
        "accuracy": ("value", "exact", "column"),
        "cache": ("reference.held", "candidate.held"),
    }[relation]
    path = folder / ("accuracy" if relation == "accuracy" else "failures") / "c.safetensors"
    path.parent.mkdir()
    tensors = {name: torch.zeros(3) for name in names if name not in without}
    save_file({"other": torch.zeros(1), **tensors}, path, metadata={"index": json.dumps(index)})
    return path


FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "values of the reference": ("invariance", ("reference.values",)),
    "values of the path": ("invariance", ("candidate.values",)),
    "digests": ("invariance", ("reference.digests",)),
    "a cache of the reference": ("cache", ("reference.held",)),
    "a cache of the path": ("cache", ("candidate.held",)),
    "what was measured": ("accuracy", ("value",)),
    "what is exact": ("accuracy", ("exact",)),
    "where it is farthest": ("accuracy", ("column",)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_case_without_one_of_its_tensors_is_refused(name: str, tmp_path: Path) -> None:
    relation, without = FILES[name]
    found = line(relation, "differs", evidence=KEPT.get(relation, KEPT["invariance"]))
    path = kept(tmp_path, relation, *without)
    assert damage(tmp_path, found) == f"{found['evidence']} has no {without[0]}"
    path.unlink()
    path.parent.rmdir()
    kept(tmp_path, relation)
    assert damage(tmp_path, found) is None


@pytest.mark.parametrize("relation", ["invariance", "accuracy"])
@pytest.mark.parametrize("index", [((0, 1), (0, 2)), ((0, 1),) * 4, 3])
def test_a_file_of_another_number_of_tokens_is_refused(
    relation: str, index: Any, tmp_path: Path
) -> None:
    kept(tmp_path, relation, index=index)
    many = len(index) if isinstance(index, tuple) else None
    found = line(relation, "differs", evidence=KEPT[relation])
    words = f"{KEPT[relation]} holds {many} tokens, and 3 were compared"
    assert damage(tmp_path, found) == words


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, "invariance").unlink()
    (tmp_path / KEPT["invariance"]).mkdir()
    found = damage(tmp_path, line("invariance", "differs"))
    assert found == f"{KEPT['invariance']} is not a regular file"
