"""What an order report says, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from kvparity.relations.order.shape import describe
from kvparity.relations.order.stats import Stats
from kvparity.relations.order.tree import SumTree
from kvparity_contracts.json_types import JsonObject

Status = Literal["same", "different", "undeclared", "not-a-tree", "not-measured"]
Verdict = Literal[
    "consistent", "different-order", "undeclared-order", "same-order-different-bits", "not-a-tree"
]
PARTS = ("key order", "denominator", "products", "rescale edges", "division")


@dataclass(frozen=True)
class Part:
    """One of the five parts: what decode does, what prefill does, and whether they are the same.

    ``decode`` and ``prefill`` are one line each (empty where not found out). ``trees`` holds the
    trees that were recovered, by side; prefill's is there only if it is not decode's. ``seen`` says
    what decided a status other than ``same``. ``undeclared``: both do the same, and it is not what
    the subject's order declares.
    """

    name: str
    status: Status
    decode: str = ""
    prefill: str = ""
    seen: str = ""
    trees: Mapping[str, SumTree] = field(default_factory=dict)
    cost: Mapping[str, Stats] = field(default_factory=dict)

    def json(self) -> JsonObject:
        """JSON values; a tree's full text stays out above 512 terms, its fingerprint does not."""
        trees = {
            side: {
                "fingerprint": tree.fingerprint,
                "terms": tree.n,
                "depth": tree.depth,
                "fan_out": tree.fan_out,
                "shape": describe(tree, limit=2000),
                "text": tree.text if tree.n <= 512 else None,
            }
            for side, tree in self.trees.items()
        }
        return {
            "name": self.name,
            "status": self.status,
            "decode": self.decode,
            "prefill": self.prefill,
            "seen": self.seen,
            "trees": trees,
            "cost": {what: stats.json() for what, stats in self.cost.items()},
        }


@dataclass(frozen=True)
class Replayed:
    """Results on random V that have the bits which the recovered key order gives."""

    side: str
    equal: int
    total: int
    skipped: str = ""

    @property
    def complete(self) -> bool:
        """Whether the tree gives every result; of a replay that was skipped there are none."""
        return self.equal == self.total


@dataclass(frozen=True)
class Drawn:
    """Random calls of both sides, and how many gave the same bits in every value."""

    calls: int
    equal: int
    values: int
    differing: int


@dataclass(frozen=True)
class OrderReport:
    """The five parts at one number of keys, and what random data say beside them.

    The last row sees the keys from ``first`` on; terms and edges are counted from it, except where
    keys are named. ``notes`` says where probes left the subject's own numbers.
    """

    keys: int
    rows: int
    batch: int
    subject: JsonObject
    parts: tuple[Part, ...]
    replayed: tuple[Replayed, ...]
    drawn: Drawn
    adder: str = "not measured"
    first: int = 0
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """One word. ``consistent`` says that nothing was found, never that nothing is there."""
        return self._judged()[0]

    @property
    def reason(self) -> str:
        """What decided the verdict, in a sentence."""
        return self._judged()[1]

    def _judged(self) -> tuple[Verdict, str]:
        for part in self.parts:
            if part.status == "different" and part.name == "key order":
                return "different-order", f"{part.name}: {part.seen}"  # whatever else was found
        for part in self.parts:
            if part.status == "not-a-tree":
                return "not-a-tree", f"{part.name}: {part.seen}"
        for part in self.parts:
            if part.status == "different" and part.name != "division":
                return "different-order", f"{part.name}: {part.seen}"
        for part in self.parts:
            if part.status == "undeclared":
                return "undeclared-order", f"{part.name}: {part.seen}"
        for done in self.replayed:
            if not done.complete:
                return "not-a-tree", (
                    f"replay: the key order gives {done.equal} of {done.total} of {done.side}'s "
                    "results on random values; columns or heads are reduced differently, or sums "
                    "are not rounded to float32"
                )
        for part in self.parts:
            if part.status == "different":
                return "same-order-different-bits", f"{part.name}: {part.seen}"
        drawn = self.drawn
        if drawn.equal < drawn.calls:
            return "same-order-different-bits", (
                f"{drawn.calls - drawn.equal} of {drawn.calls} random calls differ, in "
                f"{drawn.differing} of {drawn.values} values"
            )
        unseen = [part.name for part in self.parts if part.status == "not-measured"]
        told = f"; not measured: {', '.join(unseen)}" if unseen else ""
        return "consistent", (
            f"{len(self.parts) - len(unseen)} of {len(self.parts)} parts are the same, and so are "
            f"the bits of {drawn.calls} random calls{told}"
        )

    def json(self) -> JsonObject:
        """JSON values."""
        return {
            "keys": self.keys,
            "prefill_rows": self.rows,
            "batch": self.batch,
            "verdict": self.verdict,
            "reason": self.reason,
            "subject": dict(self.subject),
            "parts": [part.json() for part in self.parts],
            "replay": [asdict(each) for each in self.replayed],
            "random_calls": asdict(self.drawn),
            "adder": self.adder,
            "first_key": self.first,
            "notes": list(self.notes),
        }
