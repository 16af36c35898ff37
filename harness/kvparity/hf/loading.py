"""Load a causal LM from a local folder, or build one with seeded random weights from a config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvparity.hf import config_keys
from kvparity.subject import UnsupportedError


def from_config(
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    attention: str,
    device: torch.device,
    seed: int,
) -> Any:
    """A model with random weights drawn from ``seed`` on the CPU; global random state is kept.

    Raises:
        ValueError: an unknown ``model_type`` or key, or one that the contract states elsewhere.
    """
    rest = dict(config)
    model_type = rest.pop("model_type", None)
    config_keys.check(model_type, rest)
    built = AutoConfig.for_model(model_type, **rest)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                built, dtype=dtype, attn_implementation=attention
            )
    except ValueError as error:
        raise ValueError(f"a {model_type} model cannot be built: {error}") from error
    return _ready(model, device)


def from_folder(folder: Path, *, dtype: torch.dtype, attention: str, device: torch.device) -> Any:
    """The model in ``folder``: local files only, safetensors only, no code from the folder.

    Raises:
        UnsupportedError: a file is missing, weights are, or the model needs code of its own.
    """
    _check_folder(folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnsupportedError(f"{folder} and its safetensors cannot be loaded: {error}") from error
    for what in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in info[what])
        if keys:
            raise UnsupportedError(
                f"{folder}: {len(keys)} weights do not come from the files ({what}: "
                f"{', '.join(keys[:3])}); expected a complete checkpoint of this model class"
            )
    return _ready(model, device)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UnsupportedError(
            f"{folder} is not a folder; expected a local checkpoint (config.json and "
            "*.safetensors); nothing is downloaded"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise UnsupportedError(f"{path} is missing; a checkpoint needs it beside its weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedError(f"{path} is not JSON: {error}") from error
    if config.get("model_type") not in CONFIG_MAPPING:
        code = "auto_map" in config
        why = "needs the code in its folder, which is never run" if code else "is not known"
        raise UnsupportedError(
            f"{path}: model_type {config.get('model_type')!r} {why}; expected a model class of "
            "the installed transformers"
        )
    _check_weights(folder)


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        wanted = ["model.safetensors"]
    for name in wanted:
        if not (folder / name).is_file():
            pickled = sorted(p.name for p in folder.glob("*.bin"))
            hint = f"; {pickled[0]} is a pickle and is not read: convert it" if pickled else ""
            raise UnsupportedError(f"{folder / name} is missing{hint}")


def _ready(model: Any, device: torch.device) -> Any:
    # The checkpoint's own generation settings (penalties, top-k, end tokens) would change what
    # generate() shows as the next token's logits, so none is inherited.
    model.generation_config = GenerationConfig()
    return model.eval().requires_grad_(False).to(device)
