"""Check, allocate, launch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels.logprob import twin as cpu

# Columns that one program sums; part of the order, so one value per vocabulary.
PART = 4096
NUM_WARPS = 4


def logprob(logits: Tensor, targets: Tensor, temperature: float, *, twin: bool = False) -> Tensor:
    """``log_softmax(logits[r, V] / temperature)`` at ``targets`` (int64 ``[r]``): float32 ``[r]``.

    Fused: no probability is ever rounded. With ``z = logits / temperature`` in float32 (IEEE
    division) and ``m = max z``, the result is ``(z_target - m) - log(sum exp(z - m))``. V is cut
    at multiples of ``PART`` columns; each part is summed as a tree below its own maximum m_p, by a
    program of its own, and the parts, times ``exp(m_p - m)``, are added in ascending order. A row
    depends on itself alone.

    ``temperature`` is finite and > 0. A target outside the vocabulary is a ``ValueError`` on the
    CPU and NaN on a GPU. A row with NaN, with +inf, or without a finite logit gives NaN.
    ``twin=True``, for CPU tensors only, computes the same bits as the interpreted kernel.
    """
    arg.require_shape("logprob", "logits", logits, None, None)
    rows, vocab = logits.shape
    arg.require_floats("logprob", {"logits": logits})
    arg.require_device("logprob", {"logits": logits, "targets": targets})
    arg.require_rows("logprob", "logits", logits)
    arg.require(vocab > 0, "logprob: logits have no columns")
    arg.require_indices("logprob", "targets", targets, rows, vocab)
    arg.require(
        math.isfinite(temperature) and temperature > 0.0,
        f"logprob: the temperature is {temperature}, expected a finite number > 0",
    )
    part = min(arg.next_power_of_2(vocab), PART)
    if twin:
        arg.require_twin("logprob", logits)
        return cpu.logprob(logits, targets, temperature, part)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.logprob import kernels

    y = arg.poisoned((rows,), torch.float32, logits.device)
    count = -(-vocab // part)
    tops, sums = (arg.poisoned((rows, count), torch.float32, logits.device) for _ in range(2))
    shared: dict[str, Any] = {
        "LOGITS": logits.detach(),
        "TOPS": tops,
        "SUMS": sums,
        "stride": logits.stride(0),
        "temperature": float(temperature),
        "V": vocab,
        "COUNT": count,
    }
    launch(kernels.parts, (rows * count,), PART=part, num_warps=NUM_WARPS, **shared)
    launch(kernels.logprob, (rows,), TARGETS=targets.contiguous(), Y=y, num_warps=1, **shared)
    return y
