"""Load a causal LM from a local folder, or build one with seeded random weights from a config."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, logging

from kvparity.core import offline
from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import read_object, weight_map
from kvparity.core.raised import in_one_line
from kvparity.core.relied.transformers import MODEL_TYPES
from kvparity.subjects.hf import config_keys, sizes
from kvparity.subjects.hf import spread as spreading
from kvparity.subjects.hf.protocols import CausalLM, ModelConfig
from kvparity_contracts.json_types import JsonObject, JsonValue

# Settings of generation that change neither what is drawn nor when it ends.
_TECHNICAL = (
    "transformers_version",
    "bos_token_id",
    "pad_token_id",
    "use_cache",
    "trust_remote_code",
)


@dataclass(frozen=True)
class Loaded:
    """A model ready to run; ``notes`` say, a line each, what of its checkpoint is not followed."""

    model: CausalLM
    notes: tuple[str, ...] = ()


def from_config(
    config: JsonObject,
    *,
    dtype: torch.dtype,
    attention: str,
    device: torch.device,
    seed: int,
    device_map: Mapping[str, str] | None = None,
) -> Loaded:
    """A model with random weights drawn from ``seed`` on the CPU; global random state is kept.

    Raises:
        ValueError: an unknown ``model_type`` or key, or one that the contract states elsewhere.
    """
    rest = dict(config)
    model_type = rest.pop("model_type", None)
    config_keys.check(model_type, rest)
    _acceptable(rest, "config")
    built = _configured(lambda: AutoConfig.for_model(model_type, **rest), "config", model_type)
    places = spreading.devices(device_map, device)
    sizes.fits(built, dtype=dtype, device=device, where="config", others={*places.values()})
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                built, dtype=dtype, attn_implementation=attention
            )
    except (ValueError, ImportError) as error:  # an attention that this type does not have
        raise UnsupportedError(
            f"a {model_type} model cannot be built with attention {attention}: {in_one_line(error)}"
        ) from error
    return Loaded(_ready(model, places))


def _acceptable(keys: JsonObject, where: str) -> None:
    fetched = offline.fetches(keys)
    if fetched is not None:
        raise UnsupportedError(
            f"{where}: {fetched}; nothing is fetched here, and no code but the installed "
            "transformers' is run: take the key out"
        )
    sizes.bounded(keys, where)


def _configured(make: Callable[[], ModelConfig], where: str, model_type: JsonValue) -> ModelConfig:
    try:
        return make()
    except Exception as error:  # other people's code, on whatever the keys hold
        raise UnsupportedError(
            f"{where}: transformers refuses this configuration of a {model_type} model: "
            f"{in_one_line(error)}"
        ) from error


def from_folder(
    folder: Path,
    *,
    dtype: torch.dtype,
    attention: str,
    device: torch.device,
    device_map: Mapping[str, str] | None = None,
) -> Loaded:
    """The model in ``folder``: local files only, safetensors only, no code from the folder.

    Raises:
        UnsupportedError: a file is missing, weights are, or the model needs code of its own.
    """
    model_type = _check_folder(folder)
    local = {"local_files_only": True, "trust_remote_code": False}
    where = f"{folder / 'config.json'}"
    config = _configured(lambda: AutoConfig.from_pretrained(folder, **local), where, model_type)
    places = spreading.devices(device_map, device)
    sizes.fits(config, dtype=dtype, device=device, where=where, others={*places.values()})
    logging.disable_progress_bar()  # logs are for what kvparity says
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            **local,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # other people's code, on whatever the files hold
        raise UnsupportedError(
            f"{folder} and its safetensors cannot be loaded: {in_one_line(error)}"
        ) from error
    for what in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in info[what])
        if keys:
            raise UnsupportedError(
                f"{folder}: {len(keys)} weights do not come from the files ({what}: "
                f"{', '.join(keys[:3])}); expected a complete checkpoint of this model class"
            )
    notes = tuple(_overridden(model))
    if "auto_map" in read_object(folder / "config.json"):
        notes += (f"auto_map is not followed: {type(model).__name__} is transformers' own",)
    return Loaded(_ready(model, places), notes)


def _overridden(model: CausalLM) -> Iterator[str]:
    """The generation settings of a checkpoint, none of which is inherited, in one line."""
    settings = ", ".join(
        f"{name} {json.dumps(value, default=str)}"
        for name, value in sorted(model.generation_config.to_diff_dict().items())
        if value is not None and value is not False
        if name not in _TECHNICAL and not name.startswith("_")
    )
    if settings:
        yield (
            f"generation_config is overridden ({settings}): tokens are drawn at the contract's "
            "temperatures, as many as it says"
        )


def _check_folder(folder: Path) -> str:
    """The model type of a folder that may be loaded."""
    if not folder.is_dir():
        raise UnsupportedError(
            f"{folder} is not a folder; expected a local checkpoint (config.json and "
            "*.safetensors); nothing is downloaded"
        )
    path = folder / "config.json"
    if (folder / "adapter_config.json").exists():
        raise UnsupportedError(
            f"{folder} holds an adapter of another model (adapter_config.json); merge it into its "
            "model first, or name the folder of that model and, as the adapter, this one: a model "
            "that scores tokens (kvparity drift, relation parity) takes both"
        )
    if not path.exists():
        raise UnsupportedError(f"{path} is missing; a checkpoint needs it beside its weights")
    config = read_object(path)
    if config.get("model_type") not in MODEL_TYPES.get():
        code = "auto_map" in config
        why = "needs the code in its folder, which is never run" if code else "is not known"
        raise UnsupportedError(
            f"{path}: model_type {config.get('model_type')!r} {why}; expected a model class of "
            "the installed transformers"
        )
    _acceptable(config, str(path))
    for name in _files(folder / "model.safetensors.index.json"):
        if not (folder / name).is_file():
            pickled = sorted(p.name for p in folder.glob("*.bin"))
            hint = f"; {pickled[0]} is a pickle and is not read: convert it" if pickled else ""
            raise UnsupportedError(f"{folder / name} is missing{hint}")
    return str(config["model_type"])


def _files(index: Path) -> list[str]:
    """The files that an index names; without one, the single file of a whole checkpoint."""
    if not index.exists():
        return ["model.safetensors"]
    return sorted(set(weight_map(index).values()))


def _ready(model: CausalLM, places: Mapping[str, torch.device]) -> CausalLM:
    # The checkpoint's own generation settings (penalties, top-k, end tokens) would change what
    # generate() shows as the next token's logits, so none is inherited.
    model.generation_config = GenerationConfig()
    return spreading.spread(model.eval().requires_grad_(False), places)
