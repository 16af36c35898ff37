"""A whole decoder step: the reference decoder with its own kernels, and with those of others.

The model is put together without a session, so that a step can be captured: which rows, slots and
lengths there are is on the device before, and nothing asks the device for a number. Weights and
caches are random; the step writes its keys and reads them back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kvparity.labs.bench.calls import ORDER, OURS, Call, Calls, TileChoice, tiled
from kvparity.labs.bench.cases import ModelShape, TimedCase
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder import rope
from kvparity.subjects.decoder.backends import operations
from kvparity.subjects.decoder.batch import StepRows, pack
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.call_log import FIXED_ORDER
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.model import DecoderModel, Ops
from kvparity.subjects.decoder.storage import Storage, store_format
from kvparity.subjects.decoder.weights import DecoderWeights, assemble, tensor_shapes
from kvparity_kernels.keys import KeysValues

BOTH, PLAIN = "sdpa and cublas", "sdpa and torch"
NO_ATTENTION, NO_LINEAR = f"{OURS} with sdpa attention", f"{OURS} with cublas"
"""Of the mixed ones, what they save is what a fixed order of attention, of linears, costs."""


def step(case: TimedCase, shape: ModelShape, device: str, choice: TileChoice) -> Calls:
    """All ways of one step, on the same weights and cache.

    ``sdpa and cublas`` exchanges what reduces over keys and over inputs of a matrix and nothing
    else, so that elementwise kernels and norms are the same; ``sdpa and torch`` leaves all to
    PyTorch, operation by operation.
    """
    batch, rows = case.size("batch"), case.size("rows")
    shape = replace(shape, layers=case.size("layers"))
    work = PreparedStep.made(shape, batch, rows, case.size("keys"), torch.device(device))
    own, torch_ops = Ops(), operations("torch")
    others, cublas = sdpa(batch), replace(own, linear=torch_ops.linear)
    ways = {
        OURS: (FIXED_ORDER, own),
        NO_ATTENTION: (others, own),
        NO_LINEAR: (FIXED_ORDER, cublas),
        BOTH: (others, cublas),
        PLAIN: (others, torch_ops),
    }
    return {
        name: tiled(work.call(attention, ops), choice.tiles)
        for name, (attention, ops) in ways.items()
    }


@dataclass(frozen=True)
class PreparedStep:
    """A model and one step of it, all on the device."""

    model: DecoderModel
    batch: StepRows
    cache: KVCache

    @classmethod
    def made(
        cls, shape: ModelShape, batch: int, rows: int, keys: int, device: torch.device
    ) -> PreparedStep:
        """The last ``rows`` tokens of ``batch`` sequences of ``keys`` keys each."""
        dtype, config = getattr(torch, shape.dtype), config_of(shape, keys)
        cos, sin = (table.to(device) for table in rope.tables(config, keys))
        model = DecoderModel(
            config,
            random_weights(config, dtype, device),
            cos,
            sin,
            FIXED_ORDER,
            ORDER,
            twin=device.type == "cpu",
        )
        layout = Layout(slack=0)
        members = [Member(f"sequence {i}", keys, keys) for i in range(batch)]
        storage = Storage(store_format(dtype))
        cache = KVCache(config, members, layout, storage, dtype=dtype, device=device, seed=0)
        for stored in (*cache.k, *cache.v):
            stored.codes.normal_()
        spans = tuple(Span(i, keys - rows, keys, keys - 1, decode=rows == 1) for i in range(batch))
        ids = torch.randint(shape.vocab, (batch, rows)).tolist()
        packed = pack(spans, ids, cache, layout, vocab=shape.vocab, positions=keys)
        return cls(model, packed, cache)

    def call(self, attention: AttentionOps, ops: Ops) -> Call:
        """The step with these: float32 logits ``[batch, vocab]`` of the last tokens."""
        model = replace(self.model, attention=attention, ops=ops)

        def run() -> Tensor:
            with torch.inference_mode():
                blocks = list(model.logits(model.hidden(self.batch, self.cache)))
                return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

        return run


def config_of(shape: ModelShape, keys: int) -> DecoderShape:
    """The decoder of a shape; the angles of RoPE decide no time."""
    return DecoderShape(
        family="qwen3" if shape.qk_norm else "llama",
        vocab=shape.vocab,
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.query,
        kv_heads=shape.kv,
        head_dim=shape.dim,
        intermediate=shape.intermediate,
        max_positions=keys,
        rms_eps=1e-6,
        rope_theta=1e6,
        qk_norm=shape.qk_norm,
        tied=shape.tied,
    )


def random_weights(
    config: DecoderShape, dtype: torch.dtype, device: torch.device
) -> DecoderWeights:
    """Drawn on the device: matrices that keep the size of what passes, norms around 1."""
    shapes = tensor_shapes(config)

    def get(name: str) -> Tensor:
        sizes = shapes[name]
        drawn = torch.empty(sizes, dtype=dtype, device=device)
        if len(sizes) == 1:
            return drawn.normal_(1.0, 0.1)
        return drawn.normal_(0.0, 1.0 if "embed" in name else 1.0 / math.sqrt(sizes[1]))

    return assemble(config, get)


def sdpa(batch: int) -> AttentionOps:
    """SDPA in one call over contiguous caches of equal lengths, whose number the host knows."""

    def keys_of(kv: KeysValues, length: int) -> list[Tensor]:
        return [x.view(batch, -1, *x.shape[1:])[:, :length].transpose(1, 2) for x in (kv.k, kv.v)]

    def decode(call: DecodeCall) -> Outputs:
        q, (k, v) = call.q, keys_of(call.kv, call.max_kv)
        out = scaled_dot_product_attention(
            q[:, :, None], k, v, scale=call.scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out[:, :, 0], out.new_empty(0)

    def prefill(call: PrefillCall) -> Outputs:
        # The whole of every sequence, so the causal mask of a square is the right one.
        q, (k, v) = call.q, keys_of(call.kv, call.max_q)
        rows = q.view(batch, call.max_q, *q.shape[1:]).transpose(1, 2)
        out = scaled_dot_product_attention(
            rows, k, v, is_causal=True, scale=call.scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out.transpose(1, 2).flatten(0, 1), out.new_empty(0)

    return AttentionOps(prefill=prefill, decode=decode)
