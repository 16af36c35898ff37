"""Which backend ``scaled_dot_product_attention`` really took: seen at the operations it called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kvparity.core.errors import SubjectError
from kvparity.subjects.events import BACKEND, Ran
from kvparity_kernels.relied.torch import OpOverload, TorchDispatchMode
from kvparity_kernels.stream import emit, heard

KERNELS = {
    "_scaled_dot_product_attention_math": "math",  # under inference_mode
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_flash_attention_forward": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_efficient_attention_forward": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_cudnn_attention_forward": "cudnn",
}
WHOLE = "scaled_dot_product_attention"
SOFTMAX = ("_safe_softmax", "_softmax")
"""What the math backend, made of plain operations, cannot do without."""


class BackendProbe(TorchDispatchMode):  # type: ignore[no-untyped-call] # of torch
    """Collects the backends that are called while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # of torch
        self.backends: list[str] = []
        self.others: list[str] = []

    def __torch_dispatch__(
        self,
        func: OpOverload[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Look at one operation and run it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == WHOLE:  # under inference_mode it comes whole
            with self:
                return func.decompose(*args, **kwargs)
        if name in KERNELS:
            self.backends.append(KERNELS[name])
        elif name in SOFTMAX:
            self.backends.append("math")
        else:
            self.others.append(name)
        return func(*args, **kwargs)


def observed(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The result of ``call``, one SDPA call; its backend is counted as ``backend.sdpa-<name>``.

    Raises ``SubjectError`` where it ran none that is known, or more than one.
    """
    if not heard(Ran):
        return call()
    with BackendProbe() as watch:
        out = call()
    if len(watch.backends) != 1:
        ran = " and ".join(watch.backends) or f"none that is known ({', '.join(watch.others)})"
        raise SubjectError(
            f"scaled_dot_product_attention ran {ran}; expected one of "
            f"{', '.join(sorted({*KERNELS.values(), 'math'}))}"
        )
    emit(Ran(f"{BACKEND}sdpa-{watch.backends[0]}"))
    return out
