"""A verdict and what its own line counts and measures: each contradiction by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
from case_details import BROKEN, DETAILS, KEY, PLACE, line
from pydantic import ValidationError
from run_documents import DIVERGENCE

from kvparity.core.values import sentence
from kvparity.relations.registry import RELATIONS


def wrong(found: dict[str, Any], relation: str = "") -> str | None:
    """What is said of a line, by the model of its relation."""
    try:
        RELATIONS[relation or found["relation"]].line.model_validate(found)
    except ValidationError as error:
        return sentence(error)
    return None


@pytest.mark.parametrize("verdict", ["holds", "differs", "void", "error"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_a_line_that_agrees_with_itself_is_believed(relation: str, verdict: str) -> None:
    found = line(relation, verdict)
    assert RELATIONS[relation].line.model_validate(found).document() == found


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no word": (line("invariance", "fine"), "verdict is 'fine', and should be 'holds'"),
    "tokens in words": (line("invariance", "holds", tokens="3"), "tokens is '3'"),
    "fewer than no tokens": (line("invariance", "holds", tokens=-1), "tokens is -1"),
    "differing tokens true": (line("cache", "void", differing_tokens=True), "tokens is True"),
    "differing rows half": (line("cache", "error", differing_rows=0.5), "differing_rows is 0.5"),
    "details in words": (line("trace", "holds", trace="all"), "trace is 'all', and should be a"),
    "details of another": (line("trace", "holds", {"probes": 1}), "trace.probes is not a field"),
    "a measure in words": (line("cache", "void", max_abs="big"), "max_abs: 'big' is no number"),
    "a measure that is true": (line("cache", "void", max_abs=True), "max_abs: True is no number"),
    "nothing compared": (line("cache", "holds", tokens=0), "nothing was compared"),
    "a token differs": (line("trace", "holds", differing_tokens=1), "differing_tokens is 1"),
    "a row differs": (line("invariance", "holds", differing_rows=1), "differing_rows is 1"),
    "a fault": (line("accuracy", "holds", {"faults": ["a row"]}), "faults is ['a row']"),
    "a fault of bits": (line("invariance", "holds", {"faults": ["a row"]}), "faults is ['a row']"),
    "repeats in words": (
        line("invariance", "differs", {"repeats": {"decode": "yes"}}), "repeats.decode is 'yes'",
    ),
    "repeats of another path": (
        line("invariance", "differs", {"repeats": {"mixed": True}}), "expected its two paths",
    ),
    "a divergence": (
        line("cache", "holds", first_divergence=DIVERGENCE), "it holds, and has a first",
    ),
    "a divergence of nothing": (
        line("cache", "void", first_divergence=DIVERGENCE), "it is void, and has a first",
    ),
    "a divergence without its place": (
        line("cache", "differs", first_divergence={"layer": 1}),
        "first_divergence.sequence is missing",
    ),
    "a digest without digits": (
        line("cache", "differs", first_divergence=DIVERGENCE | {"reference_digest": "0xaa"}),
        "first_divergence.reference_digest is '0xaa'",
    ),
    "a position of a cache": (line("cache", "holds", {"differing": 1}), "differing is 1"),
    "a dead key": (line("liveness", "holds", {"dead": [KEY]}), "it holds, and dead is ["),
    "a key that should be dead": (
        line("liveness", "holds", {"wrongly_alive": [KEY]}), "it holds, and wrongly_alive is [",
    ),
    "a broken invariant": (line("trace", "holds", {"broken": [BROKEN]}), "broken is ['x']"),
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
    "a measure that is missing": (line("accuracy", "holds", clipfrac0=None), "clipfrac0 is not"),
    "no limits": (line("accuracy", "holds", {"limits": {}}), "no measure is not within"),
    "no details": (line("accuracy", "holds", accuracy=None), "no measure is not within"),
    "another order": (
        line("order", "holds", {"verdict": "different-order"}), "the order is 'different-",
    ),
    "an order not declared": (
        line("order", "holds", {"verdict": "undeclared-order"}), "the order is 'undeclared-",
    ),
    "an order of other bits": (
        line("order", "holds", {"verdict": "same-order-different-bits"}), "order is 'same-",
    ),
    "no order": (line("order", "holds", {"verdict": "not-a-tree"}), "order is 'not-a-tree'"),
    "an order unsaid": (line("order", "holds", order=None), "the order is None"),
    "another program": (
        line("audit", "holds", {"verdict": "different"}), "the audit found 'different'",
    ),
    "an unknown program": (
        line("audit", "holds", {"verdict": "unknown"}), "the audit found 'unknown'",
    ),
    "a program by a model": (
        line("audit", "holds", {"verdict": "equal by model"}), "the audit found 'equal by model'",
    ),
    "accuracy that differs in nothing": (
        line("accuracy", "differs", differing_rows=0), "it differs, and is within every limit",
    ),
    "bits that differ in nothing": (
        line("invariance", "differs", differing_rows=0), "counts nothing that does",
    ),
    "one process": (
        line("reproduction", "holds", {"runs": [PLACE, PLACE]}), "run in 2 processes, or in one",
    ),
    "one run": (line("reproduction", "holds", {"runs": [PLACE]}), "was run in 1 processes"),
    "no runs": (line("reproduction", "holds", reproduction=None), "was run in 0 processes"),
    "no first divergence": (
        line("invariance", "differs", first_divergence=None), "has no first divergence",
    ),
    "a recheck of what holds": (line("cache", "holds", recheck="differs"), "it was rechecked, and"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_line_that_cannot_be_is_told(name: str) -> None:
    found, words = WRONG[name]
    assert words in str(wrong(found))


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_line_without_one_of_its_fields_or_of_another_relation_is_told(relation: str) -> None:
    whole = line(relation, "void")
    assert f"relation is '{relation}', and should be" in str(wrong(
        whole, "cache" if relation == "trace" else "trace"
    ))  # fmt: skip
    for name in whole.keys() - {"relation", relation}:
        assert wrong({key: it for key, it in whole.items() if key != name}) == f"{name} is missing"
    for name in DETAILS[relation]:
        less = {key: it for key, it in whole[relation].items() if key != name}
        assert wrong(whole | {relation: less}) == f"{relation}.{name} is missing"


@pytest.mark.parametrize(("tokens", "rows", "faults"), [(1, 0, ()), (0, 1, ()), (0, 0, ("a row",))])
def test_any_one_thing_that_differs_is_enough(tokens: int, rows: int, faults: Any) -> None:
    for relation in ("invariance", "accuracy"):
        details = {"faults": [*faults]} if faults else None
        found = line(relation, "differs", details, differing_tokens=tokens, differing_rows=rows)
        assert wrong(found) is None


def test_a_case_that_was_rechecked_differs_and_counts_nothing() -> None:
    held = RELATIONS["invariance"].line.model_validate(line("invariance", "holds"))
    found = held.rechecked("path decode: other bits")
    assert (found.verdict, found.recheck) == ("differs", "differs")
    assert found.reason == "path decode: other bits"
