"""Two reports side by side: every value of one that is another in the other."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from kvparity.core.words import digits, rounded
from kvparity.plan.results import CaseLine, Divergence, Outcome
from kvparity.relations.registry import RELATIONS
from kvparity.report.compare.rows import UnitsRan, bits_apart
from kvparity.report.document import RunReport
from kvparity.report.verdict import ORDER

SCHEMA_VERSION = 1
NOTHING = "–"
"""Where one of the two has no such thing."""
_COUNTS = ("tokens", "differing_tokens", "differing_rows", "max_ulp")
_MEASURES = ("max_abs", "max_abs_dlogp", "approx_kl0", "clipfrac0")


@dataclass(frozen=True)
class RunChange:
    """One thing that is another now. ``worse``: a verdict that is, or a control that was caught."""

    what: str
    before: str
    after: str
    worse: bool = False


@dataclass(frozen=True)
class FolderRead:
    """A run, as its folder gives it. ``contract``: its text, None where that is gone."""

    folder: Path
    report: RunReport
    contract: str | None
    ran: UnitsRan


@dataclass(frozen=True)
class RunsCompared:
    """``verdicts``: of the run, its checks and cases; ``measures``: counts and distances of cases
    with the same verdict; ``bits``: of rows that both runs kept; ``alike``: cases without a change.
    ``diff``: of the contracts' texts, as ``diff -u`` shows it."""

    before: FolderRead
    after: FolderRead
    verdicts: tuple[RunChange, ...]
    measures: tuple[RunChange, ...]
    bits: tuple[RunChange, ...]
    controls: tuple[RunChange, ...]
    environment: tuple[RunChange, ...]
    subject: tuple[RunChange, ...]
    contract: tuple[RunChange, ...]
    diff: tuple[str, ...]
    alike: int

    @property
    def same(self) -> bool:
        """Whether both runs gave the same results, whatever they rest on."""
        return not (self.verdicts or self.measures or self.bits or self.controls)

    def document(self) -> dict[str, object]:
        """As JSON values."""
        lists = ("verdicts", "measures", "bits", "controls", "environment", "subject", "contract")
        found: dict[str, object] = {
            "schema_version": SCHEMA_VERSION,
            "before": str(self.before.folder),
            "after": str(self.after.folder),
            "same": self.same,
            "cases_alike": self.alike,
        }
        for name in lists:
            found[name] = [asdict(each) for each in getattr(self, name)]
        return found | {"diff": list(self.diff)}


def compare(before: FolderRead, after: FolderRead) -> RunsCompared:
    """Everything that changed from one run to the other.

    Cases are the same where check, path, workload and formats are, whatever their ids.
    """
    a, b = before.report, after.report
    ours, theirs = _cases(a), _cases(b)
    both = [name for name in ours if name in theirs]
    turned = [name for name in both if ours[name].verdict != theirs[name].verdict]
    kept = [name for name in both if name not in turned]
    measures = [(name, tuple(_measures(name, ours[name], theirs[name]))) for name in kept]
    return RunsCompared(
        before,
        after,
        verdicts=(
            *_verdict("the run", a.verdict, b.verdict),
            *_named(
                {f"check {each.name!r}": each.verdict for each in a.checks},
                {f"check {each.name!r}": each.verdict for each in b.checks},
            ),
            *_named(
                {name: each.verdict for name, each in ours.items()},
                {name: each.verdict for name, each in theirs.items()},
            ),
        ),
        measures=tuple(change for _, found in measures for change in found),
        bits=tuple(RunChange(*each) for each in bits_apart(before.ran, after.ran)),
        controls=_controls(a, b),
        environment=(
            *_values(a.environment.document(), b.environment.document()),
            *_values({"tiles": a.tiles}, {"tiles": b.tiles}),
        ),
        subject=(
            *_values(a.subject, b.subject),
            *_values({"kernels": dict(a.kernels)}, {"kernels": dict(b.kernels)}),
        ),
        contract=tuple(_values(a.contract.document(), b.contract.document())),
        diff=_diff(before, after),
        alike=sum(not found for _, found in measures),
    )


