"""Whether a model of a configuration can exist here at all, before anything of it is allocated."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection

import torch
from transformers import AutoModelForCausalLM

from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import entries, not_a_number
from kvparity.core.raised import in_one_line
from kvparity.subjects.hf.protocols import CausalLM, ModelConfig
from kvparity_contracts.json_types import JsonObject

# Keys whose number is a number of modules: each is built in Python, even without memory.
_MODULES = re.compile(
    r"(n|num)_?(hidden_|encoder_|decoder_|nextn_predict_)?layers?|depth|num_blocks|n_blocks"
)
_EXPERTS = re.compile(r"(n|num)_(routed_|local_|shared_)?experts|num_labels")
MOST_MODULES, MOST_EXPERTS = 4096, 65_536


def bounded(keys: JsonObject, where: str) -> None:
    """Refuse numbers that no model has, by the keys alone.

    Raises:
        UnsupportedError: a NaN, or more layers or experts than the bounds above.
    """
    nan = not_a_number(keys)
    if nan is not None:
        raise UnsupportedError(f"{where}: {nan} is NaN; expected a number")
    for place, key, value in entries(keys):
        if not isinstance(value, (int, float)):
            continue
        for pattern, most in ((_MODULES, MOST_MODULES), (_EXPERTS, MOST_EXPERTS)):
            if pattern.fullmatch(key) and not value <= most:
                raise UnsupportedError(f"{where}: {place} is {value}; expected at most {most}")


def fits(
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    where: str,
    others: Collection[torch.device] = (),
) -> None:
    """Build the model without memory, and check its size against what the device has.

    ``others``: devices that it is spread over instead.

    Raises:
        UnsupportedError: it has more bytes than the device, or more than can be counted.
    """
    model_type = config.model_type
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model: CausalLM = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation="eager"
            )
    except Exception as error:  # other people's code, on numbers that may mean nothing
        raise UnsupportedError(
            f"{where}: a {model_type} model cannot be built: {in_one_line(error)}"
        ) from error
    weights = {id(p): p for p in (*model.parameters(), *model.buffers())}.values()
    needed = sum(p.numel() * p.element_size() for p in weights)
    there = sum(map(memory, set(others) or {device}))
    if needed > there:
        count = sum(p.numel() for p in model.parameters())
        named = " and ".join(sorted(map(str, others))) or str(device)
        raise UnsupportedError(
            f"{where}: a {model_type} model of this shape has {count:,} parameters, "
            f"{needed / 1e9:,.1f} GB as {str(dtype).removeprefix('torch.')}, but {named} has "
            f"{there / 1e9:,.1f} GB of memory"
        )


def memory(device: torch.device) -> int:
    """Bytes of memory that the device has, taken or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
