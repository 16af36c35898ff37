"""Checks of the kernels themselves: the order in which they add, and what the compiler made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from kvparity_contracts.base import Distinct, Fault
from kvparity_contracts.check_base import KernelCheck, KernelPoint
from kvparity_contracts.numerics import DTypes, Numerics
from kvparity_contracts.order import DecodeTiles
from kvparity_contracts.subjects import (
    OWN_KERNELS,
    AnySubject,
    Attention,
    Decoder,
    known,
    order_of,
)

Architecture = Literal["sm_80", "sm_90", "sm_100"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
FEWEST_KEYS = 3
"""Fewer keys than these are added in one order alone."""


class OrderCheck(KernelCheck):
    """Decode at N keys adds in the order of row N - 1 of prefill: what samples cannot show."""

    TAG: ClassVar[str] = "order"
    COMPARES = "an order check compares decode with prefill at the numbers of keys that it lists"

    relation: Literal["order"]
    """order: decode's reduction order is recovered by probing and certified on prefill."""
    keys: Distinct[Annotated[int, Field(ge=FEWEST_KEYS)]]
    """Numbers of keys: each is a case."""
    execution: DTypes | None = None
    """Formats of numerics.execution to look at, or one of them; left out, all."""

    def points(self, execution: str) -> Iterator[KernelPoint]:
        """One for each number of keys."""
        if self.execution is None or execution in self.execution:
            yield from (KernelPoint(keys=keys) for keys in self.keys)

    def hidden(self, tile: int) -> str | None:
        """Within one tile nothing is merged."""
        if max(self.keys) <= tile:
            return f"no order check has more than {tile} keys, one tile"
        return None

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """What cannot be probed here: a model of transformers, a narrow window, too many keys."""
        if subject.kind == "transformers":
            message = f"found 'order', but the attention of a {subject.kind} model cannot be probed"
            yield Fault(("relation",), message, "a subject of kind attention or decoder")
        window = known(subject).sliding_window
        if window is not None and window < FEWEST_KEYS:
            message = f"found 'order' beside a window of {window} keys, which has only one order"
            yield Fault(("relation",), message, f"a window of at least {FEWEST_KEYS} keys")
        if isinstance(subject, Attention) and subject.heads.v_dim not in (None, subject.heads.dim):
            message = f"found 'order' beside values of another width ({subject.heads.v_dim})"
            yield Fault(("relation",), message, "values as wide as keys: probes write both")
        elif isinstance(subject, Attention) and subject.values == "latent":
            message = "found 'order' beside latent values: a probe needs values of its own"
            yield Fault(("relation",), message, "values: own")
        longest = known(subject).max_positions
        for j, keys in enumerate(self.keys):
            if longest is not None and keys > longest:
                expected = f"at most {longest}, the positions of the model"
                yield Fault(("keys", j), f"found {keys} keys", expected)
        for j, dtype in enumerate(self.execution or ()):
            if dtype not in numerics.execution:
                expected = f"formats of numerics.execution ({', '.join(numerics.execution)})"
                yield Fault(("execution", j), f"found {dtype!r}", expected)


class AuditCheck(KernelCheck):
    """The compiled kernels of decode decide order and roundings as those of prefill do."""

    TAG: ClassVar[str] = "audit"
    COMPARES = "an audit compares the compiled kernels of decode with those of prefill"

    relation: Literal["audit"]
    """audit: kernels of this project are compiled for GPUs that need not be here, and compared."""
    architectures: Distinct[Architecture] = ARCHITECTURES
    """What the kernels are compiled for: each is a case."""
    by_model: Literal["void", "accepted"] = "void"
    """What a case is where two kinds of matrix instruction add alike by a model alone:
    ``accepted`` lets it hold."""
    decode: DecodeTiles | None = None
    """Tiles on which decode is compiled for this check, beside prefill on those of the order. The
    paths of the contract run on the order's all the same."""

    def points(self, execution: str) -> Iterator[KernelPoint]:
        """One for each architecture."""
        yield from (KernelPoint(architecture=each) for each in self.architectures)

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """Kernels that are not this project's cannot be compiled here."""
        expected = "a decoder, or the pair " + " and ".join(OWN_KERNELS)
        if isinstance(subject, Attention):
            if (subject.prefill, subject.decode) != OWN_KERNELS:
                message = f"found 'audit', but {subject.decode} is no kernel that it can compile"
                yield Fault(("relation",), message, expected)
        elif isinstance(subject, Decoder) and subject.attention != "fixed-order":
            message = f"found 'audit', but it cannot compile attention: {subject.attention}"
            yield Fault(("relation",), message, "a decoder with attention: fixed-order")
        elif subject.kind == "transformers":
            message = f"found 'audit', but it does not know the kernels of a {subject.kind} model"
            yield Fault(("relation",), message, expected)
        tiles, order = self.decode, order_of(subject)
        if tiles and order and (tiles.block_m, tiles.num_warps) == (order.block_m, order.num_warps):
            message = "found the rows and warps of the order, which prefill has, too"
            yield Fault(("decode",), message, "other rows or warps, or no decode")
