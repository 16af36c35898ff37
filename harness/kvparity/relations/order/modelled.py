"""The trees that tensor cores add, for kernels that are compiled and not run.

The audit reads which matrix instruction a kernel has, how many steps its chains take, and in which
lanes a row lies; the table of tensor cores says how many products one step adds at once and what it
keeps of them. Together they are a tree with fused nodes. ``ex2.approx`` is in no table: values are
not predicted, only the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kvparity.relations.audit.chains import Chain
from kvparity.relations.audit.compare import KernelComparison, compare
from kvparity.relations.audit.lanes import sum_words
from kvparity.relations.audit.model import groups, products, row
from kvparity.relations.audit.request import AuditError, Request, Shape
from kvparity.relations.audit.side import read_all
from kvparity.relations.audit.signature import Signature
from kvparity.relations.order.canonical import fused_chain, fused_key_order
from kvparity.relations.order.shape import describe
from kvparity.relations.order.tree import SumTree
from kvparity_contracts.json_types import JsonObject
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tensor_cores import FusedAdd

ROUNDING = "toward zero"


@dataclass(frozen=True)
class FusedSum:
    """One part: its tree, and what each node that multiplies does.

    ``groups``: how many products each fused addition of a step of the walk takes: over the head
    dimension for ``products``, over a tile for ``key order``.
    """

    part: str
    instruction: str
    unit: FusedAdd
    groups: tuple[int, ...]
    tree: SumTree
    source: str

    @property
    def words(self) -> str:
        """In one line: the instruction, and each node's L, F and rounding."""
        unit = self.unit
        exact = "" if unit.result == 23 else f", result {unit.result} bits"
        return (
            f"{self.instruction}, {len(self.groups)} fused additions; each node adds up to "
            f"L {unit.terms} products and the sum so far, keeps F {unit.kept} bits below the "
            f"greatest exponent, and is cut {ROUNDING}{exact}"
        )

    def json(self) -> JsonObject:
        """JSON values."""
        unit = self.unit
        return {
            "part": self.part,
            "instruction": self.instruction,
            "L": unit.terms,
            "F": unit.kept,
            "e_zero": unit.e_zero,
            "result": unit.result,
            "rounding": ROUNDING,
            "groups": list(self.groups),
            "fingerprint": self.tree.fingerprint,
            "depth": self.tree.depth,
            "fan_out": self.tree.fan_out,
            "shape": describe(self.tree, limit=2000),
            "text": self.tree.text if self.tree.n <= 512 else None,
            "source": self.source,
        }


@dataclass(frozen=True)
class ModelledSide:
    """Decode or prefill: what it multiplies, and how it adds the weights."""

    label: str
    sums: tuple[FusedSum, ...]
    denominator: str


@dataclass(frozen=True)
class Modelled:
    """Both sides for one architecture and number of keys, and what the audit says of them."""

    arch: str
    keys: int
    first: int
    shape: Shape
    order: ReductionOrder
    sides: tuple[ModelledSide, ...]
    compiled: KernelComparison

    def json(self) -> JsonObject:
        """JSON values."""
        return {
            "architecture": self.arch,
            "keys": self.keys,
            "first_key": self.first,
            "shape": asdict(self.shape),
            "order": asdict(self.order),
            "verdict": self.compiled.verdict,
            "meaning": self.compiled.meaning,
            "sides": [
                {
                    "side": side.label,
                    "parts": [each.json() for each in side.sums],
                    "denominator": side.denominator,
                }
                for side in self.sides
            ],
        }


def modelled(
    arch: str,
    shape: Shape,
    order: ReductionOrder,
    keys: Sequence[int],
    *,
    window: int = 0,
    folder: Path | None = None,
) -> list[Modelled]:
    """Compile both sides once, and build the trees of each number of keys.

    ``window``: how many keys the last row sees (0: all). Raises ``ValueError`` for an architecture
    that is not known, ``AuditError`` if a kernel does not compile, or does not multiply as the
    table has it.
    """
    requests = (Request("prefill", arch, shape, order), Request("decode", arch, shape, order))
    sides = read_all(requests, folder=folder)
    prefill, decode = (sides[each] for each in requests)
    compiled = compare(prefill, decode)
    found = []
    for n in keys:
        first = max(0, n - window) if window else 0
        trees = tuple(
            ModelledSide(
                side.label,
                _sums(side.walk, side.label, shape, order, n, first),
                sum_words(side.walk.structure.reduces, side.walk.loop),
            )
            for side in (decode, prefill)
        )
        found.append(Modelled(arch, n, first, shape, order, trees, compiled))
    return found


def _sums(
    walk: Signature, label: str, shape: Shape, order: ReductionOrder, keys: int, first: int
) -> tuple[FusedSum, ...]:
    made = []
    for part, start in (("products", "zero"), ("key order", "carried")):
        fitting = [each for each in walk.chains if each.start == start]
        if len(fitting) != 1:
            raise AuditError(
                f"{label} for {walk.arch}: {len(fitting)} kinds of chains start {start}, expected "
                f"the one of {part}"
            )
        made.append(_sum(walk, label, part, fitting[0], shape, order, keys, first))
    return tuple(made)


def _sum(
    walk: Signature, label: str, part: str, chain: Chain, shape: Shape, order: ReductionOrder,
    keys: int, first: int,
) -> FusedSum:  # fmt: skip
    told = products(chain.op)
    entry = None if told is None else row(walk.arch, told)
    if told is None or entry is None:
        raise AuditError(
            f"{label} for {walk.arch} multiplies with {chain.op}, which is not in the table of "
            "tensor cores"
        )
    sizes = groups(told.depth, chain.steps, entry.unit.terms)
    if sum(sizes) < (least := shape.head_dim if part == "products" else order.tile):
        raise AuditError(
            f"{label} for {walk.arch}: {part} takes {sum(sizes)} terms in a chain, expected at "
            f"least {least}"
        )
    if part == "products":
        tree = fused_chain(shape.head_dim, sizes)
    else:
        tree = fused_key_order(order, keys, sizes, first)
    return FusedSum(part, chain.op, entry.unit, sizes, tree, entry.source)
