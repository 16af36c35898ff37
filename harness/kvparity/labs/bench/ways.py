"""Every way of computing a case: ours, and those that it is timed against."""

from __future__ import annotations

import torch

from kvparity.labs.bench import attention, steps
from kvparity.labs.bench.calls import ORDER, OURS, PLAIN, Calls, TileChoice, drawn, with_tiles
from kvparity.labs.bench.cases import ModelShape, TimedCase
from kvparity_kernels.linear import linear
from kvparity_kernels.logprob import logprob


def calls(case: TimedCase, shape: ModelShape, device: str, choice: TileChoice = PLAIN) -> Calls:
    """All ways of computing ``case``, on inputs of their own; ours comes first."""
    make = {
        "decode": attention.decode,
        "prefill": attention.prefill,
        "chunked": attention.prefill,
        "linear": _linear,
        "logprob": _logprob,
        "step": steps.step,
    }
    return make[case.what](case, shape, device, choice)


def _linear(case: TimedCase, shape: ModelShape, device: str, choice: TileChoice) -> Calls:
    rows = case.size("rows")
    x = drawn(shape, device, rows, case.size("k"))
    w = drawn(shape, device, case.size("n"), case.size("k"))
    ours = with_tiles(
        lambda: linear(x, w, None, order=ORDER),
        choice,
        lambda tiles: tiles.linear_tile(rows, ORDER),
    )
    return {**ours, "torch": lambda: torch.nn.functional.linear(x, w)}


def _logprob(case: TimedCase, shape: ModelShape, device: str, choice: TileChoice) -> Calls:
    rows, vocab = case.size("rows"), case.size("vocab")
    logits = torch.randn(rows, vocab, device=device)
    targets = torch.randint(vocab, (rows,), device=device)
    return {
        OURS: lambda: logprob(logits, targets, 1.0),
        "torch": lambda: torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0],
    }
