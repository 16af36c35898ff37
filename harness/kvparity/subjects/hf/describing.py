"""What a loaded transformers model is, for the report: its class, configuration and weights."""

from __future__ import annotations

import hashlib
import json

import torch
import transformers

from kvparity.subjects.hf.protocols import CausalLM
from kvparity_contracts.json_types import JsonObject


def about(model: CausalLM) -> JsonObject:
    """JSON values that name the model. ``weights``: see :func:`fingerprint`."""
    text = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    return {
        "class": type(model).__name__,
        "model_type": model.config.model_type,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": fingerprint(model),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "transformers": transformers.__version__,
    }


def fingerprint(model: CausalLM) -> str | None:
    """SHA-256 of names, dtypes, shapes and bytes of all weights and stored buffers, as loaded.

    The same however many files they came from, in whatever order; another for another execution
    dtype. Weights that are tied count once, under the first of their names. None where some are
    offloaded, so that they are not there to be read.
    """
    seen: set[int] = set()
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if tensor.is_meta:
            return None
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        found.update(flat.cpu().numpy().data)
    return found.hexdigest()
