"""The terminal report: what a person reads first. A pure function of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvparity.core.versions import lines as outside_line
from kvparity.core.words import NO_KEY, NO_LSE, UNFINITE, digits, rounded, some
from kvparity.plan.results import CaseLine, Divergence
from kvparity.relations.base import Relation
from kvparity.relations.registry import RELATIONS
from kvparity.report.advice import advice
from kvparity.report.document import CheckOfRun, RunReport

_REASONS = 4
"""Why controls were not planted: more of them are counted, not printed."""


def render(report: RunReport) -> str:
    """The whole report as text."""
    lines = [_headline(report), *ground(report), ""]
    for check in report.checks:
        lines += [*_check(check), ""]
    lines += _controls(report)
    lines += advice(report)
    lines.append(f"evidence: {report.run_dir}")
    return "\n".join(lines)


def _headline(report: RunReport) -> str:
    tail = f"  ({report.elapsed_s:.1f} s)"
    return f"{report.contract.name}: {report.verdict.upper()}{tail}"


def ground(report: RunReport) -> list[str]:
    """What the verdict rests on: device, versions, how the kernels ran."""
    found = report.environment
    subject: Mapping[str, Any] = report.subject
    versions = ", ".join(
        f"{name} {version}"
        for name, version in found.versions.items()
        if version and name in ("torch", "triton", "transformers")
    )
    lines = [f"  on {found.device} ({found.device_name}), {versions}"]
    lines += outside_line({"outside_tested": found.outside_tested})
    if found.numerics_device is not None:
        lines.append(
            f"  computed under the model of {found.numerics_device}'s products, and of attention's "
            "sums along a row where their layout was read: other such sums, and values of exp2, "
            "are the interpreter's, not the device's"
        )
    elif found.triton_mode == "interpreter" and report.kernels:
        lines.append(
            "  Triton kernels ran in the interpreter: this shows that the algorithm is invariant, "
            "not the hardware"
        )
    if report.tiles["arch"]:
        lines.append(f"  tiles: {report.tiles['words']}")
    if weights := subject.get("weights"):
        count = subject["parameters"]
        lines.append(f"  weights: {count:,} parameters, fingerprint {weights[:16]}")
    lines += [f"  {note}" for note in subject.get("notes", ())]
    ordered = any(_relation(check).sees_order for check in report.checks)
    if not ordered and any(each.reason == NO_LSE for each in report.unplanted):
        lines.append(
            "  the pair returns no LSE: another order of additions that the rounding of out hides "
            "is not seen; return (out, lse), or add a check with relation: order"
        )
    if (texts := report.texts) is not None:
        counts = ", ".join(f"{sum(map(len, x))} of {n}" for n, x in texts.ids.items())
        lines.append(f"  texts became ids ({counts}; run.json lists them): {texts.by}")
    if swapped := subject.get("invariant"):
        lines.append(f"  torch's reductions ran in fixed order: {', '.join(swapped)}")
    if ran := subject.get("backends"):
        asked = subject["requested"]
        beside = f"; operations beside it: {asked['operations']}"
        lines.append(f"  attention {asked['attention']} ran on {', '.join(ran)}{beside}")
    if report.jobs is not None and ": memory (" in report.jobs:
        lines.append(f"  {report.jobs}")
    again = report.recheck
    if again.rows:
        unlike = len(again.differing)
        words = f"{unlike} paths differ" if unlike > 1 else "1 path differs"
        lines.append(
            f"  {some(again.rows, 'row')} of {again.paths} of {again.of} paths were recomputed "
            f"in fresh processes: {words if unlike else 'all alike'}"
        )
    ops = subject.get("cpu_ops")
    if ops == "twin":
        lines.append(
            "  operations other than attention ran as vectorised CPU twins of the kernels "
            "(same order; cpu_ops: interpreter runs the kernels)"
        )
    return lines


def _check(check: CheckOfRun) -> list[str]:
    lines = [f"{_mark(check.verdict)} {check.name}  [{check.relation}]  {check.reason}"]
    rows: dict[tuple[str, str], list[CaseLine]] = {}
    for case in check.cases:
        if case.workload is None:
            lines.append(f"    {_relation(case).place(case)}, {formats(case)}: {case.reason}")
            continue
        rows.setdefault((case.path, case.workload), []).append(case)
    paths = list(dict.fromkeys(path for path, _ in rows))
    loads = list(dict.fromkeys(load for _, load in rows))
    if paths:
        wide = max(len(p) for p in paths)
        lines.append("    " + " " * wide + "".join(f"  {load:>12}" for load in loads))
        for path in paths:
            cells = "".join(f"  {cell(rows.get((path, load), [])):>12}" for load in loads)
            lines.append(f"    {path:<{wide}}{cells}")
    lines += _chosen(check.cases)
    for entry in check.omitted:
        lines.append(f"    not run: {entry.path} over {entry.workload}: {entry.reason}")
    lines += _relation(check).rows(check.cases)
    bad = [case for case in check.cases if case.verdict in ("differs", "void")]
    if bad and bad[0].workload is not None:
        lines += first_lines(bad)
    return lines


def _chosen(cases: Sequence[CaseLine]) -> list[str]:
    """How many rows were compared, by workload, where that is fewer than there are."""
    counts = {case.workload: (case.tokens, case.of) for case in cases if case.of is not None}
    return [
        f"    {load}: compared {tokens:,} of {of:,} rows" for load, (tokens, of) in counts.items()
    ]


def _relation(entry: CheckOfRun | CaseLine) -> Relation:
    """The relation of a check or of a case."""
    return RELATIONS[entry.relation]


def formats(case: CaseLine) -> str:
    """The formats of a case in words."""
    same = case.kv_cache == case.dtype
    return case.dtype if same else f"{case.dtype}, kv {case.kv_cache}"


def _mark(verdict: str) -> str:
    return {
        "holds": "[holds]  ",
        "differs": "[DIFFERS]",
        "void": "[VOID]   ",
        "error": "[ERROR]  ",
    }.get(verdict, verdict)


def cell(cases: Sequence[CaseLine]) -> str:
    """Cases of one path and workload in a word or two."""
    if not cases:
        return "."
    tokens = sum(case.tokens for case in cases)
    off = sum(max(case.differing_tokens, case.differing_rows) for case in cases)
    if any(case.recheck for case in cases):
        return "state"
    if any(case.verdict == "differs" for case in cases):
        if off:
            return f"{off}/{tokens} off"
        return "over limit" if _relation(cases[0]).limited else "differs"
    for word in ("error", "void"):
        if any(case.verdict == word for case in cases):
            return word
    return f"{tokens} ok"


def first_lines(bad: Sequence[CaseLine]) -> list[str]:
    """The first case that broke: where, both bit patterns, how often, what it does to RL."""
    case = bad[0]
    where = f"{_relation(case).place(case)}, {case.dtype}"
    if case.temperature is not None:
        where += f", temperature {case.temperature:g}"
    lines = [f"    first: {case.id} ({where}): {case.reason}"]
    lines += _divergence(case)
    return lines + beside(case)


def _divergence(case: CaseLine) -> list[str]:
    lines = []
    d = case.first_divergence
    if d:
        token = "" if d.token is None else f", token {d.token}"
        spot = f"sequence {d.sequence}, position {d.position}{token}"
        if d.name is not None:
            spot += f", {d.name}"
        if d.part is not None:
            spot += f", layer {d.layer}: {d.part}, element {d.column}"
        lines.append(f"      {spot}:")
        shown = (
            (d.reference, d.reference_bits, d.reference_digest),
            (d.candidate, d.candidate_bits, d.candidate_digest),
        )
        for name, (value, bits, digest) in zip(case.sides, shown, strict=True):
            lines.append(f"        {name:<12} {digits(value):>16}  bits {bits}  row {digest}")
        if d.reference_bits == d.candidate_bits:
            lines.append(f"        {_alike(d)}")
        elif d.ulps is not None:
            lines.append(f"        {ulps(d.ulps)} apart")
    return lines


def beside(case: CaseLine) -> list[str]:
    """What is said of a case that broke beside its first divergence."""
    lines = _relation(case).spots(case)
    if case.faults:
        lines.append(f"      {NO_KEY}")
    lines += _often(case)
    lines += _again(case)
    return lines


def _alike(divergence: Divergence) -> str:
    """What is wrong with a row where the bits that are shown are equal."""
    if isinstance(divergence.reference, str):  # JSON names what is no finite number
        return "NaN or Inf on both sides, whatever the path"
    if divergence.reference_digest == divergence.candidate_digest:
        return "the same bits in the whole row, which holds NaN or Inf elsewhere"
    return "the same bits here, different ones elsewhere in the row"


def _again(case: CaseLine) -> list[str]:
    """Whether what differs is a matter of paths at all."""
    if not case.repeats:
        return []
    unsteady = [name for name, steady in case.repeats.items() if not steady]
    if not unsteady:
        return ["      rerun, both sides repeated their own bits"]
    return [
        f"      rerun, {' and '.join(unsteady)} gave different bits: "
        "they differ from run to run, whatever the path"
    ]


def ulps(count: int) -> str:
    """A distance in units in the last place."""
    return some(count, "ulp")


def _often(case: CaseLine) -> list[str]:
    lines = []
    counted = _relation(case).counted
    if counted != Relation.counted and case.differing_tokens:
        what = f"{case.differing_tokens} of {case.tokens} {counted}"
        lines.append(f"      {what} are wrong")
    elif case.differing_tokens or case.differing_rows:
        words = (
            f"{case.differing_tokens} of {case.tokens} tokens and "
            f"{case.differing_rows} of {case.tokens} rows differ"
        )
        farthest = "" if case.max_ulp is None else f"by up to {ulps(case.max_ulp)}"
        if case.reason == UNFINITE:
            words += " or are NaN or Inf"
            alone = case.max_ulp == 0
            farthest = "all others are equal" if alone else farthest and f"the others {farthest}"
        lines.append("      " + ", ".join(filter(None, (words, farthest))))
    drift = {
        "max |dlogp|": case.max_abs_dlogp,
        "approx_kl0": case.approx_kl0,
        "clipfrac0": case.clipfrac0,
    }
    if case.max_abs_dlogp is not None:
        lines.append(
            f"      in RL terms (rollout {case.rollout}, trainer {case.trainer}): "
            + ", ".join(f"{name} {rounded(x)}" for name, x in drift.items() if x is not None)
        )
    shown = case.max_abs if case.limits is None else None  # which tell it
    if shown is not None and (shown or case.reason != UNFINITE):
        lines.append(f"      largest distance {rounded(shown)}")
    return lines


def _controls(report: RunReport) -> list[str]:
    controls = report.controls
    caught = [c for c in controls if c.caught]
    lines = [f"controls: {len(caught)} of {len(controls)} planted defects caught"]
    left_out: dict[str, list[str]] = {}
    for entry in (each for each in report.unplanted if not each.asked):
        left_out.setdefault(entry.reason, []).append(entry.control)
    # Many for one reason are counted, and many reasons, too; run.json names them.
    told = [
        (names[0] if len(names) == 1 else f"({len(names)} controls)", reason)
        for reason, names in left_out.items()
    ]
    if len(told) > _REASONS:
        count = sum(map(len, left_out.values()))
        told = [
            (f"({count} controls)", f"{some(len(left_out), 'reason')}, in run.json and on the page")
        ]
    asked = [(entry.control, entry.reason) for entry in report.unplanted if entry.asked]
    told += asked
    wide = max(map(len, [*(c.name for c in controls), *(who for who, _ in told)]), default=0)
    for control in controls:
        word = "caught" if control.caught else "MISSED"
        lines.append(f"    {control.name:<{wide}}  {word}  {control.seen}")
    lines += [f"    {who:<{wide}}  not planted: {reason}" for who, reason in told]
    return [*lines, ""]
