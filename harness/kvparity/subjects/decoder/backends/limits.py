"""What a backend cannot do, in words. Only this project's kernels can do all of it."""

from __future__ import annotations

import torch

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import DecodeCall, PrefillCall
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.storage import Storage

_INSTEAD = "use attention: fixed-order"
_HALVES = (torch.float16, torch.bfloat16)


def refusal(
    name: str, config: DecoderShape, storage: Storage, execution: torch.dtype
) -> str | None:
    """Why a decoder cannot have the attention ``name``, or None if it can."""
    paged = name.startswith("flashinfer")
    if storage.format.static or storage.format.dynamic:
        return _codes(name, str(storage.format))
    if config.attention_softcap and not paged:
        return _softcap(name)
    if config.attention_sinks:
        return _sinks(name)
    if not paged:
        return None
    if storage.heads_first:
        return _heads_first(name)
    if storage.ring:
        return _ring(name)
    return _dtypes(name, execution, storage.format.storage_dtype)


def require_plain(name: str, call: PrefillCall | DecodeCall) -> None:
    """Raise ``UnsupportedError`` for a call that SDPA cannot compute."""
    if call.kv.format is not None:
        raise UnsupportedError(_codes(name, str(call.kv.format)))
    if call.softcap:
        raise UnsupportedError(_softcap(name))
    if call.sinks is not None:
        raise UnsupportedError(_sinks(name))


def require_paged(name: str, call: PrefillCall | DecodeCall) -> None:
    """Raise ``UnsupportedError`` for a call that FlashInfer's wrappers cannot compute."""
    kv, reason = call.kv, None
    if kv.format is not None:
        reason = _codes(name, str(kv.format))
    elif call.sinks is not None:
        reason = _sinks(name)
    elif call.first_key is not None:
        reason = f"attention {name} cannot hide first keys; {_INSTEAD}"
    elif kv.ring:
        reason = _ring(name)
    elif not kv.k[:1].is_contiguous() or kv.k.stride(0) != kv.k[0].numel():
        reason = _heads_first(name)
    elif kv.page and len(kv.k) % kv.page:
        reason = f"attention {name}: {len(kv.k)} slots are not whole pages of {kv.page}"
    else:
        reason = _dtypes(name, call.q.dtype, kv.k.dtype)
    if reason is not None:
        raise UnsupportedError(reason)


def _codes(name: str, format: str) -> str:
    return (
        f"attention {name} reads plain numbers, but the cache stores {format}; store float32, "
        f"float16 or bfloat16, or {_INSTEAD}"
    )


def _softcap(name: str) -> str:
    return f"attention {name} has no soft cap of scores; {_INSTEAD}"


def _sinks(name: str) -> str:
    return f"attention {name} has no attention sinks; {_INSTEAD}"


def _heads_first(name: str) -> str:
    return (
        f"attention {name} reads all heads of a slot together; use cache: {{layout: slot-head}}, "
        f"or {_INSTEAD}"
    )


def _ring(name: str) -> str:
    return f"attention {name} walks keys in order and cannot wrap around a ring; use ring: false"


def _dtypes(name: str, execution: torch.dtype, stored: torch.dtype) -> str | None:
    if execution in _HALVES and stored == execution:
        return None
    return (
        f"attention {name} computes in float16 or bfloat16 from a cache of the same, not "
        f"{_short(execution)} from {_short(stored)}"
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
