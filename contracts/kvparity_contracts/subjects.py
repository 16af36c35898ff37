"""What is under verification: a pair of attention kernels, the reference decoder, a model, a
running server, or two sides that score the same tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from kvparity_contracts import hf_config
from kvparity_contracts.attention import OWN_KERNELS as OWN_KERNELS
from kvparity_contracts.attention import Attention as Attention
from kvparity_contracts.attention import Heads as Heads
from kvparity_contracts.base import Fault, Model, exactly_one, refuse
from kvparity_contracts.decoder import DecoderConfig
from kvparity_contracts.json_types import JsonValue
from kvparity_contracts.order import Order, uneven
from kvparity_contracts.presets import PRESETS, KnownModel, Preset, RankShape
from kvparity_contracts.served import ServerSubject
from kvparity_contracts.sides import Sides


def _typed(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        found = "the key 'model_type' is missing" if kind is None else f"found {kind!r}"
        at = () if kind is None else ("model_type",)
        refuse([Fault(at, found, "the name of an architecture, such as qwen3")])
    return config


def _orderless(model: Decoder | Transformers, own: str) -> Iterator[Fault]:
    if model.order is not None and model.attention != own:
        expected = f"no order: only attention: {own} takes one"
        yield Fault(("order",), f"found an order with attention: {model.attention}", expected)


ModelConfig = Annotated[
    dict[str, JsonValue],
    AfterValidator(_typed),
    WithJsonSchema(
        {
            "type": "object",
            "required": ["model_type"],
            "properties": {"model_type": {"type": "string"}},
        }
    ),
]


class DecoderCache(Model):
    """How the reference decoder's cache lies in memory."""

    layout: Literal["slot-head", "head-slot"] = "slot-head"
    """slot-head: all heads of a slot together; head-slot: all slots of a head together."""
    ring: bool = False
    """Whether a layer with a window keeps only what can still be seen, in a ring of slots."""


DecoderAttention = Literal[
    "fixed-order",
    "sdpa",
    "sdpa-math",
    "sdpa-flash",
    "sdpa-efficient",
    "sdpa-cudnn",
    "flashinfer",
    "flashinfer-fixed",
    "flashinfer-whole",
]
DecoderOperations = Literal["fixed-order", "torch"]


class Decoder(Model):
    """The reference decoder of this project."""

    TAG: ClassVar[str] = "decoder"

    kind: Literal["decoder"]
    """decoder: the reference decoder."""
    preset: Preset | None = None
    """A known shape with random weights drawn from the seed."""
    config: DecoderConfig | None = None
    """A shape of your own with random weights drawn from the seed."""
    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    """A local folder with config.json and safetensors, relative to this file."""
    attention: DecoderAttention = "fixed-order"
    """What computes attention: this project, torch's SDPA (its choice or one), or FlashInfer."""
    operations: DecoderOperations = "fixed-order"
    """What computes linears, norms, embedding, RoPE and activation: this project, or torch."""
    order: Order | None = None
    """Reduction order of attention: fixed-order; left out, split 256 and tile 64."""
    row_blocks: Annotated[int, Field(ge=2, le=64)] | None = None
    """Blocks that the depth of o_proj and down_proj is cut into, a power of two: their sums are
    added as one binary tree, the same at every number of ranks. Left out, one chain."""
    cpu_ops: Literal["twin", "interpreter"] = "twin"
    """What runs beside attention on a CPU: vectorised twins (same bits, fast) or the kernels."""
    cache: DecoderCache = DecoderCache()
    """Layout and rings of the cache."""

    def own_faults(self) -> Iterator[Fault]:
        """Not one source of its shape, a ring without a window, an order that nothing takes."""
        yield from exactly_one(self, "preset", "config", "checkpoint")
        yield from self._ringless()
        yield from _orderless(self, "fixed-order")
        if self.row_blocks is not None:
            yield from self._uncut(self.row_blocks)

    def _uncut(self, blocks: int) -> Iterator[Fault]:
        """Blocks that are no power of two, or that a depth does not go into."""
        if odd := list(uneven(self, "row_blocks")):
            yield from odd
            return
        model = known(self)
        if model.cut is None or model.head_dim is None:
            return  # a checkpoint tells them when it is loaded
        widths = {model.head_dim, (self.config and self.config.shared_head_dim) or model.head_dim}
        depths = [("o_proj", model.cut.heads * width) for width in sorted(widths)]
        for name, depth in [*depths, ("down_proj", model.cut.intermediate_size)]:
            if depth % blocks:
                found = f"found {blocks}, and the depth of {name} is {depth}"
                yield Fault(("row_blocks",), found, "a number that divides it")

    def _ringless(self) -> Iterator[Fault]:
        # A checkpoint tells its window when it is loaded.
        config = PRESETS[self.preset] if self.preset else self.config
        if self.cache.ring and config is not None and config.sliding_window is None:
            expected = "false, or a config with a sliding_window"
            yield Fault(("cache", "ring"), "found true, but no layer has a window", expected)


