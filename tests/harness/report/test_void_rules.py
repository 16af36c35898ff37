"""Every rule by which a check does not hold, broken alone: one row each, and its neighbours hold.

The contract has a check of every kind that the rules tell apart. Nothing is run: what the cases,
controls and units are said to have given is written down here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from judged import NAMES, Run

from kvparity.plan.kernel_cases import Unplanted


def case(check: str, verdict: str, which: int = -1) -> Callable[[Run], None]:
    return lambda run: run.of(check)[which].update(verdict=verdict)


def control(relation: str, **changes: Any) -> Callable[[Run], None]:
    return lambda run: run.control(relation).update(changes)


def missing(check: str) -> Callable[[Run], None]:
    return lambda run: run.cases.remove(run.of(check)[-1])


def unplanned(check: str, path: str) -> Callable[[Run], None]:
    """A path of a check is left out of every workload."""

    def change(run: Run) -> None:
        gone = [each for each in run.of(check) if each["path"] == path]
        run.cases = [each for each in run.cases if each not in gone]
        ids = {each["id"] for each in gone}
        units = [
            replace(u, cases=tuple(c for c in u.cases if c.id not in ids)) for u in run.work.units
        ]
        run.work = replace(run.work, units=tuple(units))

    return change


def no_kernel_case(run: Run) -> None:
    run.work = replace(run.work, kernel_cases=())
    run.cases = [each for each in run.cases if each["check"] != "added"]


def twice(first: str, second: str) -> Callable[[Run], None]:
    """The last case of a check stands there twice, with two verdicts."""

    def change(run: Run) -> None:
        one = run.of("bits")[-1]
        run.cases.append(one | {"verdict": second})
        one["verdict"] = first

    return change


def lost(relation: str, other: str) -> Callable[[Run], None]:
    """A control did not run for a relation, and one of the same name did for another."""

    def change(run: Run) -> None:
        there = {each["name"] for each in run.controls if each["relation"] == other}
        gone = next(e for e in run.controls if e["relation"] == relation and e["name"] in there)
        run.controls.remove(gone)

    return change


def kernel_control_lost(run: Run) -> None:
    run.controls.remove(run.control("order"))


def reaches(*rows: dict[str, Any], **more: Any) -> Callable[[Run], None]:
    """A fault of both kernels, with what each accuracy check sees of it."""
    row = {"check": "near", "dtype": "float32", "measured": 1e-6, "limit": 1e-5, "seen": False,
           "rounding": 1e-8}  # fmt: skip

    def change(run: Run) -> None:
        run.controls.append(
            {"name": "window-one-long", "relation": "accuracy", "caught": False,
             "expected": "differs", "measured": {"max_abs_dlogp": 1.0},
             "reach": [row | each for each in rows]} | more
        )  # fmt: skip

    return change


def asked(run: Run) -> None:
    run.unplanted.append(Unplanted("padding-leaks", "invariance", "no pads", asked=True))


def both(*changes: Callable[[Run], None]) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        for each in changes:
            each(run)

    return change


def weak(**measured: float) -> Callable[[Run], None]:
    """All controls of accuracy measured no more than that."""

    def change(run: Run) -> None:
        for each in run.controls:
            if each["relation"] == "accuracy":
                each["measured"] = measured

    return change


def void_alone(run: Run) -> None:
    """Of a relation only a control of lengths is left, which no bit shows."""
    for each in run.controls:
        if each["relation"] == "cache":
            each["expected"] = "void"


ALL = dict.fromkeys(NAMES, "void")
RULES: dict[str, tuple[Callable[[Run], None], dict[str, str], str]] = {
    "nothing is wrong": (lambda run: None, {}, ""),
    # cases
    "a case is an error": (case("bits", "error"), {"bits": "error"}, ": because"),
    "the last case differs": (case("more", "differs"), {"more": "differs"}, "1 of 4 cases differ"),
    "the first case differs": (
        case("more", "differs", 0), {"more": "differs"}, "1 of 4 cases differ",
    ),
    "a case is void": (case("near", "void"), {"near": "void"}, ": because"),
    "a case is missing": (missing("held"), {"held": "void"}, "1 of 2 cases did not run"),
    "a case of kernels differs": (
        case("added", "differs"), {"added": "differs"}, "1 of 1 cases differ",
    ),
    "a case of kernels is missing": (missing("added"), {"added": "void"}, "did not run"),
    "no case of kernels": (no_kernel_case, {"added": "void"}, "no case was compared"),
    "a path of bits is not run": (
        unplanned("bits", "chunked(20)"), {"bits": "void"}, "chunked(20): shows nothing",
    ),
    "a path of a cache is not run": (
        unplanned("held", "decode"), {"held": "void"}, "decode: shows nothing",
    ),
    "a path of accuracy is not run": (
        unplanned("near", "prefill"), {"near": "void"}, "prefill: shows nothing",
    ),
    "a case that differed once": (twice("differs", "holds"), {"bits": "differs"}, "cases differ"),
    "a case that differed last": (twice("holds", "differs"), {"bits": "differs"}, "cases differ"),
    # which word wins
    "error before differs": (
        both(case("more", "differs", 0), case("more", "error")), {"more": "error"}, ": because",
    ),
    "error before missing": (
        both(case("more", "error", 0), missing("more")), {"more": "error"}, ": because",
    ),
    "differs before void": (
        both(case("more", "differs"), case("more", "void", 0)), {"more": "differs"}, "differ",
    ),
    "differs before missing": (
        both(case("more", "differs", 0), missing("more")), {"more": "differs"}, "differ",
    ),
    "differs before a control": (
        both(case("held", "differs"), control("cache", caught=False)),
        {"held": "differs"}, "differ",
    ),
    "differs before a lost control": (
        both(case("bits", "differs"), kernel_control_lost), ALL | {"bits": "differs"}, "",
    ),
    "differs before what was replaced": (
        both(case("bits", "differs"), lambda run: setattr(run, "replaced", "another backend")),
        ALL | {"bits": "differs"}, "",
    ),
    # controls
    "a control is missed": (
        control("invariance", caught=False), {"bits": "void", "more": "void"}, "not caught: ",
    ),
    "a control of kernels is missed": (
        control("order", caught=False), {"added": "void"}, "not caught: ",
    ),
    "no control of a relation": (
        lambda run: run.left("cache"), {"held": "void"}, "no control of relation cache",
    ),
    "a control that was asked for": (asked, ALL, "padding-leaks was asked for and not planted"),
    "controls that no bit shows": (void_alone, {"held": "void"}, "which changes no bit"),
    "a control is lost for one relation": (
        lost("invariance", "cache"), ALL, "planned controls did not run: ",
    ),
    "a control is lost for the other": (
        lost("cache", "invariance"), ALL, "planned controls did not run: ",
    ),
    "a control of kernels is lost": (kernel_control_lost, ALL, "planned controls did not run: "),
    # limits
    "limits that nothing breaks": (
        weak(max_abs_dlogp=1e-6, approx_kl0=1e-6), {"near": "void"}, "catch no planted defect",
    ),
    "limits at what was measured": (
        weak(max_abs_dlogp=1e-5, approx_kl0=1e-5), {"near": "void"}, "catch no planted defect",
    ),
    "nothing was measured": (weak(), {"near": "void"}, "nothing to measure"),
    "a measure without a limit": (weak(clipfrac0=1.0), {"near": "void"}, "nothing to measure"),
    "one of two limits is broken": (weak(max_abs_dlogp=1e-9, approx_kl0=1.0), {}, ""),
    "a limit cannot see a fault": (reaches({}), {"near": "void"}, "its limits cannot see"),
    "a limit of one format cannot": (
        reaches({"seen": True}, {"dtype": "bfloat16"}), {"near": "void"}, "in bfloat16",
    ),
    "the last format cannot": (
        reaches({"seen": True}, {"seen": True, "dtype": "float16"}, {"dtype": "bfloat16"}),
        {"near": "void"}, "in bfloat16",
    ),
    "another check cannot": (reaches({"check": "other"}), {}, ""),
    "a fault that is seen": (reaches({"seen": True}, caught=True), {}, ""),
    "a fault that another relation sees": (
        both(
            reaches({}),
            lambda run: run.controls.append(
                {"name": "window-one-long", "relation": "liveness", "caught": True,
                 "expected": "differs"}
            ),
        ),
        {}, "",
    ),
    "a fault that another relation misses": (
        both(
            reaches({}),
            lambda run: run.controls.append(
                {"name": "window-one-long", "relation": "liveness", "caught": False,
                 "expected": "differs"}
            ),
        ),
        {"near": "void"}, "its limits cannot see",
    ),
    "a fault below rounding that another format sees": (
        reaches({"dtype": "bfloat16", "rounding": 1e-6}, {"seen": True}), {}, "",
    ),
    "a fault below rounding that no format sees": (
        reaches({"dtype": "bfloat16", "rounding": 1e-6}), {"near": "void"}, "ask for float32 too",
    ),
    # the whole
    "another backend": (
        lambda run: setattr(run, "replaced", "another backend"), ALL, "another backend",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_is_broken_alone(name: str) -> None:
    change, wrong, words = RULES[name]
    run = Run()
    change(run)
    verdict, entries = run.judge()
    found = {entry.name: entry.verdict for entry in entries}
    assert found == dict.fromkeys(NAMES, "holds") | wrong
    for entry in entries:
        if entry.name in wrong:
            assert words in entry.reason
    order = ("error", "differs", "void", "holds")
    assert verdict == min(found.values(), key=order.index)
