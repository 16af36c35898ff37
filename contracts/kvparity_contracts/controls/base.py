"""What a contract says of a control, and words that the tables of controls share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from kvparity_contracts.causes import CauseKind, Part
from kvparity_contracts.paths import DECODE, PREFILL, PathKind, PathName

Feature = Literal[
    "order",
    "taken-order",
    "float32",
    "window",
    "no-ring",
    "ring",
    "numbers",
    "codes",
    "fp8",
    "ascii",
    "shared-prompt",
    "layers",
    "full-layer",
    "strided",
    "empties",
    "wide-batch",
    "pages",
    "append",
    "out",
    "softcap",
    "sinks",
    "bias",
    "bias-table",
    "narrow-values",
    "both-ways",
    "window-ahead",
    "cross",
    "cache-views",
    "groups",
    "model-side",
    "scoring-side",
    "one-format",
    "instruction",
    "sixteen-bit",
    "four-ranks",
    "blocks-per-rank",
    "fixed-reduce",
]
"""What a contract must have beside paths and lengths for a defect to be possible."""

SubjectKind = Literal["attention", "decoder", "transformers", "server", "sides"]
DECODER: tuple[SubjectKind, ...] = ("decoder",)
PAIRS: tuple[SubjectKind, ...] = ("attention",)
LANGUAGE: tuple[SubjectKind, ...] = ("decoder", "transformers")
KERNELS: tuple[SubjectKind, ...] = ("attention", "decoder")
EVERY: tuple[SubjectKind, ...] = ("attention", "decoder", "transformers")
BY_IDS: tuple[SubjectKind, ...] = (*LANGUAGE, "server")
"""Subjects that are handed token ids; of a server nothing else can be planted."""

_UNDECODED: tuple[PathKind, ...] = (
    "prefill",
    "chunked",
    "verify",
    "permuted",
    "padded",
    "uncached",
    "random",
)
DECODING: tuple[PathKind, ...] = tuple(
    kind for kind in get_args(PathKind) if kind not in _UNDECODED
)
CACHING: tuple[PathKind, ...] = (*DECODING, "chunked", "verify")
TOGETHER: tuple[PathKind, ...] = (
    "batched",
    "uniform",
    "permuted",
    "mixed",
    "verify",
    "paged",
    "padded-left",
    "padded-right",
)


Keys = Literal["any", "whole-tile", "tile", "split", "window", "page", "ahead"]
Side = Literal["rollout", "rescore", "both", "handover", "sides", "ranks"]


@dataclass(frozen=True)
class Control:
    """One planted defect, and what a contract needs for it to show. All facts, once.

    To add one: a row here, in the file of its kind, and under its name in
    ``kvparity.controls.table`` the function that plants it.

    ``relations``: a check of one of them sees it, and it is planted for each that the contract has.
    ``paths``: with ``controls: all``, such a check has at least one of them (empty: any will do).
    ``path``: the path that runs with the defect. ``side``: who has it: the ``rollout`` (that path),
    the ``rescore`` (the check's reference), ``both``, the ids between them (``handover``), the
    logprobs of two ``sides``, or some of the ``ranks`` that compute both.
    ``keys``: a row, or a number of keys of an order check, sees a whole tile, or more keys than a
    tile, a split, the sliding window or a page have, and at least ``fewest``; or has more of them
    behind it than its window shows (``ahead``). ``sequences``: a
    workload has so many prompts of different length. ``generate``: it generates at least so many
    tokens. ``tempered``: a temperature is not 1. ``scores_prompt``: both sides run ``prefill`` and
    every token but the first is compared, prompt included: for a defect that one token shows only
    by chance.
    ``expect``: what the check must say. ``features``: what the contract has beside.
    ``cause`` and ``born``: of one that changes bits between paths, what ``kvparity locate`` should
    name: the kind of cause, and the part of the model that has it (None: it changes none).
    ``kvparity_contracts.needs`` says all that in words.
    """

    name: str
    about: str
    source: str
    subjects: tuple[SubjectKind, ...]
    expect: Literal["differs", "void"] = "differs"
    relations: tuple[str, ...] = ("invariance",)
    paths: tuple[PathKind, ...] = ()
    path: PathName = DECODE
    side: Side = "rollout"
    keys: Keys = "any"
    fewest: int = 2
    sequences: int = 1
    generate: int = 2
    tempered: bool = False
    scores_prompt: bool = False
    features: tuple[Feature, ...] = ()
    cause: CauseKind | None = None
    born: Part | None = None

    def at_least(self, split: int, tile: int, window: int | None, page: int) -> int:
        """Keys that a sequence must have for the defect to show in a subject of this order."""
        if self.keys == "page":
            return max(self.fewest, page + 1)
        # Another tile has at least 16 keys: only a row of more is cut in another place.
        if self.keys in ("tile", "whole-tile"):
            return max(tile, 17) + (self.keys == "tile")
        if self.keys == "split":
            return split + 1
        return max(self.fewest, (window or 0) + 1) if self.keys == "window" else self.fewest


reorders = partial(
    Control,
    subjects=KERNELS,
    paths=DECODING,
    keys="tile",
    features=("order",),
    side="both",
    cause="reduction order",
    born="attention",
)
"""Rows of another order: by default on decode, in a sequence longer than one tile."""
decodes = partial(Control, paths=DECODING)
"""Rows of what every decoded token shows."""
scores = partial(
    Control,
    subjects=LANGUAGE,
    path=PREFILL,
    generate=1,
    scores_prompt=True,
    cause="logprob semantics",
    born="sampler",
)
"""Rows of equal logits that give other logprobs, in a token or two: the prompt is scored, too."""
