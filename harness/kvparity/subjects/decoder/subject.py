"""Subject *decoder*: the reference decoder on this project's kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import FAR, Layout, Member, Plan
from kvparity.subjects.attention_calls import AttentionOps
from kvparity.subjects.decoder import checkpoint, oracle, rope
from kvparity.subjects.decoder.backends import Backends, attention_ops, operations
from kvparity.subjects.decoder.backends.limits import refusal
from kvparity.subjects.decoder.backends.table import FIXED
from kvparity.subjects.decoder.config import DecoderShape, from_contract
from kvparity.subjects.decoder.model import DecoderModel, Ops
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.row_blocks import RowBlocks, row_blocks
from kvparity.subjects.decoder.seeded import seeded, with_scales
from kvparity.subjects.decoder.session import DecoderSession, device_memory
from kvparity.subjects.decoder.storage import Storage, ring_size, store_format
from kvparity.subjects.decoder.weights import DecoderWeights, fingerprint
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.subjects import Decoder
from kvparity_kernels import runtime
from kvparity_kernels.logprob import logprob
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat

# Rows of the RoPE tables past the last position, so that a planted position shift has an angle.
_SPARE_POSITIONS = 16


class DecoderSubject:
    """A decoder with loaded weights; see ``kvparity.subjects.base.Subject``.

    ``twin``: on the CPU, compute everything beside attention with the vectorised twins of the
    kernels (the same bits); on CUDA it must be False. ``seed`` shuffles the pages of paged caches.
    ``kv_cache``: what caches store, a ``StoreFormat``, its text, or a dtype; ``heads_first`` and
    ``ring`` as in ``storage.Storage``; scales of fp8 come with the weights.
    ``backends``: the names of what attention and the operations beside it are computed with.
    ``attention`` and ``ops`` can be replaced, so that a defect can be planted without touching a
    kernel.
    """

    def __init__(
        self,
        config: DecoderShape,
        weights: DecoderWeights,
        *,
        kv_cache: torch.dtype | str | StoreFormat,
        heads_first: bool = False,
        ring: bool = False,
        order: ReductionOrder | None = None,
        twin: bool = False,
        seed: int = 0,
        source: str = "weights in memory",
        backends: Backends = Backends(),  # noqa: B008 - frozen
        attention: AttentionOps | None = None,
        ops: Ops | None = None,
        blocks: RowBlocks | None = None,
    ) -> None:
        self.device = weights.embed.device
        if twin and self.device.type != "cpu":
            raise UnsupportedError(f"CPU twins cannot compute on {self.device}; use the kernels")
        cos, sin = rope.tables(config, config.max_positions + _SPARE_POSITIONS)
        self.model = DecoderModel(
            config=config,
            weights=weights,
            cos=cos.to(self.device),
            sin=sin.to(self.device),
            attention=attention or attention_ops(backends.attention),
            order=order or ReductionOrder(),
            twin=twin,
            ops=ops or operations(backends.operations),
            blocks=blocks,
        )
        self.vocab = config.vocab
        self.max_positions = config.max_positions
        self.storage = Storage(store_format(kv_cache), heads_first, ring)
        _check_storage(self.storage, config)
        self.backends = backends
        if backends.attention != FIXED:
            reason = refusal(backends.attention, config, self.storage, weights.embed.dtype)
            if reason is not None:
                raise UnsupportedError(reason)
        self.ran: Counter[str] = Counter()  # by all sessions; copies have counts of their own
        self.seed = seed
        self.source = source
        self.programs: dict[str, object] = {}  # traced ones; copies share them with the weights

    @property
    def kv_cache(self) -> torch.dtype:
        """The dtype of what caches store: of the codes, where they store codes."""
        return self.storage.format.storage_dtype

    @property
    def attention(self) -> AttentionOps:
        """The attention kernels in use."""
        return self.model.attention

    def with_attention(self, ops: AttentionOps) -> DecoderSubject:
        """The same subject, sharing its weights, on other attention kernels."""
        return self._on(replace(self.model, attention=ops))

    @property
    def ops(self) -> Ops:
        """The operations in use beside attention."""
        return self.model.ops

    def with_ops(self, ops: Ops) -> DecoderSubject:
        """The same subject, sharing its weights, on other operations beside attention."""
        return self._on(replace(self.model, ops=ops))

    def _on(self, model: DecoderModel) -> DecoderSubject:
        other = copy(self)
        other.model, other.ran = model, Counter()
        return other

    def require_order(self) -> None:
        """Raise ``UnsupportedError`` where attention is not computed in this project's order."""
        if self.backends.attention != FIXED:
            raise UnsupportedError(
                f"this defect is planted in the reduction order of this project's attention, but "
                f"attention is {self.backends.attention}"
            )

    def unsupported(self, plan: Plan) -> str | None:
        """A loop of its own; pages in a padded batch; later steps without a cache; an endless ring.

        Everything else can be run.
        """
        if plan.generate:
            return "the decoder has no generate() loop of its own; use the decode path"
        later = any(span.start or span.decode for step in plan.schedule for span in step)
        if not plan.layout.cached and (later or plan.actions):
            return "without a cache every sequence comes whole, in one step"
        if plan.layout.program != "eager":
            if not self.backends.ours:
                return (
                    "a traced program computes with this project's kernels; this decoder has "
                    f"attention: {self.backends.attention}, operations: {self.backends.operations}"
                )
            from kvparity.subjects.export.decoder import refused  # tracing is slow to import

            reason = refused(plan)
            if reason is not None:
                return reason
        return self._refuses(plan.layout)

    def _refuses(self, layout: Layout) -> str | None:
        if layout.far:
            return FAR
        if layout.page and layout.batch != "packed":
            return "a padded batch has a rectangular cache; pages need a packed batch"
        window = self.model.config.sliding_window
        if layout.cached and self.storage.ring and window:
            try:
                ring_size(window, layout.chunk)
            except UnsupportedError as error:
                return str(error)
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> DecoderSession:
        """Open a session over ``members``.

        Raises ``UnsupportedError`` for a layout or a length that the decoder cannot do.
        """
        reason = self._refuses(layout)
        if reason is not None:
            raise UnsupportedError(reason)
        for member in members:
            if member.length > self.max_positions:
                raise UnsupportedError(
                    f"{member.id} is {member.length} tokens long; this decoder has "
                    f"{self.max_positions} positions"
                )
        if layout.program != "eager":
            from kvparity.subjects.export.decoder import open_session

            return open_session(self, members, layout)
        return DecoderSession(
            self.model, members, layout, storage=self.storage, seed=self.seed, ran=self.ran
        )

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """Logprobs of ``targets`` int64 ``[r]``, float32 ``[r, temperatures]``."""
        twin = self.model.twin
        columns = [logprob(rows, targets, value, twin=twin) for value in temperatures]
        return torch.stack(columns, dim=1)

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        """Float64 logits ``[len(rows), vocab]``, from the same stored weights."""
        model = self.model
        with torch.inference_mode(), device_memory(f"in the float64 oracle of {member.id}"):
            return oracle.logits(
                model.config,
                model.weights,
                model.cos,
                model.sin,
                ids,
                rows,
                store=self.storage.format,
            )

    def _cpu_ops(self) -> str | None:
        if self.device.type != "cpu" or self.backends.operations != FIXED:
            return None
        return "twin" if self.model.twin else "interpreter"

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """Shape, dtypes, order and a fingerprint of the weights that were really loaded."""
        model = self.model
        return {
            "kind": "decoder",
            "source": self.source,
            "config": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(model.config).items()
            },
            "parameters": sum(tensor.numel() for tensor in model.weights.tensors()),
            "weights": fingerprint(model.weights),
            "execution": _name(model.weights.embed.dtype),
            "kv_cache": str(self.storage.format),
            "cache": {
                "layout": "head-slot" if self.storage.heads_first else "slot-head",
                "ring": self.storage.ring,
            },
            "logits": "float32",
            "order": asdict(model.order) if self.backends.attention == FIXED else None,
            "row_blocks": None if model.blocks is None else model.blocks.own,
            "cpu_ops": self._cpu_ops(),
            "device": str(self.device),
            **self.backends.describe(self.ran if ran is None else ran),
        }


