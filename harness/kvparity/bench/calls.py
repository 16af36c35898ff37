"""Every way of computing a case, as functions without arguments over fresh random data.

``ours`` is this project's kernel as it is used; a way whose name begins so is a variant of it.
The others compute the same numbers in whatever order they like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvparity.bench.cases import Case, Shape
from kvparity_kernels.linear import linear
from kvparity_kernels.logprob import logprob
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, Tiles, using

Call = Callable[[], Tensor]
Calls = dict[str, Call]
OURS = "ours"
ORDER = ReductionOrder()


@dataclass(frozen=True)
class Choice:
    """The tiles of ours, and others of the same bits that are timed beside them, by name."""

    tiles: Tiles = BASE
    beside: Mapping[str, Tiles] = field(default_factory=dict)


def is_ours(name: str) -> bool:
    """Whether a way is this project's kernel or a variant of it."""
    return name == OURS or name.startswith(f"{OURS} ")


def calls(case: Case, shape: Shape, device: str, choice: Choice = Choice()) -> Calls:
    """All ways of computing ``case``, on inputs of their own; ours comes first."""
    from kvparity.bench import attention, steps

    make = {
        "decode": attention.decode,
        "prefill": attention.prefill,
        "chunked": attention.prefill,
        "linear": _linear,
        "logprob": _logprob,
        "step": steps.step,
    }
    return make[case.what](case, shape, device, choice)


def drawn(shape: Shape, device: str, *sizes: int) -> Tensor:
    """Random numbers of the shape's format."""
    return torch.randn(*sizes, device=device).to(getattr(torch, shape.dtype))


def tiled(call: Call, tiles: Tiles) -> Call:
    """``call`` under these tiles."""

    def under() -> Tensor:
        with using(tiles):
            return call()

    return under


def with_tiles(call: Call, choice: Choice, matters: Callable[[Tiles], object]) -> Calls:
    """``ours``, and ``ours [name]`` for the tiles beside that change what ``matters``."""
    others = {
        f"{OURS} [{name}]": tiled(call, tiles)
        for name, tiles in choice.beside.items()
        if matters(tiles) != matters(choice.tiles)
    }
    return {OURS: tiled(call, choice.tiles), **others}


def _linear(case: Case, shape: Shape, device: str, choice: Choice) -> Calls:
    rows = case.size("rows")
    x = drawn(shape, device, rows, case.size("k"))
    w = drawn(shape, device, case.size("n"), case.size("k"))
    ours = with_tiles(
        lambda: linear(x, w, None, order=ORDER),
        choice,
        lambda tiles: tiles.linear_tile(rows, ORDER),
    )
    return {**ours, "torch": lambda: torch.nn.functional.linear(x, w)}


def _logprob(case: Case, shape: Shape, device: str, choice: Choice) -> Calls:
    rows, vocab = case.size("rows"), case.size("vocab")
    logits = torch.randn(rows, vocab, device=device)
    targets = torch.randint(vocab, (rows,), device=device)
    return {
        OURS: lambda: logprob(logits, targets, 1.0),
        "torch": lambda: torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0],
    }