class Transformers(Model):
    """A Hugging Face transformers model."""

    TAG: ClassVar[str] = "transformers"

    kind: Literal["transformers"]
    """transformers: a Hugging Face model."""
    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    """A local folder with config.json and safetensors, relative to this file."""
    config: ModelConfig | None = None
    """A transformers configuration (with model_type); random weights drawn from the seed."""
    attention: Literal["eager", "sdpa", "flex_attention", "kvparity"]
    """The attention implementation; kvparity is this project's fixed-order kernels."""
    cache: Literal["dynamic", "static"] = "dynamic"
    """The kind of cache that generate() uses."""
    order: Order | None = None
    """Reduction order; only with attention: kvparity."""
    invariant: bool = False
    """Compute torch's reductions in fixed order, too; only with attention: eager, sdpa or
    kvparity."""
    device_map: Annotated[dict[str, str], Field(min_length=1)] | None = None
    """The device of each module by its name, "" for all others: all cuda, or all cpu. Left out,
    the model is on one device."""

    def own_faults(self) -> Iterator[Fault]:
        """Not one source of its weights, an order that nothing takes, an order of its own."""
        yield from exactly_one(self, "checkpoint", "config")
        yield from _orderless(self, "kvparity")
        yield from self._misplaced(self.device_map or {})
        if self.invariant and self.attention not in ("eager", "sdpa", "kvparity"):
            found = f"found true with attention: {self.attention}, which has an order of its own"
            yield Fault(("invariant",), found, "attention: eager, sdpa or kvparity")

    def _misplaced(self, device_map: Mapping[str, str]) -> Iterator[Fault]:
        """Devices of no kind, or of two kinds."""
        for name, device in device_map.items():
            if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
                expected = "cpu, cuda or the number of a GPU, such as cuda:1"
                yield Fault(("device_map", name), f"found {device!r}", expected)
        if len({each.partition(":")[0] for each in device_map.values()} & {"cpu", "cuda"}) > 1:
            # accelerate would compute on the GPU what it keeps on the CPU
            expected = "devices of one kind: a module on the CPU would be computed elsewhere"
            yield Fault(("device_map",), "found cpu beside cuda", expected)


AnySubject = Attention | Decoder | Transformers | ServerSubject | Sides
Subject = Annotated[AnySubject, Field(discriminator="kind")]


def order_of(subject: AnySubject) -> Order | None:
    """The reduction order, declared or default; None where the project does not decide it."""
    if isinstance(subject, (ServerSubject, Sides)):
        return None
    if isinstance(subject, Transformers) and subject.attention != "kvparity":
        return None
    if isinstance(subject, Decoder) and subject.attention != "fixed-order":
        return None
    return subject.order or Order()


def known(subject: AnySubject) -> KnownModel:
    """What the contract alone tells of the model."""
    if isinstance(subject, Decoder):
        if subject.preset is not None:
            return PRESETS[subject.preset]
        if subject.config is not None:
            config = subject.config
            return KnownModel(
                config.max_positions,
                config.vocab_size,
                config.head_dim,
                config.sliding_window,
                RankShape(config.heads, config.kv_heads, config.intermediate_size),
            )
    if isinstance(subject, Transformers) and subject.config is not None:
        return hf_config.known(subject.config)
    if isinstance(subject, Attention):
        return KnownModel(head_dim=subject.heads.dim, sliding_window=subject.sides[0])
    if isinstance(subject, (ServerSubject, Sides)):
        return KnownModel(vocab_size=subject.vocabulary)
    return KnownModel()


def narrow(subject: AnySubject) -> int | None:
    """The sliding window, where an order of this project sees keys through it in every layer."""
    if isinstance(subject, Attention):
        return subject.window if subject.order is not None else None
    if isinstance(subject, Decoder) and subject.config is not None and order_of(subject):
        return subject.config.sliding_window if "full" not in subject.config.types else None
    return None
