"""What a subject cannot do, as far as the contract alone tells: paths, and looks inside.

A subject refuses the same when it is asked (``Subject.unsupported``); a test checks both against
each other, path by path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from kvparity_contracts.base import Fault, KeyPath
from kvparity_contracts.checks import PathCheck
from kvparity_contracts.pair_faults import LAID_OUT
from kvparity_contracts.parts import Parts
from kvparity_contracts.paths import KINDS, PathKind, PathName, example, one_of_the_paths
from kvparity_contracts.steps import WrittenSteps
from kvparity_contracts.subjects import AnySubject, Attention, Decoder, Transformers

_PAGED = "the pair is not declared to take pages (subject.page)"
_PADDED = "a padded batch is not part of the signature of a pair"
_TRACED = "a pair of kernels is called as it is, not through a traced program"
_TOGETHER = "a transformers model takes one sequence a step, or a padded batch"
_PAGES = "the caches of transformers have no pages"
_SCHEDULED = "a server schedules the steps of its requests itself"
_OWN_CACHE = "the cache of a server is its own"
_NO_PADS = "a server pads nothing that a request could ask for"
_NO_PROGRAM = "a server runs its own programs; start it with or without them"
_CUT = "a row that sees keys behind its own (causal: false) needs its whole sequence in one step"
_PER_ENCODER = "every sequence has an encoder (cross) of its own, so none takes over keys"
_NO_DRAFTS = "all rows see the same keys of an encoder (cross), so none of a draft"
UNCROSSED: Mapping[PathKind, str] = {
    "prefix": _PER_ENCODER,
    "prefix-paged": _PER_ENCODER,
    "verify": _NO_DRAFTS,
}
"""Paths that mean nothing where keys are those of an encoder."""
UNCUT: tuple[PathKind, ...] = ("prefill", "permuted", "uncached")
"""Paths whose steps compute whole sequences."""
UNABLE: Mapping[str, Mapping[PathKind, str]] = {
    "attention": {
        "generate": "a pair of attention kernels generates no tokens",
        "paged": _PAGED,
        "prefix-paged": _PAGED,
        "padded": _PADDED,
        "padded-left": _PADDED,
        "padded-right": _PADDED,
        "exported": _TRACED,
        "compiled": _TRACED,
    },
    "decoder": {
        "generate": "the decoder has no generate() loop of its own",
        "far": "the cache of a decoder is its own",
    },
    "transformers": {
        "batched": _TOGETHER,
        "uniform": _TOGETHER,
        "permuted": _TOGETHER,
        "mixed": _TOGETHER,
        "verify": _TOGETHER,
        "paged": _PAGES,
        "prefix-paged": _PAGES,
        "far": "the cache of a transformers model is its own",
    },
    "sides": dict.fromkeys(get_args(PathKind), "two sides are compared without a path"),
    "server": {
        "generate": "a server always generates: its paths are decode and batched",
        "chunked": _SCHEDULED,
        "uniform": _SCHEDULED,
        "permuted": _SCHEDULED,
        "mixed": _SCHEDULED,
        "streamed": _SCHEDULED,
        "verify": _SCHEDULED,
        "random": _SCHEDULED,
        "drawn": _SCHEDULED,
        "steps": _SCHEDULED,
        "paged": _OWN_CACHE,
        "prefix-paged": _OWN_CACHE,
        "uncached": _OWN_CACHE,
        "far": _OWN_CACHE,
        "padded": _NO_PADS,
        "padded-left": _NO_PADS,
        "padded-right": _NO_PADS,
        "exported": _NO_PROGRAM,
        "compiled": _NO_PROGRAM,
    },
}
"""Kinds of paths that no subject of a kind can do, and why."""
INSTEAD: Mapping[tuple[str, PathKind], str] = {
    ("decoder", "generate"): "decode",
    ("server", "generate"): "decode",
    ("transformers", "batched"): "padded-left",
    ("transformers", "uniform"): "padded-left",
    ("transformers", "mixed"): "padded-left",
    ("transformers", "permuted"): "padded-left",
}
PROGRAMS = ("exported", "compiled")


def cannot(subject: AnySubject, path: PathName) -> str | None:
    """Why a subject cannot run a path, or None."""
    reason = UNABLE[subject.kind].get(path.kind) or _unwritten(subject, path)
    if reason == _PAGED and isinstance(subject, Attention) and subject.page:
        reason = None
    if isinstance(subject, Attention) and path.kind == "far" and subject.layout in LAID_OUT:
        return f"a cache is laid out anew for each call (layout: {subject.layout}), not far apart"
    if isinstance(subject, Attention) and subject.cross is not None:
        return reason or UNCROSSED.get(path.kind)
    if isinstance(subject, Attention) and not subject.causal and path.kind not in UNCUT:
        return reason or _CUT
    if reason is None and path.kind in PROGRAMS:
        return _untraced(subject, path)
    return reason


def _unwritten(subject: AnySubject, path: PathName) -> str | None:
    """What written steps hold that another path of the subject is refused for, or None."""
    if path.kind != "steps":
        return None
    written, unable = WrittenSteps.parse(path.steps), UNABLE[subject.kind]
    together = any(len(step) > 1 for step in written.steps)
    return (unable.get("paged") if written.page else None) or (
        unable.get("mixed") if together else None
    )


def _untraced(subject: AnySubject, path: PathName) -> str | None:
    if isinstance(subject, Decoder):
        if (subject.attention, subject.operations) != ("fixed-order", "fixed-order"):
            return (
                "a traced program computes with the kernels of this project; here are attention: "
                f"{subject.attention}, operations: {subject.operations}"
            )
    elif isinstance(subject, Transformers):
        if len(set((subject.device_map or {}).values())) > 1:
            return "a traced program lies on one device"
        if subject.attention not in ("eager", "sdpa"):
            return f"attention: {subject.attention} looks at its masks on the host, untraced"
        if subject.cache != "static":
            return "a traced program needs a cache that does not grow; write cache: static"
        if subject.invariant and path.kind == "compiled":
            return "the compiler fuses what invariant: true replaces"
    return None


def able(contract: Parts) -> str:
    """The paths that the contract's subject can do, as they are written."""
    paths = [PathName.parse(example(kind)) for kind in KINDS if kind != "steps"]
    kinds = [path.kind for path in paths if cannot(contract.subject, path) is None]
    return one_of_the_paths([*kinds, "steps"] if "drawn" in kinds else kinds)


def faults(contract: Parts) -> Iterator[Fault]:
    """Paths of checks that the subject cannot do, or that a check cannot look into."""
    for i, check in enumerate(contract.checks):
        if isinstance(check, PathCheck):
            for at, path in _paths(("checks", i), check):
                yield from _fault(contract, at, check, path)


def _paths(at: KeyPath, check: PathCheck) -> Iterator[tuple[KeyPath, PathName]]:
    if check.against is not None:
        yield (*at, "reference"), check.against
    for j, path in enumerate(check.paths):
        yield (*at, "paths", j), path


def _fault(contract: Parts, at: KeyPath, check: PathCheck, path: PathName) -> Iterator[Fault]:
    subject = contract.subject
    reason = cannot(subject, path)
    if reason is not None:
        instead = INSTEAD.get((subject.kind, path.kind), "")
        yield Fault(at, f"found '{path}', but {reason}", able(contract), instead)
        return
    reason = check.blind(subject, path)
    if reason is not None:
        yield Fault(at, f"found '{path}', but {reason}", "a path of single sequences", "decode")
