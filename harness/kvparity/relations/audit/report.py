"""The audit's report: one document, and how a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from pydantic import TypeAdapter

from kvparity.core.versions import here
from kvparity.core.versions import lines as outside_line
from kvparity.relations.audit.compare import VERDICTS, FieldDocument, Verdict
from kvparity.relations.audit.contract import Result, ResultDocument
from kvparity.relations.audit.request import Shape
from kvparity.relations.audit.words import CANNOT, MEANING
from kvparity_contracts import LoadedContract

_WIDTH = 60


class ContractDocument(TypedDict):
    """Which contract was audited."""

    name: str
    path: str
    sha256: str


class AuditDocument(TypedDict):
    """The report as JSON has it."""

    schema_version: int
    verdict: Verdict
    meaning: str
    cannot_prove: list[str]
    contract: ContractDocument
    outside_tested: str | None
    pairs: list[ResultDocument]
    elapsed_s: float


def document(loaded: LoadedContract, results: Sequence[Result], elapsed_s: float) -> AuditDocument:
    """The report as JSON values."""
    found = {each.comparison.verdict for each in results}
    verdict = next(each for each in VERDICTS if each in found)
    return {
        "schema_version": 1,
        "verdict": verdict,
        "meaning": MEANING[verdict],
        "cannot_prove": list(CANNOT),
        "contract": {
            "name": loaded.contract.name,
            "path": str(loaded.path),
            "sha256": loaded.sha256,
        },
        "outside_tested": here(),
        "pairs": [each.as_json() for each in results],
        "elapsed_s": round(elapsed_s, 3),
    }


def render(report: AuditDocument, verbose: bool = False) -> str:
    """The report as text; ``verbose`` shows fields that are the same too."""
    lines = [
        f"{report['contract']['name']}: {report['verdict'].upper()}  "
        f"({report['elapsed_s']:.1f} s, compiled only, not run)",
        f"  {report['meaning']}",
        *outside_line(report),
        "",
    ]
    for pair in report["pairs"]:
        lines += [*_pair(pair, verbose), ""]
    lines.append("equal signatures do not prove:")
    lines += [f"  - {each}" for each in report["cannot_prove"]]
    return "\n".join(lines)


def _pair(pair: ResultDocument, verbose: bool) -> list[str]:
    shape = TypeAdapter(Shape).validate_python(pair["shape"])
    lines = [
        f"[{pair['verdict']}] {pair['arch']}  {pair['left']} | {pair['right']}  "
        f"{shape}{_changes(pair)}"
    ]
    tiles = [pair["tiles"], pair["candidate_tiles"]]
    if tiles != ["base", "base"]:
        lines.append(f"    tiles in force for it: {' | '.join(dict.fromkeys(tiles))}")
    fields = [each for each in pair["fields"] if verbose or each["verdict"] != "same"]
    same = [each["name"] for each in pair["fields"] if each["verdict"] == "same"]
    for each in fields:
        lines += _field(each, (pair["left"], pair["right"]))
    if same and not verbose:
        lines.append(f"    same       {', '.join(same)}")
    return lines


def _changes(pair: ResultDocument) -> str:
    old, new = pair["order"], pair["candidate_order"]
    changed = [f"{name} {new[name]} for {old[name]}" for name in old if new[name] != old[name]]
    return f", decode with {', '.join(changed)}" if changed else ""


def _field(field: FieldDocument, labels: tuple[str, str]) -> list[str]:
    head = f"    {field['verdict']:<9}  {field['name']:<20}"
    sides = dict(zip(labels, (field["left"], field["right"]), strict=True))
    if field["left"] == field["right"]:
        lines = [f"{head}  {field['left']}"]
    elif sum(map(len, sides.values())) <= _WIDTH:
        lines = [f"{head}  {' | '.join(sides.values())}"]
    else:
        lines = [head.rstrip()]
        lines += [f"{'':<15}{label}: {text}" for label, text in sides.items()]
    return lines + ([f"{'':<15}({field['note']})"] if field["note"] else [])
