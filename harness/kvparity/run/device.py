"""Which device a command runs on, settled before any kernel is imported."""

from __future__ import annotations

import os

VARIABLE = "KVPARITY_DEVICE"


def default() -> str | None:
    """The device that the environment asks for."""
    return os.environ.get(VARIABLE)


def settle(asked: str | None) -> str:
    """The device to use; kernels are set to its mode.

    Raises:
        ValueError: the device is unknown or not there. There is no fallback.
    """
    import torch

    from kvparity_kernels import runtime

    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cpu:"):
        raise ValueError(f"device {device!r} is unknown; a machine has one 'cpu'")
    if device.split(":")[0] == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = device.partition(":")[2] or "0"
        if not number.isdigit() or int(number) >= count:
            raise ValueError(
                f"device {device} is not available: torch {torch.__version__} sees {count} CUDA "
                "device(s); use --device cpu, or install a CUDA build of torch"
            )
    try:
        runtime.select(device)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return device
