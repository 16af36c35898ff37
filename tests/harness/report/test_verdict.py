from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import toy
from run_documents import unchecked, unchecked_controls

from kvparity.core.exit_codes import ExitCode, of_verdict
from kvparity.plan.cases import Work, make
from kvparity.plan.kernel_cases import Unplanted
from kvparity.plan.results import CaseLine, ControlLine
from kvparity.report.verdict import Judged, judge, worst
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS

CHECKS = [
    {
        "name": "bits",
        "relation": "invariance",
        "paths": ["decode", "chunked(20)", "padded"],
    },
    {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e-5}},
]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return toy.contract(checks=CHECKS)


@pytest.fixture(scope="module")
def work(contract: Contract) -> Work:
    return make(contract)


def results(work: Work, **changes: str) -> list[CaseLine]:
    """Every planned case holds, but those that ``changes`` names have another verdict."""
    return unchecked(
        CaseLine,
        *(
            {
                "id": case.id,
                "verdict": changes.get(case.id, "holds"),
                "path": str(case.path),
                "workload": case.workload,
                "reason": "because",
            }
            for unit in work.units
            for case in unit.cases
        ),
    )


def controls(work: Work, *missed: str) -> list[ControlLine]:
    return unchecked_controls(
        *(
            {
                "name": run.control,
                "relation": run.relation,
                "caught": run.control not in missed,
                "expected": CONTROLS[run.control].expect,
                "measured": {"max_abs_dlogp": 0.5} if run.relation == "accuracy" else {},
            }
            for run in work.controls
        )
    )


def case_of(work: Work, check: str, path: str) -> str:
    return next(
        case.id
        for unit in work.units
        for case in unit.cases
        if (case.check, str(case.path)) == (check, path)
    )


def verdicts(entries: Sequence[Judged]) -> list[str]:
    return [entry.verdict for entry in entries]


def test_the_worst_word_wins() -> None:
    assert worst(["holds", "void", "differs", "error"]) == "error"
    assert worst(["holds", "differs", "void"]) == "differs"
    assert worst(["void", "holds"]) == "void"
    assert worst(["holds", "holds"]) == "holds"
    assert worst([]) == "void"


def test_every_verdict_has_its_exit_code() -> None:
    assert [of_verdict(v) for v in ("holds", "differs", "error", "void")] == [0, 1, 3, 5]
    assert len({*ExitCode}) == 6
    with pytest.raises(KeyError):
        of_verdict("fine")


def test_all_held_and_caught_holds(contract: Contract, work: Work) -> None:
    verdict, entries = judge(contract, work, results(work), controls(work), work.unplanted, None)
    assert (verdict, verdicts(entries)) == ("holds", ["holds", "holds"])
    assert entries[0].reason.startswith(f"{len(entries[0].cases)} cases, bits are equal; ")
    own = sum(run.relation == "accuracy" for run in work.controls)
    assert own >= 1
    assert entries[1].reason.startswith(f"4 cases, within limits; {own} controls caught")
    assert [(o.workload, o.path) for o in entries[0].omitted] == [("padded", "chunked(20)")]


def test_no_results_at_all_are_void(contract: Contract, work: Work) -> None:
    verdict, entries = judge(contract, work, [], [], (), None)
    assert (verdict, verdicts(entries)) == ("void", ["void", "void"])


def test_a_path_that_was_omitted_everywhere_makes_its_check_void() -> None:
    # A workload's own pad list cannot hide a path: chunked(20) is prefill over "padded".
    checks = [CHECKS[0] | {"workloads": ["padded", "short"]}]
    contract = toy.contract(checks=checks)
    work = make(contract)
    short = {c.id for u in work.units for c in u.cases if str(c.path) == "chunked(20)"}
    units = tuple(
        replace(u, cases=tuple(c for c in u.cases if c.id not in short)) for u in work.units
    )
    less = replace(work, units=units)
    verdict, entries = judge(contract, less, results(less), controls(less), (), None)
    assert verdict == "void"
    assert entries[0].reason == "chunked(20): shows nothing in any workload and was not run"
    assert judge(contract, work, results(work), controls(work), (), None)[0] == "holds"


def test_a_control_that_was_asked_for_and_not_planted_voids_all(
    contract: Contract, work: Work
) -> None:
    left = Unplanted("padding-leaks", "invariance", "no pads here", asked=True)
    verdict, entries = judge(contract, work, results(work), controls(work), (left,), None)
    assert (verdict, verdicts(entries)) == ("void", ["void", "void"])
    assert "padding-leaks was asked for and not planted: no pads here" in entries[0].reason
    # The control: left out by `all`, it is no more than a line in the report.
    quiet = replace(left, asked=False)
    assert judge(contract, work, results(work), controls(work), (quiet,), None)[0] == "holds"


def test_limits_that_a_planted_defect_keeps_prove_nothing() -> None:
    # The control is run for the first check; the second would let it pass.
    absurd = {"name": "absurd", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e3}}
    contract = toy.contract(checks=[*CHECKS, absurd])
    work = make(contract)
    verdict, entries = judge(contract, work, results(work), controls(work), work.unplanted, None)
    assert (verdict, verdicts(entries)) == ("void", ["holds", "holds", "void"])
    assert "wrong-input gave max_abs_dlogp 0.5, within 1e+03" in entries[2].reason


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.4, "holds"), (0.5, "void")])
def test_limits_of_every_format_must_catch_something(bfloat16: float, expected: str) -> None:
    # Controls run in the first format alone.
    limits = {"float32": {"max_abs_dlogp": 1e-5}, "bfloat16": {"max_abs_dlogp": bfloat16}}
    numerics = {"execution": ["float32", "bfloat16"], "temperatures": [1.0, 0.7]}
    contract = toy.contract(checks=[CHECKS[1] | {"limits": limits}], numerics=numerics)
    work = make(contract)
    verdict, entries = judge(contract, work, results(work), controls(work), work.unplanted, None)
    assert verdict == expected
    loose = "the limits of bfloat16 catch no planted defect"
    assert entries[0].reason.startswith(loose) == (expected == "void")
