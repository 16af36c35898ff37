"""Controls: planted defects that a check must catch, or it proves nothing. Pure data.

Every control stands for a defect that was really shipped; ``source`` names the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from kvparity_contracts.checks import Relation
from kvparity_contracts.paths import PathKind

SubjectKind = Literal["attention", "decoder", "transformers"]
LANGUAGE: tuple[SubjectKind, ...] = ("decoder", "transformers")
KERNELS: tuple[SubjectKind, ...] = ("attention", "decoder")
EVERY: tuple[SubjectKind, ...] = ("attention", "decoder", "transformers")

DECODING: tuple[PathKind, ...] = (
    "decode",
    "generate",
    "batched",
    "mixed",
    "paged",
    "padded-left",
    "padded-right",
)
CACHING: tuple[PathKind, ...] = (*DECODING, "chunked")
TOGETHER: tuple[PathKind, ...] = (
    "batched",
    "permuted",
    "mixed",
    "paged",
    "padded-left",
    "padded-right",
)


@dataclass(frozen=True)
class Control:
    """One planted defect, and what a contract needs for it to show.

    ``relations``: a check of one of them sees it, and it is planted for each that the contract has.
    ``paths``: such a check has at least one of them (empty: any path will do).
    ``keys``: a sequence, or a number of keys of an order check, is longer than one tile or split.
    ``sequences``: a workload has so many prompts of different length.
    ``generate``: a workload generates at least so many tokens.
    ``tempered``: a temperature is not 1. ``needs`` says all that in words.
    """

    name: str
    about: str
    source: str
    subjects: tuple[SubjectKind, ...]
    needs: str
    expect: Literal["differs", "void"] = "differs"
    relations: tuple[Relation, ...] = ("invariance",)
    paths: tuple[PathKind, ...] = ()
    keys: Literal["any", "tile", "split"] = "any"
    sequences: int = 1
    generate: int = 1
    tempered: bool = False


_TABLE = (
    Control(
        "split-by-batch",
        "the number of splits follows the batch",
        "sgl-project/sgl-flash-attn#43",
        KERNELS,
        "a path that computes sequences together, and a sequence longer than one split",
        paths=TOGETHER,
        keys="split",
    ),
    Control(
        "tile-by-query-length",
        "the tile follows the query length",
        "flashinfer-ai/flashinfer#2424, vllm-project/vllm#51902",
        KERNELS,
        "a path with another query length than prefill, and a sequence longer than one tile",
        paths=(*CACHING, "permuted"),
        keys="tile",
    ),
    Control(
        "split-from-chunk",
        "splits are counted from the start of the chunk, not of the sequence",
        "pegainfer-project/pegainfer#688, vllm-project/vllm#46592",
        KERNELS,
        "a path that decodes (a chunk of one token), and a sequence longer than one split",
        paths=DECODING,
        keys="split",
    ),
    Control(
        "position-off-by-one",
        "decoded tokens are told the position after their own",
        "waybarrios/vllm-mlx#311, Blaizzy/mlx-vlm#1983",
        LANGUAGE,
        "a path that decodes, and a workload that generates at least 2 tokens",
        paths=DECODING,
        generate=2,
    ),
    Control(
        "stale-slot",
        "a cache slot still holds an earlier write",
        "sgl-project/sglang#30339, NovaSky-AI/SkyRL#2246",
        EVERY,
        "a path that decodes, and a workload that generates at least 2 tokens",
        paths=DECODING,
        generate=2,
    ),
    Control(
        "padding-leaks",
        "left pads are attended to and shift positions",
        "huggingface/transformers#46773, TransformerLensOrg/TransformerLens#1609",
        ("decoder",),
        "a workload padded on the left, with prompts of two lengths",
        paths=("padded-left",),
        sequences=2,
    ),
    Control(
        "narrow-cache",
        "the cache stores a narrower format than declared",
        "sgl-project/sglang#25790, vllm-project/vllm#51685",
        EVERY,
        "a path that reads a cache, and a workload that generates at least 2 tokens",
        paths=CACHING,
        generate=2,
    ),
    Control(
        "temperature-ignored",
        "logprobs are scored at temperature 1, whatever the rollout sampled at",
        "radixark/miles#1345, huggingface/trl#4159",
        LANGUAGE,
        "a temperature other than 1",
        tempered=True,
    ),
    Control(
        "log-of-softmax",
        "one side computes log(softmax(x)), the other log_softmax(x)",
        "sgl-project/sglang#30821",
        LANGUAGE,
        "nothing more",
    ),
    Control(
        "retokenised",
        "the rescoring side gets text and encodes it again",
        "vllm-project/vllm#53692",
        LANGUAGE,
        "nothing more",
    ),
    Control(
        "unequal-lengths",
        "the rescoring side returns fewer tokens, and the rest is cut off",
        "pytorch/torchtitan test_bitwise_parity.py",
        EVERY,
        "nothing more",
        expect="void",
    ),
    Control(
        "wrong-input",
        "another prompt is computed than the one that is reported: consistent, and wrong",
        "sgl-project/sglang#31501",
        EVERY,
        "an accuracy check",
        relations=("accuracy",),
    ),
    Control(
        "other-tile",
        "decode walks the keys in tiles of another size",
        "flashinfer-ai/flashinfer#2424, vllm-project/vllm#51902",
        KERNELS,
        "an audit check, or an order check with more keys than one tile",
        relations=("order", "audit"),
        keys="tile",
    ),
    Control(
        "ragged-split",
        "where decode cuts the keys follows from how many there are",
        "sgl-project/sgl-flash-attn#43",
        KERNELS,
        "an order check with more keys than one tile",
        relations=("order",),
        keys="tile",
    ),
    Control(
        "other-warps",
        "decode runs with another number of warps",
        "flashinfer-ai/flashinfer#2424",
        KERNELS,
        "an audit check",
        relations=("audit",),
    ),
)

CONTROLS: Mapping[str, Control] = MappingProxyType({each.name: each for each in _TABLE})
"""All controls by name, in the order in which they are run."""
