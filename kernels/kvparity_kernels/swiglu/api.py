"""Check, allocate, launch."""

from __future__ import annotations

from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels.swiglu import twin as cpu

BLOCK = 1024
NUM_WARPS = 4


def swiglu(gate: Tensor, up: Tensor, *, twin: bool = False) -> Tensor:
    """``gate * sigmoid(gate) * up`` of ``[rows, W]``, in float32, rounded once to their dtype.

    (Hugging Face rounds ``gate * sigmoid(gate)`` to the dtype before it meets ``up``.) Last
    dimensions are contiguous, row strides are free: both may be halves of one projection.
    ``twin=True``, for CPU tensors only, computes the same bits as the interpreted kernel.
    Raises ``ValueError``.
    """
    arg.require_shape("swiglu", "gate", gate, None, None)
    rows, width = gate.shape
    arg.require_shape("swiglu", "up", up, rows, width)
    dtype = arg.require_floats("swiglu", {"gate": gate, "up": up})
    arg.require_rows("swiglu", "gate", gate)
    arg.require_rows("swiglu", "up", up)
    arg.require(width > 0, "swiglu: gate has no columns")
    if twin:
        arg.require_twin("swiglu", gate)
        return cpu.swiglu(gate, up)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.swiglu import kernels

    y = arg.poisoned((rows, width), dtype, gate.device)
    block = min(arg.next_power_of_2(width), BLOCK)
    launch(
        kernels.swiglu,
        (rows * -(-width // block),),
        GATE=gate.detach(),
        UP=up.detach(),
        Y=y,
        gate_stride=gate.stride(0),
        up_stride=up.stride(0),
        W=width,
        BLOCK=block,
        num_warps=NUM_WARPS,
    )
    return y
