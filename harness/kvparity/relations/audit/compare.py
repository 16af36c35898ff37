"""Two sides of attention, signature against signature: same, different or unknown, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from kvparity.relations.audit.chains import Chain
from kvparity.relations.audit.flow import Skeleton
from kvparity.relations.audit.lanes import same_rows
from kvparity.relations.audit.model import Likeness, add_alike
from kvparity.relations.audit.signature import Signature
from kvparity.relations.audit.views import AuditSide, View, views
from kvparity.relations.audit.words import MEANING
from kvparity_contracts.json_types import JsonObject

Verdict = Literal["same", "equal by model", "different", "unknown"]
# The worst first.
VERDICTS: tuple[Verdict, ...] = ("different", "unknown", "equal by model", "same")
_NONE = "none"
_HIDDEN = "not visible"
_MANY = 4  # kinds of values; a longer list tells nobody anything


@dataclass(frozen=True)
class Field:
    """One thing that decides the order: what each side has, and whether that is the same.

    ``note`` says why it is unknown, on what it rests that it is equal by the model, or which values
    only one side has.
    """

    name: str
    left: str
    right: str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class KernelComparison:
    """Two sides compared. The verdict is the worst of the fields (``VERDICTS``)."""

    left: str
    right: str
    arch: str
    fields: tuple[Field, ...]

    @property
    def verdict(self) -> Verdict:
        """``same`` only if every field is."""
        return worst(each.verdict for each in self.fields)

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


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one of several that decides."""
    found = set(verdicts)
    return next((each for each in VERDICTS if each in found), "same")


def compare(left: AuditSide, right: AuditSide) -> KernelComparison:
    """Compare field by field."""
    fields = tuple(_fields(left, right))
    return KernelComparison(left.label, right.label, left.walk.arch, fields)


def _fields(left: AuditSide, right: AuditSide) -> Iterator[Field]:
    a, b = left.walk, right.walk
    kinds = _kinds_of(a, b)
    yield _equal("built for", _built(a), _built(b))
    yield _equal("formats", _formats(a), _formats(b))
    yield _equal("split, tile", _cut(a), _cut(b))
    yield _equal("matrix instruction", *_instructions(a, b), kinds)
    yield _equal("input precision", _precision(a), _precision(b))
    yield _equal("layout of reductions", _layouts(a), _layouts(b), _rows(a, b, kinds))
    yield from _walks(left, right, kinds)
    yield _equal("exp", _exp(left), _exp(right))
    yield _forbidden("contraction", _made(left) + _made(right), _fusion(left), _fusion(right))
    atomics = _atomics(left), _atomics(right)
    yield _forbidden("atomics", sum(atomics), *map(str, atomics))


def _kinds_of(a: Signature, b: Signature) -> Likeness | None:
    """What is known of two kinds of matrix instruction; None where there is one kind.

    What one architecture adds need not be what another one adds by the same instruction.
    """
    if (a.arch, a.families) == (b.arch, b.families):
        return None
    return add_alike(a, b)


def _rows(a: Signature, b: Signature, kinds: Likeness | None) -> Likeness | None:
    """Other instructions need other layouts: by the model where each row lies in them alike."""
    if kinds is None:
        return None
    if same_rows(a.structure.reduces, b.structure.reduces):
        return Likeness(grounds="each row's columns lie in the same lanes, in the same order")
    return Likeness(doubt="another kind of matrix instruction; each row lies in other lanes")


def _walks(left: AuditSide, right: AuditSide, kinds: Likeness | None) -> Iterator[Field]:
    found = views(left, right)
    if isinstance(found, str):
        for name in ("K chains", "before the loop", "loop", "merge", "finish"):
            yield Field(name, _HIDDEN, _HIDDEN, "unknown", found)
        return
    one, two = found
    labels = (left.label, right.label)
    # A walk that is no loop is woven into the loop that merges; a difference may be the weaving.
    woven = "the walk over tiles is not a loop of its own" if left.straight else ""
    unlike = _doubt(woven) or kinds
    depths = _grounded(unlike, "the same groups of products, in the same order along K")
    yield _equal("K chains", _chains(one.chains), _chains(two.chains), depths)
    walks = (left.walk, right.walk)
    yield _flow("before the loop", labels, (one.before, two.before), _part("before", walks, unlike))
    yield _flow("loop", labels, (one.loop, two.loop), _part("loop", walks, unlike))
    merge = _doubt(woven or _ends(one, two))
    yield _flow("merge", labels, (one.merge, two.merge), merge, blurred=True)
    yield _flow("finish", labels, (one.finish, two.finish), _doubt(woven), blurred=True)


def _grounded(unlike: Likeness | None, words: str) -> Likeness | None:
    """What a field rests on where the products are known to be equal."""
    return unlike if unlike is None or not unlike.grounds else Likeness(grounds=words)


def _doubt(words: str) -> Likeness | None:
    return Likeness(doubt=words) if words else None


def _part(
    part: Literal["before", "loop"], walks: tuple[Signature, Signature], unlike: Likeness | None
) -> Likeness | None:
    """What else than products a part computes, if the products are known to be equal."""
    if unlike is None or not unlike.grounds:
        return unlike
    one, two = (walk.kindless(part) for walk in walks)
    if one == two:
        return _grounded(unlike, f"beside the products the same {len(one.nodes)} values")
    return Likeness(doubt="another kind of matrix instruction; other values beside the products")


def _ends(one: View, two: View) -> str:
    """Why more values in one side's merge may be the end of its walk, if they may."""
    walks = [(view.before, view.loop) for view in (one, two)]
    nested = one.merge.names <= two.merge.names or two.merge.names <= one.merge.names
    if walks[0] == walks[1] or not nested:
        return ""
    return "the walks differ, and a pipelined walk ends after its loop"


def _equal(name: str, left: str, right: str, unlike: Likeness | None = None) -> Field:
    """``unlike``: what is known of sides that need not have equal texts."""
    if left == right:
        return Field(name, left, right, "same")
    if unlike is None:
        return Field(name, left, right, "different")
    if unlike.grounds:
        return Field(name, left, right, "equal by model", unlike.grounds)
    return Field(name, left, right, "different" if unlike.differs else "unknown", unlike.doubt)


def _flow(
    name: str,
    labels: tuple[str, str],
    flows: tuple[Skeleton, Skeleton],
    unlike: Likeness | None = None,
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
    if plain.verdict != "different" or unlike is not None:
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


def _instructions(a: Signature, b: Signature) -> tuple[str, str]:
    if a.arch == b.arch:
        return _join(a.instructions), _join(b.instructions)
    return f"{_join(a.instructions)} ({a.arch})", f"{_join(b.instructions)} ({b.arch})"


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
