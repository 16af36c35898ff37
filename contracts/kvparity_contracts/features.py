"""What a contract must have beside paths and lengths for a defect to be possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kvparity_contracts.controls.base import Feature as Feature
from kvparity_contracts.parts import Parts
from kvparity_contracts.stores import FP8, parse
from kvparity_contracts.subjects import Attention, Decoder, known, narrow, order_of
from kvparity_contracts.workloads import Workload


def has(contract: Parts, feature: Feature) -> bool:
    """Whether a contract has it, in the numerics in which controls run: its first."""
    return _TESTS[feature](contract)


def shares_prompt(workload: Workload, tokens: int) -> bool:
    """Whether there are several prompts, all with the same first ``tokens`` tokens and one more."""
    prompts = workload.prompts or tuple(tuple(text.encode()) for text in workload.texts or ())
    heads = {prompt[:tokens] for prompt in prompts}
    return len(prompts) > 1 and len(heads) == 1 and min(map(len, prompts)) > tokens


def _ring(contract: Parts) -> bool:
    return isinstance(contract.subject, Decoder) and contract.subject.cache.ring


def _window(contract: Parts) -> bool:
    return known(contract.subject).sliding_window is not None


def _sinks(contract: Parts) -> bool:
    config = contract.subject.config if isinstance(contract.subject, Decoder) else None
    return config is not None and config.attention_sinks


def _groups(contract: Parts) -> bool:
    """Whether several query heads share each of several KV heads."""
    heads = getattr(contract.subject, "heads", None)
    return heads is not None and 1 < heads.kv < heads.query


def _shared(contract: Parts) -> bool:
    order = order_of(contract.subject)
    return order is not None and any(shares_prompt(w, order.tile) for w in contract.workloads)


def _strided(contract: Parts) -> bool:
    return isinstance(contract.subject, Attention) and contract.subject.inputs == "strided"


def _empties(contract: Parts) -> bool:
    """Whether an attention pair takes empty sequences, and a path gives it some."""
    subject = contract.subject
    return (
        isinstance(subject, Attention)
        and subject.empty == "zero"
        and any(
            path.argument is None and path.kind in ("batched", "mixed", "permuted")
            for check in contract.path_checks
            for path in check.paths
        )
    )


def _wide(contract: Parts) -> bool:
    return any(
        path.kind == "batched" and (path.argument or 0) > 16
        for check in contract.path_checks
        for path in check.paths
    )


_TESTS: Mapping[Feature, Callable[[Parts], bool]] = {
    "order": lambda contract: order_of(contract.subject) is not None,
    "float32": lambda contract: contract.numerics.formats()[0][0] == "float32",
    "window": _window,
    "no-ring": lambda contract: not _ring(contract),
    "ring": _ring,
    "numbers": lambda contract: not parse(contract.numerics.formats()[0][1]).codes,
    "codes": lambda contract: parse(contract.numerics.formats()[0][1]).codes,
    "fp8": lambda contract: parse(contract.numerics.formats()[0][1]).name in FP8,
    "shared-prompt": _shared,
    "full-layer": lambda contract: narrow(contract.subject) is None,
    "strided": _strided,
    "empties": _empties,
    "wide-batch": _wide,
    "softcap": lambda contract: getattr(contract.subject, "softcap", None) is not None,
    "sinks": _sinks,
    "groups": _groups,
}
