"""What a pair that is known by its name cannot take: told before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from kvparity_contracts.base import Fault
from kvparity_contracts.signatures import Signature, lacking_faults, part_fault
from kvparity_contracts.stores import lossy
from kvparity_contracts.subjects import Attention

PASSED: tuple[str, ...] = (
    "order",
    "window",
    "softcap",
    "sinks",
    "bias",
    "causal",
    "window_size",
    "out",
)
"""Keys that are passed to both functions of a pair where a contract declares them."""
DECODED: Mapping[str, str] = {"page": "block_table", "rows": "cu_seqlens_q"}
"""Keys that change what decode alone is called with, and the keyword that it is then given."""
TAKES: Mapping[str, Collection[str]] = {
    "kvparity.pairs.sdpa": (),
    "kvparity.pairs.flashinfer": (),
    "kvparity_kernels.attention": ("order", "window", "softcap", "sinks", "page", "rows", "out"),
}
"""Of these, those that the functions of a module take."""


LAID_OUT = ("head-major", "interleaved")
"""Layouts that the cache has in calls alone, where every sequence or page has its own block."""
WHOLE = ("invariance", "accuracy")
"""What whole sequences can show."""
ONE_WIDTH = ("kvparity.pairs.flashinfer", "kvparity_kernels.attention")
"""Modules whose functions take values of the width of keys alone."""


def pair_faults(subject: Attention) -> Iterator[Fault]:
    """Declared keys that a function of the subject does not take, widths that it does not have."""
    yield from _keys(subject) if subject.signature is None else _signed(subject, subject.signature)
    yield from _values(subject)


def whole_faults(subject: Attention, relations: Sequence[str]) -> Iterator[Fault]:
    """Relations that look at a cache or at single calls, where a row sees keys behind its own."""
    for i, relation in enumerate(relations if not subject.causal else ()):
        if relation not in WHOLE:
            message = f"found {relation!r} beside causal: false, where no row follows a cache"
            yield Fault(("checks", i, "relation"), message, " or ".join(WHOLE))


def ahead_faults(subject: Attention, generated: Sequence[int]) -> Iterator[Fault]:
    """A window whose end ahead of a row no compared row could show.

    The first row that is compared has as many keys behind it as its workload generates tokens.
    """
    sides, at = subject.window_size, ("subject", "window_size")
    if sides is not None and (subject.causal or subject.window is not None):
        beside = "a causal pair" if subject.causal else "a window"
        yield Fault(at, f"found window_size beside {beside}", "it beside causal: false, alone")
        return
    most, ends = max(generated, default=0), subject.sides[1]
    if ends is not None and not subject.causal and most < ends:
        key, said = ("window", ends) if sides is None else ("window_size", list(sides))
        found = f"found {said} beside causal: false, and no compared row has more than"
        expected = f"a workload that generates at least {ends} tokens, or no {key}"
        yield Fault(("subject", key), f"{found} {most} keys behind it", expected)


def layout_faults(subject: Attention) -> Iterator[Fault]:
    """Layouts that what lies in them does not have."""
    at, found = ("subject", "layout"), f"found {subject.layout}"
    if subject.layout not in LAID_OUT:
        return
    if subject.values == "latent":
        message = f"{found} beside values: latent, which have no memory of their own"
        yield Fault(at, message, "slot-head or head-slot")
    if subject.append is not None and subject.layout == "head-major" and subject.page is None:
        message = f"{found} beside an append without a page: the slots of a head have no one stride"
        yield Fault(at, message, "a page, or another layout")


def cross_faults(subject: Attention) -> Iterator[Fault]:
    """Keys of an encoder beside what counts keys from a row's own."""
    if subject.cross is None:
        return
    if subject.causal:
        yield Fault(("subject", "cross"), "found cross beside a causal pair", "causal: false")
    for key in ("window", "window_size", "bias"):
        if getattr(subject, key) is not None:
            message = f"found {key!r} beside cross, whose keys have no distance to a row"
            yield Fault(("subject", key), message, "no such key")


def _values(subject: Attention) -> Iterator[Fault]:
    heads, at = subject.heads, ("subject", "heads", "v_dim")
    if subject.values == "latent" and (heads.v_dim is None or heads.v_dim > heads.dim):
        found = "none" if heads.v_dim is None else str(heads.v_dim)
        expected = f"at most {heads.dim}, the columns of keys that are values"
        yield Fault(at if heads.v_dim else at[:2], f"found v_dim {found} beside latent", expected)
    for name in (subject.prefill, subject.decode):
        if name.partition(":")[0] in ONE_WIDTH and heads.v_dim not in (None, heads.dim):
            message = f"found {heads.v_dim}, but {name} takes values as wide as keys"
            yield Fault(at, message, f"{heads.dim}, or no v_dim")
            break


def _signed(subject: Attention, signature: Signature) -> Iterator[Fault]:
    cross = ("cross",) if subject.cross is not None else ()
    for key in (*_declared(subject), *cross):
        word = f"bias: {{kind: {subject.bias.kind}}}" if key == "bias" and subject.bias else key
        fault = part_fault(signature, key, word, subject.page)
        yield from [fault] if fault else []
    ahead = subject.window is not None and not subject.causal
    yield from lacking_faults(signature, subject.page, ahead=ahead)
    for name in (subject.prefill, subject.decode):
        if name.partition(":")[0] in TAKES:
            message = f"found {signature!r}, but {name} is called with kvparity's keywords"
            yield Fault(("subject", "signature"), message, "no signature")
            break


def _declared(subject: Attention) -> Iterator[str]:
    keys = (*PASSED, *DECODED)
    return (k for k in keys if getattr(subject, k) != Attention.model_fields[k].default)


def _keys(subject: Attention) -> Iterator[Fault]:
    for key in _declared(subject):
        for name in (subject.decode,) if key in DECODED else (subject.prefill, subject.decode):
            takes = TAKES.get(name.partition(":")[0], (*PASSED, *DECODED))
            if key not in takes:
                others = f"; it takes {', '.join(takes)}" if takes else ""
                message = f"found {key!r}, but {name} takes none{others}"
                yield Fault(("subject", key), message, "a pair that takes it, or no such key")
                break


def coded_faults(subject: Attention, stores: Sequence[str]) -> Iterator[Fault]:
    """Codes and scales beside a signature: each project has a form of its own for them."""
    if subject.signature is not None and (coded := lossy(stores)):
        message = f"found a cache in {coded[0]} beside signature {subject.signature}"
        expected = "float32, float16 or bfloat16, or no signature"
        yield Fault(("numerics", "kv_cache"), message, expected)


def append_faults(subject: Attention, stores: Sequence[str]) -> Iterator[Fault]:
    """A writer beside a cache whose contents are not the fresh numbers, each in its slot."""
    if subject.append is None:
        return
    expected = "no append, or a cache of numbers, values in one of their own"
    if coded := lossy(stores):
        message = f"found an append beside a cache in {coded[0]}: which code it writes is its own"
        yield Fault(("subject", "append"), message, expected)
    if subject.values == "latent":
        yield Fault(("subject", "append"), "found an append beside values: latent", expected)
