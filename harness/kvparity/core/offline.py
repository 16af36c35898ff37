"""Nothing is fetched, by transformers or by what it calls, whatever a checkpoint asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from kvparity.core.jsonfile import entries
from kvparity_contracts.json_types import JsonObject

_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
# What libraries that were imported earlier have made of these variables.
_FLAGS = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("transformers.utils.hub", "_is_offline_mode"),  # before transformers 5
    ("datasets.config", "HF_DATASETS_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
)
# Names that transformers has code for; any other is a repository of code on a hub.
_KNOWN = {
    "attn_implementation": (
        "eager",
        "sdpa",
        "flex_attention",
        "flash_attention_2",
        "flash_attention_3",
        "kvparity",
    ),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
_CODE = ("trust_remote_code", "custom_generate", "configuration_files")


def ensure() -> None:
    """Turn every library of the hub offline, in this process and in those that it starts."""
    for name in _VARIABLES:
        os.environ[name] = "1"
    for module, flag in _FLAGS:
        loaded = sys.modules.get(module)
        if hasattr(loaded, flag):
            setattr(loaded, flag, True)
    http = sys.modules.get("huggingface_hub.utils._http")
    for name in ("reset_sessions", "close_session"):  # before huggingface_hub 1; since
        if hasattr(http, name):
            getattr(http, name)()  # or one that was opened before would stay online


def fetches(keys: JsonObject) -> str | None:
    """Which key of a configuration names code to be fetched or run from a folder, or None.

    ``auto_map`` is not among them: of a class that the installed transformers has, it is never
    followed, and of any other the model is refused.
    """
    for place, key, value in entries(keys):
        plain = key.removeprefix("_").removesuffix("_internal")
        if key in _CODE and value:
            return f"{place} is {value!r}, which is code or settings from elsewhere"
        known = _KNOWN.get(plain)
        if known is None:
            continue
        named = value.values() if isinstance(value, Mapping) else [value]
        for each in named:
            if each is not None and each not in known:
                return f"{place} names {each!r}, which transformers would fetch and run"
    return None
