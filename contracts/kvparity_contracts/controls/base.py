"""What a contract says of a control, and words that the tables of controls share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvparity_contracts.checks import Relation
from kvparity_contracts.features import Feature
from kvparity_contracts.paths import PathKind

SubjectKind = Literal["attention", "decoder", "transformers"]
LANGUAGE: tuple[SubjectKind, ...] = ("decoder", "transformers")
KERNELS: tuple[SubjectKind, ...] = ("attention", "decoder")
EVERY: tuple[SubjectKind, ...] = ("attention", "decoder", "transformers")

DECODING: tuple[PathKind, ...] = (
    "decode",
    "generate",
    "batched",
    "uniform",
    "mixed",
    "paged",
    "padded-left",
    "padded-right",
    "streamed",
    "reset",
    "prefix",
    "prefix-paged",
    "exported",
    "compiled",
)
CACHING: tuple[PathKind, ...] = (*DECODING, "chunked")
TOGETHER: tuple[PathKind, ...] = (
    "batched",
    "uniform",
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
    ``keys``: a sequence, or a number of keys of an order check, is longer than a tile, a split or
    the sliding window.
    ``sequences``: a workload has so many prompts of different length.
    ``generate``: a workload generates at least so many tokens.
    ``tempered``: a temperature is not 1. ``features``: what the contract has beside. ``needs`` says
    all that in words.
    """

    name: str
    about: str
    source: str
    subjects: tuple[SubjectKind, ...]
    needs: str
    expect: Literal["differs", "void"] = "differs"
    relations: tuple[Relation, ...] = ("invariance",)
    paths: tuple[PathKind, ...] = ()
    keys: Literal["any", "tile", "split", "window"] = "any"
    sequences: int = 1
    generate: int = 1
    tempered: bool = False
    features: tuple[Feature, ...] = ()
