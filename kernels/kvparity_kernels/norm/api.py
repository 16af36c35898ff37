"""Check, allocate, launch."""

from __future__ import annotations

from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels.norm import twin as cpu

# The widest row that is summed in one block; wider ones walk blocks ascending.
BLOCK = 4096
NUM_WARPS = 4


def rms_norm(x: Tensor, w: Tensor, eps: float, *, twin: bool = False) -> Tensor:
    """``round(x / sqrt(mean(x^2) + eps)) * w`` over the last dimension; ``[..., H]`` like ``x``.

    The statistics are float32; the normalised value is rounded to the dtype of ``x`` before it
    meets the weight, and the product a second time, as in Hugging Face's llama and qwen. Leading
    dimensions are free (``[rows, heads, D]`` norms every head).

    ``x`` and ``w[H]`` share one of float32, float16, bfloat16 and one device. ``twin=True``, for
    CPU tensors only, computes the same bits as the interpreted kernel. Raises ``ValueError``.
    """
    arg.require(x.dim() >= 1, "rms_norm: x has no dimension, expected [..., H]")
    width = x.shape[-1]
    arg.require(width > 0, "rms_norm: the last dimension of x is empty")
    arg.require_shape("rms_norm", "w", w, width)
    dtype = arg.require_floats("rms_norm", {"x": x, "w": w})
    arg.require(eps >= 0.0, f"rms_norm: eps is {eps}, expected a number >= 0")
    rows = x.detach().reshape(-1, width).contiguous()
    block = min(arg.next_power_of_2(width), BLOCK)
    if twin:
        arg.require_twin("rms_norm", x)
        return cpu.rms_norm(rows, w, eps, block).reshape(x.shape)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.norm import kernels

    y = arg.poisoned((rows.shape[0], width), dtype, x.device)
    launch(
        kernels.rms_norm,
        (rows.shape[0],),
        X=rows,
        W=w.detach().contiguous(),
        Y=y,
        eps=float(eps),
        H=width,
        BLOCK=block,
        num_warps=NUM_WARPS,
    )
    return y.reshape(x.shape)
