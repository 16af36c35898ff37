"""A CUDA device that is pretended, so that code for one runs where there is none.

Tensors lie on the CPU and say ``cuda:0``: those made there, and what is computed from them. As on
a device, computing with tensors of both kinds is an error, and so is asking for a number while a
graph is captured. Streams, events and graphs are there and do nothing; a captured call has run
once, and its replay runs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

HERE, THERE = torch.device("cpu"), torch.device("cuda", 0)
MEMORY = 1 << 37
_MARK = "_kvparity_pretended"
_Tensor = torch.Tensor
_FREE = {"to", "copy_", "cuda", "cpu", "type", "set_", "__set__", "__getitem__", "__setitem__",
         "index_put_", "index_put"}  # fmt: skip
"""May cross between devices, or take indices of the CPU; the first tensor says where it is."""
_NOTHING = {"_parse_to", "_has_compatible_shallow_copy_type"}  # is computed by these
_READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__",
          "nonzero", "equal", "allclose", "is_nonzero", "unique", "masked_select"}  # fmt: skip


def is_there(x: Any) -> bool:
    """Whether a tensor pretends to be on the device."""
    return isinstance(x, _Tensor) and getattr(x, _MARK, False)


def put_there(x: Any) -> Any:
    """Let a tensor of the CPU pretend."""
    if isinstance(x, _Tensor) and type(x).__name__ != "FakeTensor":
        setattr(x, _MARK, True)
    return x


class Device(TorchFunctionMode):
    """The pretended device, while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.capturing = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        name = getattr(func, "__name__", "")
        if func is torch.device or name in _NOTHING:
            return func(*args, **(kwargs or {}))
        if name == "__get__":
            return _attribute(func, args)
        given: list[_Tensor] = []
        devices: list[bool] = []
        args = _taken(args, given, devices)
        kwargs = {key: _taken(value, given, devices) for key, value in (kwargs or {}).items()}
        there = any(getattr(x, _MARK, False) for x in given)
        if there:
            if self.capturing and name in _READS:
                raise RuntimeError(f"{name}: operation not permitted when stream is capturing")
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy; copy it first")
            if name not in _FREE:
                _refuse_a_mixture(func, given)
        if name == "get_device":
            return 0 if there else -1
        if name in ("cuda", "cpu"):
            found = args[0].clone() if there or name == "cuda" else args[0]
            return put_there(found) if name == "cuda" else found
        found = func(*args, **kwargs)
        target = _target(name, given, devices, there)
        if name == "__set__":  # of .data
            return put_there(args[0]) if there else found
        if name == "to" and found is args[0] and target != is_there(found):
            found = found.clone()
        if target:
            _mark(found)
        return found


def _taken(x: Any, given: list[_Tensor], devices: list[bool]) -> Any:
    """``x`` with devices brought home; its tensors and what was asked of devices are noted."""
    if isinstance(x, _Tensor):
        given.append(x)
    elif isinstance(x, torch.device):
        devices.append(x.type == "cuda")
        return HERE if x.type == "cuda" else x
    elif isinstance(x, str):
        kind = x.split(":")[0]
        if kind in ("cpu", "cuda", "meta"):
            devices.append(kind == "cuda")
            return HERE if kind == "cuda" else x
    elif type(x) in (tuple, list):
        return type(x)([_taken(each, given, devices) for each in x])
    return x


def _target(name: str, given: list[_Tensor], devices: list[bool], there: bool) -> bool:
    """Whether the result is on the device."""
    if devices:
        return any(devices)
    if name == "to" and len(given) > 1:  # as another tensor
        return is_there(given[1])
    if given and (name in _FREE or name.endswith("_")):
        return is_there(given[0])
    return there


def _mark(x: Any) -> None:
    if isinstance(x, _Tensor):
        put_there(x)
    elif isinstance(x, (tuple, list)):
        for each in x:
            _mark(each)


def _attribute(func: Any, args: Any) -> Any:
    found = func(*args)
    if not is_there(args[0]):
        return found
    if isinstance(found, torch.device):
        return THERE if found.type == "cpu" else found
    if isinstance(found, bool):
        told = _told(func)
        return True if "is_cuda" in told else False if "is_cpu" in told else found
    _mark(found)  # .grad, .data, .T
    return found


def _told(func: Any) -> str:
    return resolve_name(func) or str(getattr(func, "__self__", ""))


def _refuse_a_mixture(func: Any, tensors: list[_Tensor]) -> None:
    plain = [x for x in tensors if type(x) in (_Tensor, torch.nn.Parameter)]  # no masks in words
    if any(x.dim() > 0 and not is_there(x) and x.device.type == "cpu" for x in plain):
        raise RuntimeError(
            f"{_told(func)}: expected all tensors to be on the same device, found cuda:0 and cpu"
        )


class _Stream:
    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, _: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        self.at = 0.0

    def record(self, *_: Any) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: _Event) -> float:
        return max(1e-3, 1e3 * (other.at - self.at))


class _Graph:
    def replay(self) -> None:
        pass


class _Generator:
    """What ``torch.Generator`` is while the device is pretended: always the CPU's."""

    real = torch.Generator

    def __new__(cls, device: Any = "cpu") -> Any:
        """A real one."""
        return cls.real()


@contextmanager
def pretended(capability: tuple[int, int] = (9, 0)) -> Iterator[Device]:
    """Open the device."""
    device = Device()

    @contextmanager
    def capture(*_: Any, **__: Any) -> Iterator[None]:
        device.capturing = True
        try:
            yield
        finally:
            device.capturing = False

    stream = _Stream()
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "a pretended device",
        "get_device_capability": lambda *_: capability,
        "mem_get_info": lambda *_: (MEMORY, MEMORY),
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "current_stream": lambda *_: stream,
        "stream": lambda _: nullcontext(),
        "device": lambda _: nullcontext(),
        "Stream": _Stream,
        "Event": _Event,
        "CUDAGraph": _Graph,
        "graph": capture,
        "is_current_stream_capturing": lambda: device.capturing,
    }
    cuda = vars(torch.cuda)
    before = {name: cuda[name] for name in answers}
    cuda.update(answers)
    vars(torch)["Generator"] = _Generator
    try:
        with device:
            yield device
    finally:
        cuda.update(before)
        vars(torch)["Generator"] = _Generator.real
