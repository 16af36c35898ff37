"""Two sides of attention, signature against signature: same, different or unknown, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from kvparity.relations.audit.chains import Chain
from kvparity.relations.audit.flow import Skeleton
from kvparity.relations.audit.signature import Signature
from kvparity.relations.audit.views import AuditSide, View, views
from kvparity.relations.audit.words import MEANING
from kvparity_contracts.json_types import JsonObject

Verdict = Literal["same", "different", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("different", "unknown", "same")  # the worst first
_NONE = "none"
_HIDDEN = "not visible"
_MANY = 4  # kinds of values; a longer list tells nobody anything


@dataclass(frozen=True)
class Field:
    """One thing that decides the order: what each side has, and whether that is the same.

    ``note`` says why it is unknown, or which values only one side has.
    """

    name: str
    left: str
    right: str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class KernelComparison:
    """Two sides compared. The verdict is the worst of the fields: different, unknown, same."""

    left: str
    right: str
    arch: str
    fields: tuple[Field, ...]

    @property
    def verdict(self) -> Verdict:
        """``different`` if any field differs, else ``unknown`` if any is, else ``same``."""
        found = {each.verdict for each in self.fields}
        return next((v for v in VERDICTS if v in found), "same")

    @property
    def deciding(self) -> tuple[Field, ...]:
        """The fields that make the verdict; all of them if it is ``same``."""
        return tuple(each for each in self.fields if each.verdict == self.verdict)

    @property
    def meaning(self) -> str:
        """What the verdict can and cannot mean."""
        return MEANING[self.verdict]

    def as_json(self) -> JsonObject:
        """JSON values."""
        return {
            "left": self.left,
            "right": self.right,
            "arch": self.arch,
            "verdict": self.verdict,
            "deciding": [each.name for each in self.deciding],
            "fields": [asdict(each) for each in self.fields],
            "meaning": self.meaning,
        }


def compare(left: AuditSide, right: AuditSide) -> KernelComparison:
    """Compare field by field."""
    fields = tuple(_fields(left, right))
    return KernelComparison(left.label, right.label, left.walk.arch, fields)


def _fields(left: AuditSide, right: AuditSide) -> Iterator[Field]:
    a, b = left.walk, right.walk
    # Other instructions need other layouts and so another dataflow: that tells nothing new.
    alike = a.families == b.families
    kinds = "" if alike else "another kind of matrix instruction; how it adds inside is not known"
    yield _equal("built for", _built(a), _built(b))
    yield _equal("formats", _formats(a), _formats(b))
    yield _equal("split, tile", _cut(a), _cut(b))
    yield _equal("matrix instruction", _join(a.instructions), _join(b.instructions), kinds)
    yield _equal("input precision", _precision(a), _precision(b))
    yield _equal("layout of reductions", _layouts(a), _layouts(b), kinds)
    yield from _walks(left, right, kinds)
    yield _equal("exp", _exp(left), _exp(right))
    yield _forbidden("contraction", _made(left) + _made(right), _fusion(left), _fusion(right))
    atomics = _atomics(left), _atomics(right)
    yield _forbidden("atomics", sum(atomics), *map(str, atomics))


def _walks(left: AuditSide, right: AuditSide, kinds: str) -> Iterator[Field]:
    found = views(left, right)
    if isinstance(found, str):
        for name in ("K chains", "before the loop", "loop", "merge", "finish"):
            yield Field(name, _HIDDEN, _HIDDEN, "unknown", found)
        return
    one, two = found
    labels = (left.label, right.label)
    # A walk that is no loop is woven into the loop that merges; a difference may be the weaving.
    woven = "the walk over tiles is not a loop of its own" if left.straight else ""
    unlike = kinds or woven
    yield _equal("K chains", _chains(one.chains), _chains(two.chains), unlike)
    yield _flow("before the loop", labels, (one.before, two.before), unlike)
    yield _flow("loop", labels, (one.loop, two.loop), unlike)
    yield _flow("merge", labels, (one.merge, two.merge), woven or _ends(one, two), blurred=True)
    yield _flow("finish", labels, (one.finish, two.finish), woven, blurred=True)


def _ends(one: View, two: View) -> str:
    """Why more values in one side's merge may be the end of its walk, if they may."""
    walks = [(view.before, view.loop) for view in (one, two)]
    nested = one.merge.names <= two.merge.names or two.merge.names <= one.merge.names
    if walks[0] == walks[1] or not nested:
        return ""
    return "the walks differ, and a pipelined walk ends after its loop"


def _equal(name: str, left: str, right: str, unlike: str = "") -> Field:
    """``unlike``: why unequal texts are no difference."""
    if left == right:
        return Field(name, left, right, "same")
    return Field(name, left, right, "unknown" if unlike else "different", unlike)


def _flow(
    name: str,
    labels: tuple[str, str],
    flows: tuple[Skeleton, Skeleton],
    unlike: str = "",
    *,
    blurred: bool = False,
) -> Field:
    left, right = flows
    first, second = (
        f"{each.fingerprint}, {len(each.nodes)} values" if each.nodes else _NONE for each in flows
    )
    if left != right and blurred and left.fits(right):
        note = "alike; some values pass through shared memory, which hides where they come from"
        return Field(name, first, second, "same", note)
    plain = _equal(name, first, second, unlike)
    if plain.verdict != "different":
        return plain
    beyond = (left.beyond(right), right.beyond(left))
    note = "; ".join(
        f"only {label}: {_kinds(kinds)}"
        for label, kinds in zip(labels, beyond, strict=True)
        if kinds
    )
    return Field(name, first, second, "different", note)


def _forbidden(name: str, count: int, left: str, right: str) -> Field:
    # Not only when one side has it: with either the order is not the declared one.
    if count == 0:
        return Field(name, left, right, "same")
    return Field(name, left, right, "different", "the declared order has none")


def _built(kernel: Signature) -> str:
    return f"{kernel.arch}, Triton {kernel.triton}, ptxas {kernel.ptxas}"


def _formats(kernel: Signature) -> str:
    return f"{kernel.dtypes.get('Q')}, cache {kernel.dtypes.get('K')}"


def _cut(kernel: Signature) -> str:
    return f"{kernel.constants.get('SPLIT')}, {kernel.constants.get('TILE')}"


def _precision(kernel: Signature) -> str:
    found = {f"{each.precision}, {each.imprecise} imprecise" for each in kernel.structure.dots}
    return _join(sorted(found))


def _layouts(kernel: Signature) -> str:
    return _join([f"{r.combiner} over {r.size} in {r.layout}" for r in kernel.structure.reduces])


def _chains(found: Sequence[Chain]) -> str:
    return _join(sorted({str(each) for each in found}))


def _exp(side: AuditSide) -> str:
    return _join(sorted({op for kernel in side.kernels for op in kernel.exp}))


def _made(side: AuditSide) -> int:
    return sum(kernel.contraction.made for kernel in side.kernels)


def _fusion(side: AuditSide) -> str:
    allowed = any(kernel.contraction.allowed for kernel in side.kernels)
    return f"{'allowed' if allowed else 'forbidden'}, {_made(side)} made"


def _atomics(side: AuditSide) -> int:
    return sum(kernel.atomics for kernel in side.kernels)


def _join(texts: Sequence[str]) -> str:
    return "; ".join(texts) or _NONE


def _kinds(kinds: dict[str, int]) -> str:
    if len(kinds) > _MANY:
        return f"{sum(kinds.values())} values"
    return ", ".join(f"{count} {op}" for op, count in kinds.items())
