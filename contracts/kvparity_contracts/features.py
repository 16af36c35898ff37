"""What a contract must have beside paths and lengths for a defect to be possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kvparity_contracts.checks import TpInvariance
from kvparity_contracts.controls.base import Feature as Feature
from kvparity_contracts.decoder import DecoderConfig
from kvparity_contracts.pair_keys import Bias, RelativeBias
from kvparity_contracts.parts import Parts
from kvparity_contracts.paths import PathName
from kvparity_contracts.sides import Sides
from kvparity_contracts.stores import FP8, Store, parse
from kvparity_contracts.subjects import Attention, Decoder, known, narrow, order_of
from kvparity_contracts.workloads import Workload

FEW = 8
"""Numbers of keys, at least, of which sequences that run together hardly all draw the same."""


def has(contract: Parts, feature: Feature) -> bool:
    """Whether a contract has it, in the numerics in which controls run: its first."""
    return FEATURES[feature][1](contract)


def shares_prompt(workload: Workload, tokens: int) -> bool:
    """Whether there are several prompts, all with the same first ``tokens`` tokens and one more."""
    prompts = workload.prompts or tuple(tuple(text.encode()) for text in workload.texts or ())
    heads = {prompt[:tokens] for prompt in prompts}
    return len(prompts) > 1 and len(heads) == 1 and min(map(len, prompts)) > tokens


def _taken(contract: Parts) -> bool:
    """Whether attention is called with an order: a pair is where the contract declares one."""
    return not isinstance(contract.subject, Attention) or contract.subject.order is not None


def _store(contract: Parts) -> Store:
    return parse(contract.numerics.formats()[0][1])


def _config(contract: Parts) -> DecoderConfig | None:
    return contract.subject.config if isinstance(contract.subject, Decoder) else None


def _layers(contract: Parts) -> bool:
    config = _config(contract)
    return config is None or config.layers > 1


def _ascii(contract: Parts) -> bool:
    """Whether text that loses a character still has ids: a question mark stands for it."""
    size = known(contract.subject).vocab_size
    return size is None or size > ord("?")


def _ring(contract: Parts) -> bool:
    return isinstance(contract.subject, Decoder) and contract.subject.cache.ring


def _sinks(contract: Parts) -> bool:
    if isinstance(contract.subject, Attention):
        return contract.subject.sinks is not None
    config = _config(contract)
    return config is not None and config.attention_sinks


def _bias(contract: Parts) -> Bias | None:
    return contract.subject.bias if isinstance(contract.subject, Attention) else None


def _narrow(contract: Parts) -> bool:
    subject = contract.subject
    return isinstance(subject, Attention) and (
        subject.heads.v_dim is not None and subject.heads.v_dim < subject.heads.dim
    )


def _viewed(contract: Parts) -> bool:
    """Whether the strides of a cache are others than those of its shape."""
    subject = contract.subject
    if not isinstance(subject, Attention) or subject.layout == "slot-head":
        return False
    return subject.layout == "interleaved" or subject.heads.kv > 1


def _cross(contract: Parts) -> bool:
    """Whether sequences that run together will hardly all have as many keys of an encoder."""
    cross = contract.subject.cross if isinstance(contract.subject, Attention) else None
    return cross is not None and cross[1] - cross[0] >= FEW - 1


def _groups(contract: Parts) -> bool:
    """Whether several query heads share each of several KV heads."""
    subject = contract.subject
    return isinstance(subject, Attention) and 1 < subject.heads.kv < subject.heads.query


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
            for path in _paths(contract)
        )
    )


def _wide(contract: Parts) -> bool:
    return any(path.kind == "batched" and (path.argument or 0) > 16 for path in _paths(contract))


def _ranks(contract: Parts) -> Iterator[TpInvariance]:
    return (each for each in contract.checks if isinstance(each, TpInvariance))


def _several_blocks(contract: Parts) -> bool:
    """Whether a rank has more than one block of the depth, so that it adds some itself."""
    blocks = contract.subject.row_blocks if isinstance(contract.subject, Decoder) else None
    return any((blocks or 1) > each.sizes[0] for each in _ranks(contract))


def _paths(contract: Parts) -> Iterator[PathName]:
    return (path for check in contract.path_checks for path in check.paths)


FEATURES: Mapping[Feature, tuple[str, Callable[[Parts], bool]]] = {
    "order": (
        "attention whose order can be changed",
        lambda contract: order_of(contract.subject) is not None,
    ),
    "taken-order": ("kernels that take an order", _taken),
    "window": ("a sliding window", lambda c: known(c.subject).sliding_window is not None),
    "no-ring": ("no ring", lambda contract: not _ring(contract)),
    "ring": ("rings", _ring),
    "numbers": ("a cache of numbers, not of codes", lambda contract: not _store(contract).codes),
    "codes": ("a cache that stores codes", lambda contract: _store(contract).codes),
    "fp8": ("a cache in fp8", lambda contract: _store(contract).name in FP8),
    "strided": ("inputs: strided", _strided),
    "empties": ("empty: zero", _empties),
    "pages": (
        "a page",
        lambda c: isinstance(c.subject, Attention) and c.subject.page is not None,
    ),
    "append": (
        "an append",
        lambda c: isinstance(c.subject, Attention) and c.subject.append is not None,
    ),
    "out": (
        "out: given",
        lambda c: isinstance(c.subject, Attention) and c.subject.gives_out,
    ),
    "wide-batch": ("more than 16 rows of one batch", _wide),
    "softcap": (
        "a softcap",
        lambda c: isinstance(c.subject, Attention) and bool(c.subject.softcap),
    ),
    "sinks": ("attention sinks", _sinks),
    "bias": ("a bias of scores", lambda c: _bias(c) is not None),
    "bias-table": ("a bias by distance", lambda c: isinstance(_bias(c), RelativeBias)),
    "narrow-values": ("values narrower than keys", _narrow),
    "both-ways": (
        "causal: false",
        lambda c: isinstance(c.subject, Attention) and not c.subject.causal,
    ),
    "window-ahead": (
        "a window that ends ahead of a row",
        lambda c: (
            isinstance(c.subject, Attention)
            and not c.subject.causal
            and c.subject.sides[1] is not None
        ),
    ),
    "cache-views": ("a layout other than slot-head, with several KV heads", _viewed),
    "cross": (f"a cross of at least {FEW} numbers", _cross),
    "groups": ("several KV heads, several query heads for each", _groups),
    "layers": ("at least two layers", _layers),
    "full-layer": ("a layer that sees all keys", lambda c: narrow(c.subject) is None),
    "shared-prompt": ("prompts that all begin with the same tile of tokens", _shared),
    "model-side": (
        "a side that is a model",
        lambda c: isinstance(c.subject, Sides) and bool(c.subject.models),
    ),
    "scoring-side": (
        "a side that scores the tokens",
        lambda c: isinstance(c.subject, Sides) and c.subject.scores is not None,
    ),
    "one-format": (
        "no two models in different formats",
        lambda c: isinstance(c.subject, Sides) and len({m.dtype for m in c.subject.models}) < 2,
    ),
    "ascii": ("a vocabulary that holds all ASCII bytes", _ascii),
    "instruction": ("numerics.device", lambda c: c.numerics.device is not None),
    "sixteen-bit": ("16-bit execution first", lambda c: c.numerics.formats()[0][0] != "float32"),
    "four-ranks": (
        "four ranks or more",
        lambda contract: any(each.sizes[-1] >= 4 for each in _ranks(contract)),
    ),
    "blocks-per-rank": ("more row_blocks than its fewest ranks above one", _several_blocks),
    "fixed-reduce": (
        "reduce: fixed at two ranks",
        lambda c: any(each.reduce == "fixed" and 2 in each.sizes for each in _ranks(c)),
    ),
    "float32": ("execution in float32", lambda c: c.numerics.formats()[0][0] == "float32"),
}
"""Each in words, in the order in which they are said, and whether a contract has it."""
