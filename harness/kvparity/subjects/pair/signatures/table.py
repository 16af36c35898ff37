"""The adapters by name, and the functions of a contract through one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from kvparity.subjects.attention_calls import by_keywords
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.signatures import flash_attn, flashinfer, sdpa, sglang, vllm
from kvparity_contracts.signatures import Signature


@dataclass(frozen=True)
class Calling:
    """Two functions: of the table ``(kernel, page, call, out)``, adapted ``(call, out)``.

    ``kernel``: the project's, which they call. ``page``: slots of a page, 0 without any. ``out``:
    what is to be written to, or left out.
    """

    prefill: Callable[..., object]
    decode: Callable[..., object]


ADAPTERS: Mapping[Signature, Calling] = {
    "flash-attn": Calling(flash_attn.prefill, flash_attn.decode),
    "flashinfer": Calling(flashinfer.prefill, flashinfer.decode),
    "vllm": Calling(vllm.prefill, vllm.decode),
    "sglang": Calling(sglang.prefill, sglang.decode),
    "sdpa": Calling(sdpa.prefill, sdpa.decode),
}


def adapted(signature: Signature | None, prefill: Kernel, decode: Kernel, page: int) -> Calling:
    """The two, called as the signature's project calls its own; None: by kvparity's keywords."""
    if signature is None:
        return Calling(by_keywords(prefill), by_keywords(decode))
    found = ADAPTERS[signature]
    return Calling(partial(found.prefill, prefill, page), partial(found.decode, decode, page))
