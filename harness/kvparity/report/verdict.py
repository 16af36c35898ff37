"""From cases and controls to verdicts. The void rules live here; nothing can switch them off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvparity.core.errors import SubjectError
from kvparity.core.words import some
from kvparity.plan.cases import Case, Omitted, Work
from kvparity.plan.kernel_cases import KernelCase, Unplanted
from kvparity.plan.results import CaseLine, ControlLine, Outcome
from kvparity.record.products import MODEL, TORCH
from kvparity.relations.blind import apart, blind, seen_instead
from kvparity.relations.registry import RELATIONS
from kvparity.report.lines import UnitLine
from kvparity_contracts.checks import Check, PathCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.json_types import JsonObject

ORDER: tuple[Outcome, ...] = ("error", "differs", "void", "holds")
"""From the word that outranks all others to the one that all must say."""


@dataclass(frozen=True)
class Judged:
    """One check: its verdict, why, and what it rests on."""

    name: str
    relation: str
    verdict: Outcome
    reason: str
    cases: tuple[CaseLine, ...]
    omitted: tuple[Omitted, ...]


def worst(verdicts: Sequence[Outcome]) -> Outcome:
    """The verdict of a whole: the worst of its parts; of nothing, ``void``."""
    return min(verdicts, key=ORDER.index) if verdicts else "void"


def judge_check(
    check: Check,
    planned: Sequence[Case | KernelCase],
    results: Sequence[CaseLine],
    controls: Sequence[ControlLine],
    unplanted: Sequence[Unplanted],
) -> tuple[Outcome, str]:
    """(verdict, reason) of one check from its planned cases, their results and its controls."""
    # Worst last: should a case stand there twice, what was ever seen of it counts.
    found = {e.id: e for e in sorted(results, key=lambda e: -ORDER.index(e.verdict))}
    missing = [case.id for case in planned if case.id not in found]
    own = [found[case.id] for case in planned if case.id in found]
    verdicts = [each.verdict for each in own]
    if "error" in verdicts:
        first = next(each for each in own if each.verdict == "error")
        return "error", _words(first)
    if "differs" in verdicts:
        count = verdicts.count("differs")
        return "differs", f"{count} of {len(planned)} cases differ"
    if missing:
        return "void", f"{len(missing)} of {len(planned)} cases did not run: {missing[0]}, ..."
    if isinstance(check, PathCheck):
        paths = {str(case.path) for case in planned if isinstance(case, Case)}
        wanted = {str(path) for each in check.paths for path in each.expand(())}
        if wanted - paths:
            skipped = ", ".join(sorted(wanted - paths))
            return "void", f"{skipped}: shows nothing in any workload and was not run"
    if "void" in verdicts:
        first = next(each for each in own if each.verdict == "void")
        return "void", _words(first)
    if not planned:
        return "void", "no case was compared"
    formats = dict.fromkeys(case.numerics.execution for case in planned)
    return _controls_allow(check, controls, unplanted, own, len(planned), tuple(formats))


def _words(case: CaseLine) -> str:
    """Where a case looked, and what it found."""
    return f"{RELATIONS[case.relation].place(case)}: {case.reason}"


def _controls_allow(
    check: Check,
    controls: Sequence[ControlLine],
    unplanted: Sequence[Unplanted],
    results: Sequence[CaseLine],
    cases: int,
    formats: Sequence[str],
) -> tuple[Outcome, str]:
    own = [c for c in controls if c.relation == check.relation]
    # What has a reach is judged by each check's own limits, not by all at once.
    missed = [c for c in own if not c.caught and not c.reach]
    if missed:
        told = apart(missed[0], tuple(check.limits_in(formats[0])), results)
        return "void", f"planted and not caught: {', '.join(c.name for c in missed)}{told}"
    asked = [u for u in unplanted if u.asked]
    if asked:
        return (
            "void",
            f"control {asked[0].control} was asked for and not planted: {asked[0].reason}",
        )
    if not own:
        return "void", f"no control of relation {check.relation} was planted"
    if all(c.expected != "differs" for c in own):
        names = ", ".join(c.name for c in own)
        return "void", f"only {names} was planted, which changes no bit"
    for execution in formats:
        limits = check.limits_in(execution)
        loose = _too_loose(limits, own) if limits else None
        if loose is not None:
            return "void", f"the limits of {execution} catch no planted defect: {loose}"
    unseen = blind(check.name, check.relation, controls, results)
    if unseen is not None:
        return "void", unseen
    caught = f"{some(len(own), 'control')} caught"
    words = [f"{some(cases, 'case')}, {RELATIONS[check.relation].holds}; {caught}"]
    words += seen_instead(check.name, check.relation, controls)
    return "holds", ", ".join(words)


def _too_loose(limits: Mapping[str, float], own: Sequence[ControlLine]) -> str | None:
    """Which of its limits a planted defect kept, if one that was measured kept them all.

    A control is run for one check in one format. The limits of all others must catch it, too.
    """
    kept = []
    for control in own:
        measured = {n: float(x) for n, x in control.measured.items() if n in limits}
        if any(value > limits[name] for name, value in measured.items()):
            return None
        words = [f"{n} {x:.3g}, within {limits[n]:.3g}" for n, x in measured.items()]
        kept.append(f"{control.name} gave {', '.join(words) or 'nothing to measure'}")
    return "; ".join(kept)


def judge(
    contract: Contract,
    work: Work,
    results: Sequence[CaseLine],
    controls: Sequence[ControlLine],
    unplanted: Sequence[Unplanted],
    replaced: str | None,
) -> tuple[Outcome, list[Judged]]:
    """(verdict, all checks). ``replaced``: what :func:`other_than_requested` found."""
    planned: list[Case | KernelCase] = [case for unit in work.units for case in unit.cases]
    planned += work.kernel_cases
    ended = {(entry.name, entry.relation) for entry in controls}
    ended |= {(entry.control, entry.relation) for entry in unplanted}
    lost = [run.control for run in work.every_control if (run.control, run.relation) not in ended]
    found: list[Judged] = []
    for check in contract.checks:
        own = [case for case in planned if case.check == check.name]
        ids = {case.id for case in own}
        cases = tuple(line for line in results if line.id in ids)
        verdict, reason = judge_check(check, own, cases, controls, unplanted)
        if verdict == "holds" and lost:
            verdict, reason = "void", f"planned controls did not run: {', '.join(lost)}"
        if verdict == "holds" and replaced is not None:
            verdict, reason = "void", replaced
        omitted = tuple(each for each in work.omitted if each.check == check.name)
        found.append(Judged(check.name, check.relation, verdict, reason, cases, omitted))
    return worst([each.verdict for each in found]), found


def other_than_requested(units: Sequence[UnitLine]) -> str | None:
    """What was used in place of what was asked for, in any unit, such as another backend, or None.

    Raises:
        SubjectError: the subject's description of what it used is not an object.
    """
    for unit in units:
        asked, used = (unit.subject.get(name) or {} for name in ("requested", "used"))
        if not isinstance(asked, dict) or not isinstance(used, dict):
            raise SubjectError(f"the subject describes what was used as {used!r}")
        if unlike := _unlike(asked, used):
            return unlike
    return None


def _unlike(asked: JsonObject, used: JsonObject, of: str = "") -> str | None:
    """The first that is not as asked for, down to the single module of a map of devices."""
    for key, value in asked.items():
        name = f"{of}[{key!r}]" if of else key
        if key not in used:
            return f"{name} {value!r} was asked for, and the subject does not say what was used"
        found = used[key]
        if isinstance(value, dict) and isinstance(found, dict):
            if unlike := _unlike(value, found, name):
                return unlike
        elif found != value:
            return f"{name} {value!r} was asked for, but {found!r} was used"
    return None


def not_modelled(contract: Contract, units: Sequence[UnitLine]) -> str | None:
    """What did not compute as the device that the contract asks for, or None."""
    device = contract.numerics.device
    if device is None:
        return None
    asked = f"products of {device} were asked for"
    for unit in units:
        for path, counts in unit.observed.items():
            place = f"{path} over {unit.unit}"
            if own := [name for name in counts if name.startswith(TORCH)]:
                return f"{asked}, and {place} took {', '.join(own)}, which the model does not reach"
            if counts.get(f"{MODEL}{device} tf32"):
                return f"{asked} with TF32 off, and {place} took products of float32 cut to TF32"
            if not any(name.startswith(f"{MODEL}{device} ") for name in counts):
                return f"{asked}, and {place} computed none that the model reaches"
    return None if units else f"{asked}, and no path ran whose products are counted"
