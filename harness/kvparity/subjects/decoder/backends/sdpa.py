"""torch's scaled_dot_product_attention over the caches of the decoder.

Each sequence's keys are handed over as its user would: as a view where they lie in one piece, else
gathered from their pages. Sequences of equal length share a call, as a batch would. A mask is made
only where ``is_causal`` cannot say it. Where ``backend`` names one, nothing else runs: a call that
it refuses is a ``SubjectError`` in torch's own words.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kvparity.core.errors import SubjectError
from kvparity.pairs.sdpa import BACKENDS
from kvparity.subjects.attention_calls import DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder.backends import sdpa_backend_probe
from kvparity.subjects.decoder.backends.gather import Piece, handed, pieces
from kvparity.subjects.decoder.backends.limits import require_plain
from kvparity.subjects.decoder.backends.per_step_cache import Memo
from kvparity.subjects.events import Ran
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.relied.torch import lower_right
from kvparity_kernels.stream import emit


class Sdpa:
    """Prefill and decode by SDPA.

    ``backend``: ``math``, ``flash``, ``efficient``, ``cudnn``, or None for torch's own choice.
    SDPA returns no LSE: the second result is ``[rows, 0]``. It does not look at ``order``.
    """

    def __init__(self, backend: str | None = None) -> None:
        self.backend = backend
        self.name = "sdpa" if backend is None else f"sdpa-{backend}"
        self._pieces: Memo[tuple[Piece, ...]] = Memo()

    def prefill(self, call: PrefillCall) -> Outputs:
        """Causal attention of many rows per sequence."""
        return self._attend(call, "prefill", (call.q_starts, call.q_lens))

    def decode(self, call: DecodeCall) -> Outputs:
        """Attention of one row per sequence, which sees all its keys."""
        return self._attend(call, "decode", ())

    def _attend(
        self, call: PrefillCall | DecodeCall, phase: str, rows: tuple[Tensor, ...]
    ) -> Outputs:
        """``rows``: where the rows of each sequence begin and how many there are; none: one each.

        Raises ``UnsupportedError`` for a call that SDPA cannot compute.
        """
        require_plain(self.name, call)
        emit(call)
        q, kv = call.q, call.kv

        def make() -> tuple[Piece, ...]:
            starts, lens = (x.tolist() for x in rows) if rows else (range(kv.batch), [1] * kv.batch)
            return pieces(kv, starts, lens, window=call.window, first_key=call.first_key)

        tensors = (kv.kv_lens, kv.starts, kv.block_table, *rows, call.first_key)
        planned = self._pieces.get(tensors, (kv.page, kv.ring, call.window), make)
        out = self._run(q, kv, planned, call.scale)
        emit(Ran(f"sdpa.{phase}"))
        return out, q.new_empty((len(q), 0), dtype=torch.float32)

    def _run(self, q: Tensor, kv: KeysValues, planned: tuple[Piece, ...], scale: float) -> Tensor:
        out = torch.full_like(q, float("nan"))  # rows of no sequence stay so
        for piece in planned:
            rows = q[piece.at].view(piece.batch, piece.rows, *q.shape[1:]).transpose(1, 2)
            k, v = handed(kv, piece, q.dtype)
            out[piece.at] = self._call(rows, k, v, piece, scale).transpose(1, 2).flatten(0, 1)
        return out

    def _call(self, q: Tensor, k: Tensor, v: Tensor, piece: Piece, scale: float) -> Tensor:
        """``[batch, heads, rows or keys, head_dim]`` through SDPA."""
        grouped = q.shape[1] != k.shape[1]
        if grouped and self.backend == "efficient":  # it takes no groups, so its users repeat keys
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
            grouped = False
        mask = piece.mask
        if piece.seen == "lower-right":  # flash has this one built in, and takes no other mask
            mask = lower_right(piece.rows, piece.keys)
        square = piece.seen == "square"

        def call() -> Tensor:
            return scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=square, scale=scale, enable_gqa=grouped
            )

        chosen = nullcontext() if self.backend is None else sdpa_kernel(BACKENDS[self.backend])
        with chosen, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                return sdpa_backend_probe.observed(call)
            except RuntimeError as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                words = dict.fromkeys([str(error).strip(), *(str(w.message) for w in said)])
                shape = f"q {list(q.shape)}, k {list(k.shape)}, {q.dtype} on {q.device}"
                raise SubjectError(f"{self.name} ({shape}): {' '.join(words)}") from error
