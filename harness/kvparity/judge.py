"""From cases and controls to verdicts. The void rules live here; nothing can switch them off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvparity.kernel_plan import KernelCase, Unplanted
from kvparity.place import place
from kvparity.plan import Case, Work
from kvparity_contracts.checks import AnyCheck, PathCheck
from kvparity_contracts.contract import Contract

ORDER = ("error", "differs", "void", "holds")
"""From the word that outranks all others to the one that all must say."""

HOLDS = {
    "invariance": "bits are equal",
    "accuracy": "within limits",
    "cache": "stored bits are equal, and as written",
    "liveness": "rows depend on what they see, and on nothing else",
    "trace": "positions, keys and weights are as they must be",
    "order": "no difference of order was found",
    "audit": "no difference of compiled code was found",
}

Entry = dict[str, Any]


def worst(verdicts: Sequence[str]) -> str:
    """The verdict of a whole: the worst of its parts; of nothing, ``void``."""
    return min(verdicts, key=ORDER.index) if verdicts else "void"


def judge_check(
    check: AnyCheck,
    planned: Sequence[Case | KernelCase],
    results: Sequence[Entry],
    controls: Sequence[Entry],
    unplanted: Sequence[Unplanted],
) -> tuple[str, str]:
    """(verdict, reason) of one check from its planned cases, their results and its controls."""
    found = {entry["id"]: entry for entry in results}
    missing = [case.id for case in planned if case.id not in found]
    verdicts = [found[case.id]["verdict"] for case in planned if case.id in found]
    if "differs" in verdicts:
        count = verdicts.count("differs")
        return "differs", f"{count} of {len(planned)} cases differ"
    if missing:
        return "void", f"{len(missing)} of {len(planned)} cases did not run: {missing[0]}, ..."
    if isinstance(check, PathCheck):
        paths = {str(case.path) for case in planned if isinstance(case, Case)}
        wanted = {str(path) for path in check.paths if path.kind != "padded"}
        if wanted - paths:
            skipped = ", ".join(sorted(wanted - paths))
            return "void", f"{skipped}: shows nothing in any workload and was not run"
    voids = [found[case.id] for case in planned if found[case.id]["verdict"] == "void"]
    if voids:
        first = voids[0]
        return "void", f"{place(first)}: {first['reason']}"
    if not planned:
        return "void", "no case was compared"
    return _controls_allow(check, controls, unplanted, len(planned))


def _controls_allow(
    check: AnyCheck,
    controls: Sequence[Entry],
    unplanted: Sequence[Unplanted],
    cases: int,
) -> tuple[str, str]:
    own = [c for c in controls if c["relation"] == check.relation]
    missed = [c["name"] for c in own if not c["caught"]]
    if missed:
        return "void", f"planted and not caught: {', '.join(missed)}"
    asked = [u for u in unplanted if u.asked]
    if asked:
        return (
            "void",
            f"control {asked[0].control} was asked for and not planted: {asked[0].reason}",
        )
    if not own:
        return "void", f"no control of relation {check.relation} was planted"
    return "holds", f"{cases} cases, {HOLDS[check.relation]}; {len(own)} controls caught"


def judge(
    contract: Contract,
    work: Work,
    results: Sequence[Entry],
    controls: Sequence[Entry],
    unplanted: Sequence[Unplanted],
    replaced: str | None,
) -> tuple[str, list[Entry]]:
    """(verdict, entries of all checks). ``replaced`` names a backend that was not the one asked."""
    planned: list[Case | KernelCase] = [case for unit in work.units for case in unit.cases]
    planned += work.kernel_cases
    ended = {(entry["name"], entry["relation"]) for entry in controls}
    ended |= {(entry.control, entry.relation) for entry in unplanted}
    lost = [run.control for run in work.every_control if (run.control, run.relation) not in ended]
    entries: list[Entry] = []
    for check in contract.checks:
        own = [case for case in planned if case.check == check.name]
        ids = {case.id for case in own}
        verdict, reason = judge_check(
            check, own, [r for r in results if r["id"] in ids], controls, unplanted
        )
        if verdict == "holds" and lost:
            verdict, reason = "void", f"planned controls did not run: {', '.join(lost)}"
        if verdict == "holds" and replaced is not None:
            verdict, reason = "void", replaced
        entries.append(
            {
                "name": check.name,
                "relation": check.relation,
                "verdict": verdict,
                "reason": reason,
                "cases": [r for r in results if r["id"] in ids],
                "omitted": [
                    {"workload": o.workload, "path": o.path, "reason": o.reason}
                    for o in work.omitted
                    if o.check == check.name
                ],
            }
        )
    return worst([entry["verdict"] for entry in entries]), entries
