"""What each query of a batch may see, read from transformers' own mask and checked.

The mask of transformers' ``sdpa`` is built in full, then read: a query whose own key is masked is
a pad, and every other query must see exactly the real keys up to its own. So a sliding window that
bites, a chunked mask or packed sequences are refused here, whatever a model calls them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from kvparity.subject import UnsupportedError

_NAME = "_kvparity_visible"


@dataclass(frozen=True)
class Visible:
    """Per batch row: which queries are real and which keys the last of them sees.

    ``q_starts``, ``q_lens``, ``kv_lens`` int32 ``[B]``; ``starts`` int64 ``[B]``, the slot of the
    first key; ``slots`` int64 ``[B, max_kv]``, the slots of the keys, if any row has pads between
    its keys, else None. ``first`` is the slot of the first query's own key.
    """

    q_starts: Tensor
    q_lens: Tensor
    kv_lens: Tensor
    starts: Tensor
    slots: Tensor | None
    queries: int
    keys: int
    first: int
    max_kv: int
    all_real: bool


def _one_run(flags: Tensor, starts: Tensor, lens: Tensor) -> Tensor:
    """Per row, whether the true ones of ``flags [B, n]`` are ``lens`` in a row from ``starts``."""
    place = torch.arange(flags.shape[1], device=flags.device)[None]
    run = (place >= starts[:, None]) & (place < (starts + lens)[:, None])
    return (flags == run).all(1)


def read(mask: Tensor, first: int) -> Visible:
    """Read a bool mask ``[B, 1, Tq, Tk]`` (True: seen); ``first`` is the slot of query 0's key.

    Raises:
        UnsupportedError: a query sees anything else than all real keys up to its own.
    """
    batch, _, queries, keys = mask.shape
    if not 0 <= first <= keys - queries:
        raise UnsupportedError(
            f"the keys of {queries} queries would start at slot {first} of {keys}; the kvparity "
            "attention needs every query's own key in the cache"
        )
    seen = mask[:, 0]
    own = torch.arange(first, first + queries, device=mask.device)
    real = seen[:, torch.arange(queries, device=mask.device), own]
    q_lens, q_starts = real.sum(1), real.int().argmax(1)
    last = (q_starts + q_lens - 1).clamp(min=0)
    visible = seen[torch.arange(batch, device=mask.device), last] & (q_lens > 0)[:, None]
    slot = torch.arange(keys, device=mask.device)
    causal = visible[:, None, :] & (slot[None, :] <= own[:, None])[None]
    kv_lens, starts = visible.sum(1), visible.int().argmax(1)
    causal_only = ((seen == causal) | ~real[:, :, None]).all()
    queries_together = _one_run(real, q_starts, q_lens).all()
    keys_together = _one_run(visible, starts, kv_lens).all()
    # One copy to the host for all that decides the launch.
    plain, whole, solid, max_kv, all_real = torch.stack(
        [
            causal_only.long(),
            queries_together.long(),
            keys_together.long(),
            kv_lens.max(),
            real.all().long(),
        ]
    ).tolist()
    if not plain or not whole:
        raise UnsupportedError(
            "the model asks for an attention mask that is not plainly causal (a sliding window "
            "smaller than the keys, chunks, packed sequences, pads inside a prompt); the kvparity "
            "attention cannot do it: choose eager or sdpa"
        )
    slots = None if solid else torch.argsort((~visible).int(), dim=1, stable=True)[:, :max_kv]
    return Visible(
        q_starts=q_starts.int(),
        q_lens=q_lens.int(),
        kv_lens=kv_lens.int(),
        starts=starts,
        slots=slots,
        queries=queries,
        keys=keys,
        first=first,
        max_kv=max_kv,
        all_real=bool(all_real),
    )


def make(*args: Any, **kwargs: Any) -> Tensor:
    """The mask function registered for ``kvparity``: transformers' bool mask, read and labelled."""
    build = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    mask: Tensor = build(*args, **{**kwargs, "allow_is_causal_skip": False}).contiguous()
    positions = kwargs.get("cache_position")  # transformers 4; a query offset since 5
    offset = kwargs.get("q_offset", 0) if positions is None else positions[0]
    setattr(mask, _NAME, read(mask, int(offset) - int(kwargs.get("kv_offset", 0))))
    return mask


def of(mask: Any) -> Visible:
    """What ``make`` read from this mask.

    Raises:
        UnsupportedError: no mask, or one that was made or changed by somebody else.
    """
    found = getattr(mask, _NAME, None)
    if not isinstance(found, Visible):
        raise UnsupportedError(
            "the model did not hand on the attention mask of the kvparity attention (it builds or "
            "changes its own); choose eager or sdpa"
        )
    return found
