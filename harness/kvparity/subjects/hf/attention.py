"""The ``kvparity`` attention of transformers: the fixed-order kernels behind any model.

Nothing falls back: what the kernels cannot do is an error in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from kvparity.core.errors import UnsupportedError
from kvparity.core.relied.transformers import CACHE_ARGUMENTS
from kvparity.subjects.attention_calls import Outputs
from kvparity.subjects.hf import mask as masks
from kvparity.subjects.hf import settings
from kvparity.subjects.hf.run_counts import current
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues

NAME = "kvparity"

_DONE = ("dropout", "sliding_window", "softcap", "s_aux")
# Arguments that models pass on and that change nothing that the mask does not already say.
_HARMLESS = frozenset(
    {
        *CACHE_ARGUMENTS,
        "cache_position",
        "is_causal",
        "logits_to_keep",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


def register() -> None:
    """Make ``attn_implementation="kvparity"`` known to transformers. May be called again."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, masks.make)


def _refuse(
    module: object, query: Tensor, key: Tensor, value: Tensor, more: Mapping[str, object]
) -> None:
    def no(what: str) -> UnsupportedError:
        return UnsupportedError(f"the kvparity attention cannot do {what}: choose eager or sdpa")

    causal = more.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise no("non-causal attention")
    if more.get("dropout"):
        raise no(f"dropout ({more['dropout']})")
    if more.get("output_attentions"):
        raise no("output_attentions, because the weights are never written")
    for name, given in more.items():
        asked = given is not None and given is not False
        if asked and name not in _HARMLESS and name not in _DONE:
            raise no(f"{name}, which {type(module).__name__} asks for")
    if key.shape != value.shape or key.shape[3] != query.shape[3]:
        raise no(
            f"heads of different size (query {query.shape[3]}, key {key.shape[3]}, "
            f"value {value.shape[3]})"
        )
    if not 16 <= query.shape[3] <= 256:
        raise no(f"heads of {query.shape[3]}, only of 16 to 256")
    if query.shape[1] % key.shape[1]:
        raise no(f"{query.shape[1]} query heads over {key.shape[1]} key heads")


def _slots(x: Tensor) -> tuple[Tensor, int] | None:
    """``[B, H, T, D]`` seen as slots ``[S, H, D]`` without a copy, and the slots per batch row."""
    batch, heads, keys, dim = x.shape
    per_row, per_head, per_key, unit = x.stride()
    if unit != 1 or per_key == 0 or per_row % per_key:
        return None
    rows = per_row // per_key if batch > 1 else keys
    view = x.as_strided(((batch - 1) * rows + keys, heads, dim), (per_key, per_head, 1))
    return view, rows


def _keys_values(
    key: Tensor, value: Tensor, visible: masks.VisibleKeys, by_position: bool
) -> KeysValues:
    """The cache's own tensors as slots; ``by_position``: found through a table of positions."""
    starts = visible.starts
    if not by_position and not visible.solid:  # pads lie between keys: pick them in order
        index = visible.slots[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
        key, value = key.gather(2, index), value.gather(2, index)
        starts = torch.zeros_like(starts)
    k, v = _slots(key), _slots(value)
    if k is None or v is None or k[1] != v[1]:
        k, v = _slots(key.contiguous()), _slots(value.contiguous())
    assert k is not None, "a contiguous tensor has slots"
    assert v is not None, "a contiguous tensor has slots"
    rows = torch.arange(len(starts), dtype=torch.int64, device=starts.device) * k[1]
    if by_position:
        table = (visible.slots + rows[:, None]).int()
        return KeysValues(k=k[0], v=v[0], kv_lens=visible.kv_lens, block_table=table, page=1)
    return KeysValues(k=k[0], v=v[0], kv_lens=visible.kv_lens, starts=rows + starts)


def _in_chunks(module: object, visible: masks.VisibleKeys, window: int) -> bool:
    """Whether rows begin at chunks, as the mask says, and not at the layer's window (0: none)."""
    if visible.is_window(window):
        return False
    config = getattr(module, "config", None)
    if not window and getattr(config, "attention_chunk_size", None) is not None:
        return True
    raise UnsupportedError(
        f"{type(module).__name__} says that its window is {window or 'everything'}, but the mask "
        "that transformers built shows its rows other keys; the kvparity attention needs both to "
        "agree"
    )


def attention(
    module: object,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """``query [B, Hq, Tq, D]`` over ``key``, ``value [B, Hkv, Tk, D]``; returns ``[B, Tq, Hq, D]``.

    One query with earlier keys goes through the decode kernel, all else through the prefill
    kernel. Rows of pads hold NaN. ``sliding_window``, ``softcap`` and ``s_aux`` (sinks) are those
    of transformers; the window must be the one that the mask shows.

    Raises:
        UnsupportedError: the model asks for something the kernels cannot do.
    """
    _refuse(module, query, key, value, more)
    visible = masks.of(attention_mask)
    batch, heads, queries, dim = query.shape
    if (visible.queries, visible.keys) != (queries, key.shape[2]):
        raise UnsupportedError(
            f"the mask is for {visible.queries} queries and {visible.keys} keys, the layer has "
            f"{queries} and {key.shape[2]}; the kvparity attention needs them equal"
        )
    given = settings.read(dim, scaling, more)
    chunks = _in_chunks(module, visible, given.window)
    kv = _keys_values(key, value, visible, by_position=given.window > 0 or chunks)
    rows = query.transpose(1, 2).reshape(batch * queries, heads, dim)
    first_key = visible.firsts.reshape(-1).contiguous() if chunks else None
    decodes = queries == 1 and visible.before
    attend: Callable[..., Outputs] = attend_decode if decodes else attend_prefill
    attend = partial(
        attend,
        rows,
        kv,
        scale=given.scale,
        order=current().order,
        window=given.window,
        softcap=given.softcap,
        sinks=given.sinks,
        first_key=first_key,
    )
    if decodes:
        if not visible.all_real:
            raise UnsupportedError(
                "a decoding step of the kvparity attention holds a padded row; every sequence of "
                "the batch must decode"
            )
        out, _ = attend(max_kv=visible.max_kv)
    else:
        starts = torch.arange(batch, dtype=torch.int32, device=query.device) * queries
        out, _ = attend(q_starts=starts + visible.q_starts, q_lens=visible.q_lens, max_q=queries)
    return out.view(batch, queries, heads, dim), None
