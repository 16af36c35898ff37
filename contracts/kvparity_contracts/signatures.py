"""How other projects call attention: what a pair with one of their signatures can be given.

The calls themselves are made in ``kvparity.subjects.pair.signatures``, one file for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from kvparity_contracts.base import Fault
from kvparity_contracts.pair_keys import AlibiBias, RelativeBias

Signature = Literal["flash-attn", "flashinfer", "vllm", "sglang", "sdpa"]
"""The projects whose calls are known."""


@dataclass(frozen=True)
class Calls:
    """One project's calls. ``functions``: as what prefill and decode are called.

    ``takes``: keys of a subject that have a keyword there; ``paged``: more of them, with a page.
    ``writes``: both are always given an ``out``. ``needs_page``: they read pages alone.
    ``ahead``: a window may have an end behind a row's own key, too.
    """

    functions: str
    takes: tuple[str, ...]
    paged: tuple[str, ...] = ()
    writes: bool = False
    needs_page: bool = False
    ahead: bool = True

    def keys(self, page: int | None) -> tuple[str, ...]:
        """All that it takes."""
        return (*self.takes, *(self.paged if page is not None else ()))


ALIBI, RELATIVE = (f"bias: {{kind: {each.TAG}}}" for each in (AlibiBias, RelativeBias))
SIGNATURES: Mapping[Signature, Calls] = {
    "flash-attn": Calls(
        "flash_attn_varlen_func and flash_attn_with_kvcache",
        ("window", "softcap", ALIBI, "causal", "window_size", "cross", "page"),
    ),
    "flashinfer": Calls(
        "single_prefill_with_kv_cache and single_decode_with_kv_cache, with a page "
        "BatchPrefillWithPagedKVCacheWrapper and BatchDecodeWithPagedKVCacheWrapper",
        ("window", "softcap", "causal", "cross", "page"),
        paged=("sinks", "out"),
        ahead=False,
    ),
    "vllm": Calls(
        "unified_attention, both",
        ("window", "softcap", "sinks", ALIBI, "causal", "cross", "page", "rows", "out"),
        writes=True,
        needs_page=True,
    ),
    "sglang": Calls(
        "extend_attention_fwd_unified and decode_attention_fwd",
        ("window", "softcap", "sinks", "causal", "page", "out"),
        writes=True,
    ),
    "sdpa": Calls(
        "scaled_dot_product_attention, both",
        ("window", ALIBI, RELATIVE, "causal", "window_size", "cross"),
    ),
}


def part_fault(signature: Signature, key: str, word: str, page: int | None) -> Fault | None:
    """A declared key that has no keyword in the signature's calls; ``word``: as it has it."""
    calls = SIGNATURES[signature]
    taken = calls.keys(page)
    if word in taken:
        return None
    others = "with subject.page alone" if word in calls.paged else f"it has {', '.join(taken)}"
    message = f"found {word!r}, but signature {signature} has no keyword for it; {others}"
    return Fault(("subject", key), message, "a signature that has one, or no such key")


def lacking_faults(signature: Signature, page: int | None, *, ahead: bool) -> Iterator[Fault]:
    """What calls need that is not declared. ``ahead``: a window has an end behind the row's key."""
    calls = SIGNATURES[signature]
    if calls.needs_page and page is None:
        message = f"found {signature!r} without a page, and its functions read nothing but pages"
        yield Fault(("subject", "signature"), message, "subject.page, such as 16, beside it")
    if ahead and not calls.ahead:
        message = f"found a window beside causal: false, and signature {signature} has no end ahead"
        yield Fault(("subject", "window"), message, "a signature that has one, or no window")
