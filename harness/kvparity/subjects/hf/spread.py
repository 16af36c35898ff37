"""A transformers model spread over several devices: which module lies where."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.hf.protocols import CausalLM
from kvparity_contracts.base import closest


def devices(device_map: Mapping[str, str] | None, device: torch.device) -> dict[str, torch.device]:
    """The devices of a contract's map, by module; without a map all is on ``device``.

    Raises:
        UnsupportedError: one of them is not there, or is of another kind than the run's.
    """
    if device_map is None:
        return {"": device}
    found = {}
    for name, given in device_map.items():
        one = torch.device(given)
        where = f"device_map puts {name or 'the model'} on {given}"
        if one.type == "cuda" and not torch.cuda.is_available():
            raise UnsupportedError(f"{where}, and this machine has no CUDA device")
        if one.type == "cuda" and (one.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise UnsupportedError(f"{where}; there are {count}, from cuda:0 on")
        if one.type != device.type:
            raise UnsupportedError(f"{where}, and the run is on {device}: ask for --device {given}")
        found[name] = one
    return found


def spread(model: CausalLM, places: Mapping[str, torch.device]) -> CausalLM:
    """The model with every module where the map puts it.

    Raises:
        UnsupportedError: a name is no module, or a parameter is in none that is named.
    """
    modules = dict(model.named_modules())
    for name in places:
        if name not in modules:
            near = closest(name, modules)
            hint = f"; did you mean {near}?" if near else ""
            raise UnsupportedError(f"device_map names {name!r}, which is no module{hint}")
    for name, _ in model.named_parameters():
        if not any(_holds(each, name) for each in places):
            raise UnsupportedError(f"device_map leaves out {name}: name its module, or all by ''")
    if len(set(places.values())) == 1:
        return model.to(next(iter(places.values())))
    try:
        from accelerate import dispatch_model
    except ImportError as error:
        raise UnsupportedError(
            f"a device_map of several devices needs accelerate, which does not import: {error}"
        ) from error
    skipped = getattr(model, "_skip_keys_device_placement", None)
    found: CausalLM = dispatch_model(model, device_map=dict(places), skip_keys=skipped)
    return found


def lying(model: CausalLM, device_map: Mapping[str, str] | None) -> dict[str, str]:
    """The devices on which parameters and buffers of the mapped modules are found, by module.

    A tensor counts for the longest name that holds it; a tied one for every module that has it.
    What was offloaded lies on ``meta``. A module that holds nothing by itself is left out.
    """
    found: dict[str, set[str]] = {}
    tensors = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in tensors:
        held = [each for each in device_map or {"": ""} if _holds(each, name)]
        if held:
            found.setdefault(max(held, key=len), set()).add(str(tensor.device))
    return {name: ", ".join(sorted(each)) for name, each in found.items()}


def wanted(
    model: CausalLM, device_map: Mapping[str, str] | None, device: torch.device
) -> dict[str, str]:
    """Where :func:`lying` must find them: by the map, or all on ``device``, as torch names it."""
    asked = device_map or {"": str(device)}
    return {name: _numbered(torch.device(asked[name])) for name in lying(model, device_map)}


def _numbered(device: torch.device) -> str:
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def _holds(module: str, name: str) -> bool:
    return not module or name.startswith(f"{module}.")
