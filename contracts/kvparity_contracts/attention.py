"""A pair of attention kernels as a contract declares it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from kvparity_contracts.base import Fault, Model, Positive, refuse
from kvparity_contracts.order import Order
from kvparity_contracts.pair_keys import Bias, KeyCounts, Range, WindowSides
from kvparity_contracts.signatures import SIGNATURES, Signature

FUNCTION = re.compile(
    r"(?P<where>[^:]+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)"
)


OWN_KERNELS = ("kvparity_kernels.attention:prefill", "kvparity_kernels.attention:decode")
"""The pair of this project, by name."""


def _function(text: str) -> str:
    if not FUNCTION.fullmatch(text):
        expected = "'module:function' or 'path/to/file.py:function'"
        expected += "" if ":" in text else "; the function stands behind a colon"
        called = text.removesuffix("()")
        meant = called if FUNCTION.fullmatch(called) else ""
        refuse([Fault((), f"found {text!r}", expected, meant)])
    return text


FunctionName = Annotated[
    str,
    AfterValidator(_function),
    WithJsonSchema({"type": "string", "pattern": r"^[^:]+:[A-Za-z_]\w*$"}),
]

Width = Annotated[int, Field(ge=1, le=4096)]
"""Far above that of any kernel, and far below what no memory holds."""


class Heads(Model):
    """Heads of an attention kernel."""

    query: Width
    """Query heads: a multiple of kv."""
    kv: Width
    """Key and value heads."""
    dim: Width
    """Width of one head."""
    v_dim: Width | None = None
    """Width of one value, and of one head of `out`; left out, dim."""

    @property
    def out(self) -> int:
        """Numbers in one row of ``out``."""
        return self.query * (self.v_dim or self.dim)

    def own_faults(self) -> Iterator[Fault]:
        """Query heads that cannot be shared out."""
        if self.query % self.kv:
            yield Fault(("query",), f"found {self.query}", f"a multiple of kv ({self.kv})")


class Attention(Model):
    """A pair of attention functions, called with random queries, keys and values."""

    TAG: ClassVar[str] = "attention"

    kind: Literal["attention"]
    """attention: a pair of kernels."""
    prefill: FunctionName
    """The prefill function: 'module:function', or 'path/to/file.py:function' beside this file."""
    decode: FunctionName
    """The decode function, named in the same way."""
    signature: Signature | None = None
    """Whose functions they are like: they are then called as that project documents its own; left
    out, with kvparity's keywords."""
    heads: Heads
    """Heads that the pair is called with."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Factor of the scores; left out, dim ** -0.5."""
    order: Order | None = None
    """Reduction order passed to both functions as `order`; leave it out where they take none."""
    window: Positive | None = None
    """How many keys a row sees, its own included, passed as `window`; left out, all."""
    causal: bool = True
    """false: a row sees the keys behind its own, too (in a window as many as before it), passed as
    `causal`. Without a `cross`, prefill is then called with whole sequences alone, and decode
    never."""
    window_size: WindowSides | None = None
    """Beside causal: false, of how many keys before and behind its own a row sees no more (-1: all
    are seen), passed as `window_size`, as flash-attention takes it; left out, all."""
    cross: KeyCounts | None = None
    """Beside causal: false, cross-attention: each sequence has a number of keys of its own, drawn
    between these two (those of an encoder), and every one of its rows sees them all."""
    softcap: Annotated[float, Field(gt=0)] | None = None
    """Scores become c * tanh(s / c) with this c, passed as `softcap`; left out, they stay."""
    sinks: Range | None = None
    """Logits of one more key for each query head, whose value is 0, drawn between these two numbers
    and passed as `sinks`; left out, none."""
    bias: Bias | None = None
    """What is added to scores by head and distance, drawn and passed; left out, nothing."""
    layout: Literal["slot-head", "head-slot", "head-major", "interleaved"] = "slot-head"
    """How the cache lies in memory. slot-head: all heads of a slot together; head-slot: all slots
    of a head; head-major: the same for each sequence or page; interleaved: K and V of a slot."""
    page: Width | None = None
    """Slots of a page: decode is given k and v in pages, and `block_table`; left out, one cache for
    each sequence."""
    rows: Literal["one", "many"] = "one"
    """one: decode is given one row of each sequence; many: any number, packed, and `cu_seqlens_q`,
    so that it, not prefill, computes the rows of verify(n)."""
    append: FunctionName | None = None
    """The function that writes fresh keys and values into the cache, named in the same way; left
    out, kvparity does."""
    out: Literal["returned", "given"] = "returned"
    """given: both functions write into the `out` that they are given, and return it, or with the
    LSE, or nothing; returned: they return one of their own."""
    values: Literal["own", "latent"] = "own"
    """own: values lie in a cache of their own; latent: v is a view of the first v_dim columns of k,
    as in MLA."""
    queries: Literal["mixed", "normal", "sharp"] = "mixed"
    """mixed: queries, keys and values as trained models have them, beside plain ones; normal:
    standard normals all; sharp: the same with queries 1, 4, 16 or 64 times as long by position."""
    inputs: Literal["strided", "contiguous"] = "strided"
    """strided: every other call is given q, k and v as views of fused tensors, as engines pass
    them; contiguous: the pair takes no such views, and none are given."""
    empty: Literal["zero", "never"] = "zero"
    """zero: sequences without a token are given where sequences run together: a row that sees no
    key must be 0, and one whose kv_lens is left from another batch is ignored; never: the pair is
    never given one."""

    @property
    def gives_out(self) -> bool:
        """Whether both functions are given the tensor that they write to."""
        writes = self.signature is not None and SIGNATURES[self.signature].writes
        return writes or self.out == "given"

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """How many keys up to its own a row sees, and how many from it on; None: all."""
        if self.window_size is None:
            return self.window, 1 if self.causal else self.window
        before, ahead = self.window_size
        return before + 1 or None, ahead + 1 or None
