"""What each query of a batch may see, read from transformers' own mask and checked.

The mask of transformers' ``sdpa`` is built in full, then read: a query whose own key is masked is
a pad, and every other query must see real keys without a gap, from some first one to its own. So
sliding windows and chunks are read, whatever a model calls them; keys after the own one, or pads
inside a prompt, are refused.

Keys are counted by position in their sequence, so that a reduction order is cut at the same places
whether or not the cache has dropped its oldest keys, and whatever pads lie between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import TypedDict, Unpack

from kvparity.core.errors import UnsupportedError
from kvparity.core.relied.transformers import MASKS
from kvparity.subjects.hf.run_counts import current

_NAME, _MORE = "_kvparity_visible", "_kvparity_keys"


@dataclass(frozen=True)
class VisibleKeys:
    """Per batch row: which queries are real and which keys they see.

    ``q_starts``, ``q_lens``, ``kv_lens`` int32 ``[B]``: ``kv_lens`` counts all real keys up to the
    last query's own, dropped ones too. ``slots`` int64 ``[B, max_kv]``: the slot of each position,
    0 where it was dropped. ``starts`` int64 ``[B]``: the slot of position 0, if ``solid``: nothing
    was dropped and no pads lie between keys. ``firsts`` int32 ``[B, queries]``: the position of
    the first key that a query sees; ``own`` int32 ``[B, queries]``: of its own (-1: a pad).
    ``first`` is the slot of the first query's own key, ``before`` whether a real key may precede
    it.
    """

    q_starts: Tensor
    q_lens: Tensor
    kv_lens: Tensor
    starts: Tensor
    slots: Tensor
    firsts: Tensor
    own: Tensor
    solid: bool
    queries: int
    keys: int
    first: int
    max_kv: int
    all_real: bool
    before: bool
    _windows: dict[int, bool] = field(default_factory=dict)

    def is_window(self, window: int) -> bool:
        """Whether each query sees the last ``window`` keys up to its own (0: all of them)."""
        if window not in self._windows:
            oldest = (self.own - window + 1).clamp(min=0) if window else torch.zeros_like(self.own)
            self._windows[window] = bool(((self.firsts == oldest) | (self.own < 0)).all())
        return self._windows[window]


def _one_run(flags: Tensor, starts: Tensor, lens: Tensor) -> Tensor:
    """Per row, whether the true ones of ``flags [B, n]`` are ``lens`` in a row from ``starts``."""
    place = torch.arange(flags.shape[1], device=flags.device)[None]
    run = (place >= starts[:, None]) & (place < (starts + lens)[:, None])
    return (flags == run).all(1)


def read(
    mask: Tensor, first: int, real_keys: Tensor | None = None, dropped: Tensor | None = None
) -> VisibleKeys:
    """Read a bool mask ``[B, 1, Tq, Tk]`` (True: seen); ``first`` is the slot of query 0's key.

    ``real_keys`` bool ``[B, Tk]``: which slots hold real keys, or will (None: all). ``dropped``
    int64 ``[B]``: how many real keys came before slot 0 (None: none).

    Raises:
        UnsupportedError: a query sees anything else than real keys without a gap up to its own.
    """
    batch, _, queries, keys = mask.shape
    if not 0 <= first <= keys - queries:
        raise UnsupportedError(
            f"the keys of {queries} queries would start at slot {first} of {keys}; the kvparity "
            "attention needs every query's own key in the cache"
        )
    device = mask.device
    seen, slot = mask[:, 0], torch.arange(keys, device=device)
    own_slot = torch.arange(first, first + queries, device=device)
    real = seen[:, torch.arange(queries, device=device), own_slot]
    stored = torch.ones(batch, keys, dtype=torch.bool, device=device)
    if real_keys is not None:
        stored = real_keys.to(device=device, dtype=torch.bool)
    gone = torch.zeros(batch, dtype=torch.int64, device=device) if dropped is None else dropped
    place = stored.long().cumsum(1) - 1 + gone[:, None]  # the position of each slot's key
    q_lens, q_starts = real.sum(1), real.int().argmax(1)
    own = place[:, own_slot].masked_fill(~real, -1)
    last = own.amax(1)
    some = seen & stored[:, None, :]
    firsts = place.gather(1, some.int().argmax(2)).masked_fill(~real, 0)
    at = place[:, None, :]
    run = stored[:, None, :] & (at >= firsts[:, :, None]) & (at <= own[:, :, None])
    kv_lens = last + 1
    used = stored & (place <= last[:, None])
    starts = used.int().argmax(1)
    # One copy to the host for all that decides the launch.
    as_runs, together, solid, max_kv, all_real, most_gone = torch.stack(
        [
            ((seen == run) | ~real[:, :, None]).all().long(),
            _one_run(real, q_starts, q_lens).all().long(),
            _one_run(used, starts, used.sum(1)).all().long(),
            kv_lens.max(),
            real.all().long(),
            gone.max(),
        ]
    ).tolist()
    if not as_runs or not together:
        raise UnsupportedError(
            "the model asks for an attention mask whose rows do not end at their own key or have "
            "gaps (pads inside a prompt, keys that come later, packed or sparse rows); the "
            "kvparity attention cannot do it: choose eager or sdpa"
        )
    slots = torch.zeros(batch, max_kv + 1, dtype=torch.int64, device=device)
    slots.scatter_(1, torch.where(used, place, max_kv), slot.expand(batch, keys))
    return VisibleKeys(
        q_starts=q_starts.int(),
        q_lens=q_lens.int(),
        kv_lens=kv_lens.int(),
        starts=starts,
        slots=slots[:, :max_kv],
        firsts=firsts.int(),
        own=own.int(),
        solid=bool(solid) and not most_gone,
        queries=queries,
        keys=keys,
        first=first,
        max_kv=max_kv,
        all_real=bool(all_real),
        before=first > 0 or most_gone > 0,
    )


class MaskSettings(TypedDict, total=False):
    """The settings of a mask that are read; transformers passes others, too.

    ``attention_mask`` ``[B, columns]``: which are real. ``cache_position`` of transformers 4, int64
    ``[queries]``, is ``q_offset`` since 5: the column of the first query. ``kv_offset``: of slot 0.
    """

    attention_mask: Tensor | None
    cache_position: Tensor | None
    q_offset: int | Tensor
    kv_offset: int | Tensor


def make(*args: object, **kwargs: Unpack[MaskSettings]) -> Tensor:
    """The mask function registered for ``kvparity``: transformers' bool mask, read and labelled."""
    build = MASKS.get()["sdpa"]
    mask: Tensor = build(*args, **{**kwargs, "allow_is_causal_skip": False}).contiguous()
    positions = kwargs.get("cache_position")
    query = int(kwargs.get("q_offset", 0) if positions is None else positions[0])
    begin, keys = int(kwargs.get("kv_offset", 0)), mask.shape[3]
    pads = kwargs.get("attention_mask")
    if pads is None:
        real, gone = None, torch.full((len(mask),), begin, device=mask.device)
    else:
        pads = pads.to(mask.device).bool()
        gone = pads[:, :begin].sum(1)
        pads = pads[:, begin : begin + keys]
        real = torch.nn.functional.pad(pads, (0, keys - pads.shape[1]))
    setattr(mask, _NAME, read(mask, query - begin, real, gone))
    setattr(mask, _MORE, (query - begin, real, gone))
    current().masks.append(mask)
    return mask


def _last_rows(mask: object) -> VisibleKeys | None:
    """The reading of a mask that is the last rows of one that ``make`` built.

    Gemma 4 computes its last layers for the last positions only, if no others are wanted.
    """
    if not isinstance(mask, Tensor) or mask.dim() != 4:
        return None
    for made in current().masks:
        left_out = made.shape[2] - mask.shape[2]
        rows = made[:, :, left_out:]  # fewer than ``mask`` has, if it has more than ``made``
        same = (mask.shape, mask.stride(), mask.data_ptr())
        if same == (rows.shape, rows.stride(), rows.data_ptr()):
            first, real, gone = getattr(made, _MORE)
            found = read(rows, first + left_out, real, gone)
            setattr(mask, _NAME, found)
            return found
    return None


def of(mask: object) -> VisibleKeys:
    """The reading of a mask that ``make`` built, or of its last rows.

    Raises:
        UnsupportedError: no mask, or one that was made or changed by somebody else.
    """
    found = getattr(mask, _NAME, None) or _last_rows(mask)
    if not isinstance(found, VisibleKeys):
        raise UnsupportedError(
            "the model did not pass on the attention mask of the kvparity attention (it builds or "
            "changes its own); choose eager or sdpa"
        )
    return found
