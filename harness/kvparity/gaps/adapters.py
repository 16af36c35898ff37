"""A PEFT adapter on its base: computed beside each layer, or merged into its weights.

Both are the library ``peft``'s own (extra ``kvparity[peft]``); what it would leave out of a folder
with no more than a warning is an error here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import torch

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.jsonfile import read_object
from kvparity.core.raised import in_one_line
from kvparity.subjects.hf.protocols import CausalLM

MISSING = 'peft is not installed: pip install "kvparity[peft]"'
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEYS = {
    "alora_invocation_tokens": "it begins within a sequence",
    "megatron_config": "its layers are another library's",
}
_TYPES = {"POLY": "it needs the number of a task", "XLORA": "it needs further adapters"}

_Made = TypeVar("_Made")


def checked(folder: Path) -> object:
    """The settings of an adapter that can be put on a model, as peft has them.

    Raises:
        SubjectError: peft is not installed.
        UnsupportedError: no adapter, or one that peft would not follow as it says.
    """
    try:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
        from peft.tuners.tuners_utils import BaseTuner
    except ImportError:
        raise SubjectError(f"adapter {folder}: {MISSING}") from None
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UnsupportedError(f"adapter {folder}: {name} is missing; expected PEFT's folder")
    found, where = read_object(folder / CONFIG), folder / CONFIG
    kind = found.get("peft_type")
    if kind not in list(PEFT_TYPE_TO_CONFIG_MAPPING):
        raise UnsupportedError(f"{where}: peft_type {kind!r} is not known to the installed peft")
    if kind in _TYPES or not issubclass(PEFT_TYPE_TO_TUNER_MAPPING[kind], BaseTuner):
        why = _TYPES.get(str(kind), "it adapts no layers, but adds to the tokens")
        raise UnsupportedError(f"{where}: peft_type {kind} is not supported: {why}")
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    known = {each.name for each in fields(config)}
    for key, value in found.items():
        if value and key in _KEYS:
            raise UnsupportedError(f"{where}: {key} is not supported: {_KEYS[key]}")
        if value and key not in known:
            raise UnsupportedError(
                f"{where}: {key} is not known to the installed peft, which would leave it out"
            )
    given = {key: value for key, value in found.items() if key in known}
    return _by_peft(where, lambda: config(**given | {"inference_mode": True}))


def adapted(
    model: CausalLM, folder: Path, settings: object, *, merged: bool, float32: bool
) -> tuple[CausalLM, tuple[str, ...]]:
    """The model with the adapter of ``folder``, and what peft says of the pair, a line each.

    ``settings``: what :func:`checked` gave. ``merged``: into the base's weights, in their dtype.
    ``float32``: an adapter in 16 bits is computed in float32, as peft trains it; else in the
    dtype of its layer, as engines serve it.

    Raises:
        UnsupportedError: peft refuses it, or its files do not give all that it has.
    """
    from peft import get_peft_model

    where = folder / CONFIG
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = _by_peft(
            where, lambda: get_peft_model(model, settings, autocast_adapter_dtype=float32)
        )
        result = _by_peft(
            folder / WEIGHTS,
            lambda: made.load_adapter(
                folder, "default", torch_device=str(model.device), autocast_adapter_dtype=float32
            ),
        )
        for names, words in (
            (result.missing_keys, "lacks"),
            (result.unexpected_keys, "has, and the adapted model has not,"),
        ):
            if names:
                raise UnsupportedError(f"{folder / WEIGHTS} {words} {', '.join(sorted(names)[:3])}")
        if merged:
            made = _by_peft(where, made.merge_and_unload)
    found: CausalLM = made
    notes = (
        f"peft: {in_one_line(each.message)}"
        for each in told
        if isinstance(each.message, UserWarning)
    )
    return found.eval().requires_grad_(False), tuple(dict.fromkeys(notes))


def _by_peft(where: Path, make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # other people's code, on whatever the files hold
        raise UnsupportedError(f"{where}: peft refuses it: {in_one_line(error)}") from error
