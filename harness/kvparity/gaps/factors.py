"""What ``--explain`` flips: one setting of the model side at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvparity.gaps.settings import Settings

MICRO_BATCH = 4


@dataclass(frozen=True)
class Factor:
    """One thing that may be otherwise. ``changes``: of ``Settings``, by name."""

    name: str
    changes: tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class MoreFactors:
    """What is tried if it was asked for. ``candidates``: folders of other weights. ``compiled``:
    torch.compile, which takes minutes. ``routes``: the recorded experts of a mixture. ``untried``:
    what is not, each with its reason."""

    candidates: tuple[str, ...] = ()
    compiled: bool = False
    routes: bool = False
    untried: tuple[str, ...] = ()


NO_MORE = MoreFactors()


def of_candidate(folder: str) -> tuple[str, str]:
    """Names of the factors that a folder of other weights makes: all of them, the head alone."""
    return f"weights of {folder}", f"head of {folder}"


def factors(base: Settings, more: MoreFactors = NO_MORE) -> Iterator[Factor]:
    """What is flipped from ``base``, in the order tried: likely causes first."""
    for folder in more.candidates:
        whole, head_alone = of_candidate(folder)
        yield Factor(whole, (("weights", folder),))
        yield Factor(head_alone, (("head_weights", folder),))
    yield from _adapters(base)
    yield Factor("logprobs after temperature and top-p", (("processed", not base.processed),))
    if base.routes == "recorded":
        yield Factor("routes of its own", (("routes", "own"),))
    elif more.routes:
        yield Factor("routes recorded", (("routes", "recorded"), ("compile", False)))
    for dtype in ("float32", "bfloat16"):
        if dtype != base.dtype:
            yield Factor(f"dtype {dtype}", (("dtype", dtype), ("autocast", None)))
    for attention in ("sdpa", "eager"):
        if attention != base.attention:
            yield Factor(f"attention {attention}", (("attention", attention),))
    yield from _layouts(base)
    head = None if base.head_dtype else "float32"
    yield Factor(f"head {head or 'as the rest'}", (("head_dtype", head),))
    for way in ("float32", "logits"):
        if way != base.log_softmax:
            yield Factor(f"log_softmax of {way}", (("log_softmax", way),))
    if base.autocast is None:
        under = (("dtype", "float32"), ("autocast", "bfloat16"))
        yield Factor("autocast bfloat16 over float32", under)
    else:
        yield Factor("no autocast", (("autocast", None),))
    yield Factor(
        "eval mode" if base.train else "train mode (dropout)",
        (("train", not base.train), ("gradient_checkpointing", False)),
    )
    if base.invariant:
        yield Factor("torch's own order of sums", (("invariant", False),))
    else:
        plain = (("attention", "eager"), ("autocast", None), ("compile", False))
        yield Factor("fixed order of sums", (("invariant", True), *plain))
    if more.compiled:
        name = "not compiled" if base.compile else "compiled"
        yield Factor(name, (("compile", not base.compile), ("invariant", False)))


def _adapters(base: Settings) -> Iterator[Factor]:
    if base.adapter is None:
        return
    name = "adapter beside the weights" if base.merged else "adapter merged into the weights"
    yield Factor(name, (("merged", not base.merged),))
    other = "model" if base.adapter_dtype == "float32" else "float32"
    words = "the model's dtype" if other == "model" else other
    yield Factor(f"adapter in {words}", (("adapter_dtype", other),))
    nothing = (("adapter", None), ("merged", False), ("adapter_dtype", "float32"))
    yield Factor("no adapter", nothing)


def _layouts(base: Settings) -> Iterator[Factor]:
    for name, layout, positions in (
        ("each sequence alone", "alone", True),
        ("padded right", "right", True),
        ("padded left", "left", True),
        ("padded left, positions counted through pads", "left", False),
        ("packed", "packed", True),
        ("packed, positions counted through", "packed", False),
    ):
        if (layout, positions) != (base.layout, base.position_ids):
            many = 1 if layout == "alone" else max(base.micro_batch, MICRO_BATCH)
            changes = (("layout", layout), ("position_ids", positions), ("micro_batch", many))
            yield Factor(name, changes)
