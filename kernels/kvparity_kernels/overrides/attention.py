"""torch's ``scaled_dot_product_attention`` in the fixed order, and the operations behind it.

Scores are products of this project, in float32 from the first to the last rounding. The
denominator of a row is the sum of its visible keys alone: where masked ones lie between them, they
are put behind. So the bits of a row follow neither the other rows of a call nor how many masked
keys lie before, between or behind its visible ones: a padded prompt, a window whose oldest keys
the cache has dropped, and one row at a time give what one call gives. In the product with the
values a masked key adds an exact zero to one ascending chain (on CUDA only behind the visible
ones: inside a step of the matrix instruction the place of a key decides what it is added to).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kvparity_kernels.overrides import rows
from kvparity_kernels.overrides.elementwise import even
from kvparity_kernels.overrides.report import NotInvariantError


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``aten::scaled_dot_product_attention``: ``q[..., Hq, L, E]``, ``k[..., Hkv, S, E]``,
    ``v[..., Hkv, S, Ev]``: ``[..., Hq, L, Ev]`` in the dtype of ``q``.

    Raises:
        NotInvariantError: dropout.
    """
    return _attend(q, k, v, attn_mask, dropout_p, is_causal, scale)[0]


def flash_for_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``aten::_scaled_dot_product_flash_attention_for_cpu``: with the log-sum-exp, float32."""
    return _attend(q, k, v, attn_mask, dropout_p, is_causal, scale)


def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor | int | None, ...]:
    """``aten::_scaled_dot_product_flash_attention``: no state of a generator, nothing to debug."""
    out, lse = _attend(q, k, v, None, dropout_p, is_causal, scale)
    return _as_flash(q, k, out, lse)


def efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``aten::_scaled_dot_product_efficient_attention``; seed and offset of no dropout are 0."""
    out, lse = _attend(q, k, v, attn_bias, dropout_p, is_causal, scale)
    nothing = torch.zeros((), dtype=torch.int64, device=q.device)
    return out, lse, nothing, nothing.clone()


def cudnn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor | int | None, ...]:
    """``aten::_scaled_dot_product_cudnn_attention``, as :func:`flash`."""
    out, lse = _attend(q, k, v, attn_bias, dropout_p, is_causal, scale)
    return _as_flash(q, k, out, lse)


def _as_flash(q: Tensor, k: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor | int | None, ...]:
    state = torch.zeros(2, dtype=torch.int64, device=q.device)
    empty = torch.empty(0, dtype=q.dtype, device=q.device)
    return out, lse, None, None, q.shape[-2], k.shape[-2], state, state[:0], empty


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """The rows ``[..., L, Ev]`` and their log-sum-exp ``[..., L]``."""
    if dropout:
        raise NotInvariantError(
            f"invariant(): attention with dropout ({dropout}) draws random numbers; call "
            "model.eval(), or set the model's attention_dropout to 0"
        )
    if any(x.is_nested for x in (q, k, v)):
        raise NotInvariantError(
            "invariant(): attention over nested tensors is not supported; pass a padded batch with "
            "a mask, or one sequence at a time"
        )
    if k.dim() > 2 and q.shape[-3] != k.shape[-3]:  # grouped: heads of keys stand for several
        group = q.shape[-3] // k.shape[-3]
        k, v = (x.repeat_interleave(group, dim=-3) for x in (k, v))
    lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])  # type: ignore[no-untyped-call] # torch does not type it
    batch = math.prod(lead)
    q3, k3, v3 = (x.expand(*lead, *x.shape[-2:]).reshape(batch, *x.shape[-2:]) for x in (q, k, v))
    twin = q.device.type == "cpu"
    scores = rows.matmul(q3, k3.mT, out_dtype=torch.float32, twin=twin)
    scores = scores * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = scores.reshape(*lead, *scores.shape[-2:])
    scores, visible = _masked(scores, mask, causal)
    weights, lse = _weights(scores, visible, twin)
    out = rows.matmul(
        weights.reshape(batch, *weights.shape[-2:]), v3.float(), out_dtype=q.dtype, twin=twin
    )
    return out.reshape(*lead, *out.shape[-2:]), lse


def _masked(scores: Tensor, mask: Tensor | None, causal: bool) -> tuple[Tensor, Tensor | None]:
    """Scores with the mask in them, and where it hides keys before or between visible ones
    which are visible (else None)."""
    if causal:  # torch's own: from the upper left corner
        corner = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~corner, -math.inf)
    if mask is None:
        return scores, None
    if mask.dtype == torch.bool:
        scores, seen = scores.masked_fill(~mask, -math.inf), mask
    else:
        # Some models hide keys with the least number of the dtype instead of -inf.
        scores = scores + mask.float()
        seen = mask > torch.finfo(mask.dtype).min / 2
        seen = torch.where(seen.any(dim=-1, keepdim=True), seen, mask > -math.inf)
    ordered = bool((seen[..., 1:] <= seen[..., :-1]).all())
    return scores, None if ordered else seen.expand(scores.shape)


def _weights(scores: Tensor, visible: Tensor | None, twin: bool) -> tuple[Tensor, Tensor]:
    """Softmax over the keys, the visible ones added first; rows without any are zero."""
    order = None
    if visible is not None:
        place = torch.arange(scores.shape[-1], device=scores.device)
        order = (place + len(place) * ~visible).argsort(dim=-1)  # no two are equal
        scores = scores.gather(-1, order)
    flat = scores.reshape(math.prod(scores.shape[:-1]), scores.shape[-1])
    weights = rows.softmax(flat, twin=twin).reshape(scores.shape)
    nothing = (scores == -math.inf).all(dim=-1)
    weights = weights.masked_fill(nothing[..., None], 0.0)
    lse = _lse(scores, weights, nothing)
    if order is not None:
        weights = torch.empty_like(weights).scatter_(-1, order, weights)
    return weights, lse


def _lse(scores: Tensor, weights: Tensor, nothing: Tensor) -> Tensor:
    """The largest weight is 1 over the denominator, so nothing is added again."""
    if not scores.shape[-1]:
        return torch.full(scores.shape[:-1], -math.inf, device=scores.device)
    top = weights.amax(-1)
    log = even(torch.ops.aten.log.default, (top,), {}, alone=False)
    return (scores.amax(-1) - log).masked_fill(nothing, -math.inf)
