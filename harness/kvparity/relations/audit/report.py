"""The audit's report: one document, and how a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvparity.core.versions import lines as outside_line
from kvparity.relations.audit.compare import Field, Verdict, worst
from kvparity.relations.audit.contract import Result
from kvparity.relations.audit.words import CANNOT, MEANING
from kvparity_contracts.json_types import JsonObject

_WIDTH = 60
_VERDICT = len("equal by model")
_NEXT = _VERDICT + 6


@dataclass(frozen=True)
class AuditReport:
    """What the audit says of all pairs of a contract, of which there is at least one.

    ``contract``: its name, path and hash. ``outside_tested``: as ``kvparity.core.versions`` has it.
    """

    contract: Mapping[str, str]
    results: tuple[Result, ...]
    elapsed_s: float
    outside_tested: str | None

    @property
    def verdict(self) -> Verdict:
        """The worst of the pairs."""
        return worst(each.comparison.verdict for each in self.results)

    def json(self) -> JsonObject:
        """JSON values."""
        return {
            "schema_version": 1,
            "verdict": self.verdict,
            "meaning": MEANING[self.verdict],
            "cannot_prove": list(CANNOT),
            "contract": self.contract,
            "outside_tested": self.outside_tested,
            "pairs": [each.as_json() for each in self.results],
            "elapsed_s": round(self.elapsed_s, 3),
        }

    def text(self, verbose: bool = False) -> str:
        """What a person reads; ``verbose`` shows fields that are the same too."""
        lines = [
            f"{self.contract['name']}: {self.verdict.upper()}  "
            f"({self.elapsed_s:.1f} s, compiled only, not run)",
            f"  {MEANING[self.verdict]}",
            *outside_line({"outside_tested": self.outside_tested}),
            "",
        ]
        for pair in self.results:
            lines += [*pair_lines(pair, verbose), ""]
        lines.append("equal signatures do not prove:")
        lines += [f"  - {each}" for each in CANNOT]
        return "\n".join(lines)


def pair_lines(pair: Result, verbose: bool) -> list[str]:
    """One pair of kernels."""
    found = pair.comparison
    labels = (found.left, found.right)
    changes = f", decode with {pair.changes}" if pair.changes else ""
    lines = [f"[{found.verdict}] {found.arch}  {' | '.join(labels)}  {pair.shape}{changes}"]
    tiles = [pair.tiles, pair.candidate_tiles]
    if tiles != ["base", "base"]:
        lines.append(f"    tiles in force for it: {' | '.join(dict.fromkeys(tiles))}")
    same = [each.name for each in found.fields if each.verdict == "same"]
    for each in found.fields:
        if verbose or each.verdict != "same":
            lines += _field(each, labels)
    if same and not verbose:
        lines.append(f"    {'same':<{_VERDICT}}  {', '.join(same)}")
    return lines


def _field(field: Field, labels: tuple[str, str]) -> list[str]:
    head = f"    {field.verdict:<{_VERDICT}}  {field.name:<20}"
    sides = dict(zip(labels, (field.left, field.right), strict=True))
    if field.left == field.right:
        lines = [f"{head}  {field.left}"]
    elif sum(map(len, sides.values())) <= _WIDTH:
        lines = [f"{head}  {' | '.join(sides.values())}"]
    else:
        lines = [head.rstrip()]
        lines += [f"{'':<{_NEXT}}{label}: {text}" for label, text in sides.items()]
    return lines + ([f"{'':<{_NEXT}}({field.note})"] if field.note else [])
