"""Two sides of attention, signature against signature: same, different or unknown, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kvparity.audit.chains import Chain
from kvparity.audit.flow import Skeleton
from kvparity.audit.signature import Signature
from kvparity.audit.words import MEANING

Verdict = Literal["same", "different", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("different", "unknown", "same")  # the worst first
_NONE = "none"
_MANY = 4  # kinds of values; a longer list tells nobody anything


@dataclass(frozen=True)
class Side:
    """One way to compute attention: a kernel that walks tiles, and one that merges if apart.

    ``walk`` is prefill, or the first kernel of decode; ``merge`` is decode's second kernel.
    """

    label: str
    walk: Signature
    merge: Signature | None = None

    @property
    def kernels(self) -> tuple[Signature, ...]:
        """All kernels of the side."""
        return (self.walk,) if self.merge is None else (self.walk, self.merge)


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
class Comparison:
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

    def as_json(self) -> dict[str, Any]:
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


def compare(left: Side, right: Side) -> Comparison:
    """Compare field by field."""
    fields = tuple(_fields(left, right))
    return Comparison(left.label, right.label, left.walk.arch, fields)


def _fields(left: Side, right: Side) -> Iterator[Field]:
    a, b = left.walk, right.walk
    # Other instructions need other layouts and so another dataflow: that tells nothing new.
    alike = a.families == b.families
    kinds = "" if alike else "another kind of matrix instruction; how it adds inside is not known"
    yield _equal("built for", _built(a), _built(b))
    yield _equal("formats", _formats(a), _formats(b))
    yield _equal("split, tile", _cut(a), _cut(b))
    yield _equal("matrix instruction", _join(a.instructions), _join(b.instructions), kinds)
    yield _equal("input precision", _precision(a), _precision(b))
    straight = _straight(left, right)
    yield _equal("K chains", _chains(a.chains), _chains(b.chains), kinds, straight)
    yield _equal("layout of reductions", _layouts(a), _layouts(b), kinds)
    labels = (left.label, right.label)
    yield _flow("before the loop", labels, (a.before, b.before), kinds, straight)
    yield _flow("loop", labels, (a.loop, b.loop), kinds, straight)
    yield _flow("merge", labels, _merges(left, right), "", straight, blurred=True)
    yield _flow("finish", labels, (_finish(left), _finish(right)), "", straight, blurred=True)
    yield _equal("exp", _exp(left), _exp(right))
    yield _forbidden("contraction", _made(left), _made(right))
    yield _forbidden("atomics", _atomics(left), _atomics(right))


def _equal(name: str, left: str, right: str, unlike: str = "", unseen: str = "") -> Field:
    """``unlike``: why unequal texts are no difference; ``unseen``: why equal ones are not equal."""
    if unseen:
        return Field(name, left, right, "unknown", unseen)
    if left == right:
        return Field(name, left, right, "same")
    return Field(name, left, right, "unknown" if unlike else "different", unlike)


def _flow(
    name: str,
    labels: tuple[str, str],
    flows: tuple[Skeleton, Skeleton],
    unlike: str,
    unseen: str,
    *,
    blurred: bool = False,
) -> Field:
    left, right = flows
    first, second = (
        f"{each.fingerprint}, {len(each.nodes)} values" if each.nodes else _NONE for each in flows
    )
    plain = _equal(name, first, second, unlike, unseen)
    if plain.verdict != "different":
        return plain
    if blurred and left.fits(right):
        note = "alike; some values pass through shared memory, which hides where they come from"
        return Field(name, first, second, "same", note)
    beyond = (left.beyond(right), right.beyond(left))
    note = "; ".join(
        f"only {label}: {_kinds(kinds)}"
        for label, kinds in zip(labels, beyond, strict=True)
        if kinds
    )
    return Field(name, first, second, "different", note)


def _forbidden(name: str, left: int, right: int) -> Field:
    # Not only when one side has it: with either the order is not the declared one.
    none = left == right == 0
    note = "" if none else "the declared order has none"
    return Field(name, str(left), str(right), "same" if none else "different", note)


def _straight(left: Side, right: Side) -> str:
    for side in (left, right):
        if not side.walk.loops or (side.merge is None and not side.walk.around):
            return f"{side.label} has no loop over tiles of its own: loop and merge do not part"
        if side.merge is not None and not side.merge.loops:
            return f"{side.label} has no loop that merges"
    return ""


def _merges(left: Side, right: Side) -> tuple[Skeleton, Skeleton]:
    """Each side's merge of splits, from the values that decode's first kernel stores."""

    def one(side: Side, other: Side) -> Skeleton:
        if side.merge is not None:
            return side.merge.loop
        # A pipelined loop ends behind itself; what decode finishes before it stores is not merge.
        return side.walk.after_given(Skeleton() if other.merge is None else other.walk.after)

    return one(left, right), one(right, left)


def _finish(side: Side) -> Skeleton:
    return side.walk.finish if side.merge is None else side.merge.after


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


def _exp(side: Side) -> str:
    return _join(sorted({op for kernel in side.kernels for op in kernel.exp}))


def _made(side: Side) -> int:
    return sum(kernel.contraction.made for kernel in side.kernels)


def _atomics(side: Side) -> int:
    return sum(kernel.atomics for kernel in side.kernels)


def _join(texts: Sequence[str]) -> str:
    return "; ".join(texts) or _NONE


def _kinds(kinds: dict[str, int]) -> str:
    if len(kinds) > _MANY:
        return f"{sum(kinds.values())} values"
    return ", ".join(f"{count} {op}" for op, count in kinds.items())
