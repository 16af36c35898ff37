"""What is timed: operations at the shapes of a model, and every way of computing each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from kvparity.subjects.decoder.presets import PRESETS

What = Literal["decode", "prefill", "chunked", "linear", "logprob", "step"]
WHATS: tuple[What, ...] = ("decode", "prefill", "chunked", "linear", "logprob", "step")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, in elements. ``dtype``: the name of a torch format.

    ``tied``: the head is the embedding. ``qk_norm``: every head of queries and keys is normed.
    """

    query: int
    kv: int
    dim: int
    hidden: int
    intermediate: int
    vocab: int
    dtype: str = "bfloat16"
    layers: int = 1
    qk_norm: bool = False
    tied: bool = False

    @property
    def item(self) -> int:
        """Bytes of one element."""
        return 4 if self.dtype == "float32" else 2

    @property
    def layer(self) -> int:
        """Elements of the matrices of one layer."""
        attended = (2 * self.query + 2 * self.kv) * self.dim
        return self.hidden * (attended + 3 * self.intermediate)


SHAPES: Mapping[str, ModelShape] = MappingProxyType(
    {
        name: ModelShape(
            query=preset.heads,
            kv=preset.kv_heads,
            dim=preset.head_dim,
            hidden=preset.hidden,
            intermediate=preset.intermediate,
            vocab=preset.vocab,
            layers=preset.layers,
            qk_norm=preset.qk_norm,
            tied=preset.tied,
        )
        for name, preset in PRESETS.items()
        if name != "tiny"
    }
)


@dataclass(frozen=True)
class TimedCase:
    """One operation at one size. ``sizes`` depend on ``what``; ``bytes`` are read and written.

    ``flops`` are multiplications and additions of the definition, causal halves left out.
    """

    what: What
    sizes: tuple[tuple[str, int], ...]
    bytes: int
    flops: int

    def size(self, name: str) -> int:
        """One size by its name."""
        return dict(self.sizes)[name]

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.what} " + ", ".join(f"{name} {value}" for name, value in self.sizes)


DECODE = tuple(
    (b, n) for n in (1024, 8192, 32_768, 131_072) for b in (1, 8, 64) if b * n <= 1 << 21
)
PREFILL = (512, 4096, 16_384)
CHUNKED = ((256, 4096), (256, 32_768))
ROWS = (1, 8, 64, 512, 4096)
SCORED = (64, 2048)
STEPS = (*((b, 1, n) for n in (1024, 8192) for b in (1, 8, 64)), (1, 2048, 2048))
"""(sequences, new tokens of each, keys of each afterwards); the last one is a first step."""

ENDLESS = 1 << 62  # bytes: more than any device has


def cases(
    shape: ModelShape, wanted: Sequence[What] = WHATS, *, free: int = ENDLESS
) -> Iterator[TimedCase]:
    """The cases of a model's shape. ``free``: bytes of the device, for the depth of a step."""
    if "decode" in wanted:
        for batch, keys in DECODE:
            yield decode(shape, batch, keys)
    if "prefill" in wanted:
        for rows in PREFILL:
            yield prefill(shape, rows, rows, "prefill")
    if "chunked" in wanted:
        for rows, keys in CHUNKED:
            yield prefill(shape, rows, keys, "chunked")
    if "linear" in wanted:
        widths = {
            "qkv": (shape.hidden, (shape.query + 2 * shape.kv) * shape.dim),
            "down": (shape.intermediate, shape.hidden),
        }
        for rows in ROWS:
            for k, n in widths.values():
                yield linear(shape, rows, k, n)
    if "logprob" in wanted:
        for rows in SCORED:
            yield logprob(shape, rows)
    if "step" in wanted:
        for batch, rows, keys in STEPS:
            yield step(fitting(shape, batch, rows, keys, free), batch, rows, keys)


def decode(shape: ModelShape, batch: int, keys: int) -> TimedCase:
    """One query of each of ``batch`` sequences against ``keys`` keys."""
    size = 2 * batch * keys * shape.kv * shape.dim * shape.item
    flops = 4 * batch * keys * shape.query * shape.dim
    return TimedCase("decode", (("batch", batch), ("keys", keys)), size, flops)


def prefill(shape: ModelShape, rows: int, keys: int, what: What) -> TimedCase:
    """The last ``rows`` queries of one sequence of ``keys`` keys, causal."""
    size = 2 * (rows * shape.query + keys * shape.kv) * shape.dim * shape.item
    flops = 4 * _seen(rows, keys) * shape.query * shape.dim
    return TimedCase(what, (("rows", rows), ("keys", keys)), size, flops)


def linear(shape: ModelShape, rows: int, k: int, n: int) -> TimedCase:
    """``rows`` rows of ``k`` elements through a weight ``[n, k]``."""
    size = (rows * (k + n) + k * n) * shape.item
    return TimedCase("linear", (("rows", rows), ("k", k), ("n", n)), size, 2 * rows * k * n)


def logprob(shape: ModelShape, rows: int) -> TimedCase:
    """The logprob of one target in each of ``rows`` rows of float32 logits."""
    return TimedCase("logprob", (("rows", rows), ("vocab", shape.vocab)), 4 * rows * shape.vocab, 0)


def step(shape: ModelShape, batch: int, rows: int, keys: int) -> TimedCase:
    """A whole decoder: the last ``rows`` tokens of ``batch`` sequences of ``keys`` keys.

    Embedding, ``shape.layers`` layers, and the head of the last token of each sequence. ``bytes``
    are those of weights, keys and values; the embedding is gathered from and counts nothing.
    """
    head = shape.vocab * shape.hidden
    kept = 2 * batch * keys * shape.kv * shape.dim * shape.layers
    size = (shape.layers * shape.layer + head + kept) * shape.item
    attended = 4 * batch * _seen(rows, keys) * shape.query * shape.dim
    linears = 2 * batch * (rows * shape.layers * shape.layer + head)
    sizes = (("batch", batch), ("rows", rows), ("keys", keys), ("layers", shape.layers))
    return TimedCase("step", sizes, size, attended * shape.layers + linears)


def fitting(shape: ModelShape, batch: int, rows: int, keys: int, free: int) -> ModelShape:
    """The model with all its layers, or with as many as fit into ``free`` bytes (at least one).

    Counted are weights, embedding, cache, and what one layer and the head hold meanwhile.
    """
    tokens, table = batch * rows, shape.vocab * shape.hidden
    held = shape.layer + 4 * tokens * (shape.hidden + shape.intermediate) + 4 * batch * shape.vocab
    fixed = ((1 if shape.tied else 2) * table + 2 * held) * shape.item
    each = (shape.layer + 2 * batch * keys * shape.kv * shape.dim) * shape.item
    layers = min(shape.layers, (free - fixed) // each)
    return replace(shape, layers=max(1, layers))


def _seen(rows: int, keys: int) -> int:
    """Pairs of query and key, of the last ``rows`` of ``keys``."""
    return rows * (keys - rows) + rows * (rows + 1) // 2