def _cases(report: RunReport) -> dict[str, CaseLine]:
    """By what a case compares."""
    found: dict[str, CaseLine] = {}
    seen: Counter[str] = Counter()
    for check in report.checks:
        for case in check.cases:
            store = "" if case.kv_cache == case.dtype else f", kv {case.kv_cache}"
            warm = "" if case.temperature is None else f", temperature {case.temperature:g}"
            device = "" if case.device is None else f", {case.device}"
            against = "" if case.reference is None else f" against {case.reference}"
            place = RELATIONS[case.relation].place(case)
            name = f"{check.name!r}: {place}{against}, {case.dtype}{store}{warm}{device}"
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = case
    return found


def _verdict(what: str, before: Outcome | None, after: Outcome | None) -> Iterator[RunChange]:
    if before != after:
        worse = (
            before is not None and after is not None and (ORDER.index(after) < ORDER.index(before))
        )
        yield RunChange(what, before or NOTHING, after or NOTHING, worse or after is None)


def _named(before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> Iterator[RunChange]:
    for what in dict.fromkeys((*before, *after)):
        yield from _verdict(what, before.get(what), after.get(what))


def _measures(name: str, before: CaseLine, after: CaseLine) -> Iterator[RunChange]:
    for field in (*_COUNTS, *_MEASURES):
        a, b = getattr(before, field), getattr(after, field)
        if a != b:
            yield RunChange(f"{name}: {field}", _number(a), _number(b))
    a, b = _first(before.first_divergence), _first(after.first_divergence)
    if a != b:
        yield RunChange(f"{name}: first divergence", a, b)


def _number(value: float | str | None) -> str:
    return NOTHING if value is None else str(value) if isinstance(value, int) else rounded(value)


def _first(found: Divergence | None) -> str:
    if found is None:
        return NOTHING
    sides = f"{digits(found.reference)} ({found.reference_bits}) against "
    sides += f"{digits(found.candidate)} ({found.candidate_bits})"
    rows = f"rows {found.reference_digest} against {found.candidate_digest}"
    return f"{found.sequence}, position {found.position}, {found.name or ''}: {sides}; {rows}"


def _controls(before: RunReport, after: RunReport) -> tuple[RunChange, ...]:
    def seen(report: RunReport) -> dict[str, str]:
        lines = {
            f"{each.name} ({each.relation})": ("missed: ", "caught: ")[each.caught] + each.seen
            for each in report.controls
        }
        others = {
            f"{each.control} ({each.relation})": f"not planted: {each.reason}"
            for each in report.unplanted
        }
        return lines | others

    a, b = seen(before), seen(after)
    return tuple(
        RunChange(
            name,
            a.get(name, NOTHING),
            b.get(name, NOTHING),
            a.get(name, "").startswith("caught") and not b.get(name, "").startswith("caught"),
        )
        for name in dict.fromkeys((*a, *b))
        if a.get(name) != b.get(name)
    )


def _values(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> Iterator[RunChange]:
    """Every leaf that is another, by its dotted name."""
    a, b = dict(_leaves(before)), dict(_leaves(after))
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield RunChange(name, a.get(name, NOTHING), b.get(name, NOTHING))


def _leaves(
    value: JsonValue | Mapping[str, JsonValue], name: str = ""
) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for at, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{at}]")
    else:
        yield name, "null" if value is None else str(value)


def _diff(before: FolderRead, after: FolderRead) -> tuple[str, ...]:
    texts: Sequence[str | None] = (before.contract, after.contract)
    if None in texts:
        return ()
    a, b = (str(text).splitlines() for text in texts)
    return tuple(
        difflib.unified_diff(a, b, str(before.folder), str(after.folder), lineterm="", n=2)
    )
