"""Load a causal LM from a local folder, or build one with seeded random weights from a config."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvparity.subject import UnsupportedError

# What every config class accepts beside its own keys, and what belongs elsewhere in the contract.
_ALSO_KNOWN = frozenset({"rope_theta", "rope_scaling", "experts_implementation"})
# Keys that a config class takes and turns into others.
_TURNED = {"gemma4_text": ("global_head_dim", "num_global_key_value_heads")}
_STATED_ELSEWHERE = {
    "dtype": "numerics.execution",
    "torch_dtype": "numerics.execution",
    "attn_implementation": "subject.attention",
    "_attn_implementation": "subject.attention",
}


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
    _check_keys(model_type, rest)
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


def _check_keys(model_type: Any, rest: Mapping[str, Any]) -> None:
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(model_type), list(CONFIG_MAPPING.keys()), 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"transformers knows no model_type {model_type!r}{hint}")
    kind = CONFIG_MAPPING[model_type]
    known = set(kind().to_dict()) | set(inspect.signature(kind.__init__).parameters)
    known |= set(kind.attribute_map) | _ALSO_KNOWN | set(_TURNED.get(model_type, ()))
    for key in rest:
        if key in _STATED_ELSEWHERE:
            raise ValueError(
                f"config.{key} does not belong here; state it in {_STATED_ELSEWHERE[key]}"
            )
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"config.{key} is no setting of a {model_type} model{hint}")


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