def build(
    model: Decoder,
    *,
    execution: str,
    kv_cache: str,
    device: torch.device,
    seed: int,
    base: Path,
) -> DecoderSubject:
    """The decoder that a contract describes.

    Raises ``UnsupportedError`` or ``SubjectError`` if the checkpoint cannot be used, and
    ``RuntimeError`` if kernels were already loaded for the other kind of device.
    """
    runtime.select(str(device))
    dtype, store = getattr(torch, execution), store_format(kv_cache)
    with device_memory("while loading the weights"):
        if model.checkpoint is not None:
            folder = base / model.checkpoint
            config, weights = checkpoint.load(folder, dtype, device)
            source = f"checkpoint {folder}"
        else:
            if model.preset is not None:
                config, source = preset(model.preset), f"preset {model.preset}, seed {seed}"
            elif model.config is not None:
                config, source = from_contract(model.config), f"config, seed {seed}"
            else:
                raise UnsupportedError("a decoder needs one of preset, config, checkpoint")
            weights = seeded(config, seed, dtype, device)
            weights = with_scales(config, weights, store, seed)
    return DecoderSubject(
        config,
        weights,
        kv_cache=store,
        heads_first=model.cache.layout == "head-slot",
        ring=model.cache.ring,
        order=None if model.order is None else ReductionOrder(**model.order.model_dump()),
        twin=model.cpu_ops == "twin" and device.type == "cpu",
        seed=seed,
        source=source,
        backends=Backends(model.attention, model.operations),
        blocks=row_blocks(model.row_blocks, config),
    )


def _check_storage(storage: Storage, config: DecoderShape) -> None:
    try:
        storage.format.groups(config.head_dim)
    except ValueError as error:
        raise UnsupportedError(str(error)) from error
    if storage.ring and not config.sliding_window:
        raise UnsupportedError("a ring needs a layer with a sliding window, and there is none")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
