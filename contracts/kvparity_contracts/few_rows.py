"""Steps of a few rows behind a long cache, as speculative decoding runs them."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity_contracts.base import KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.idling import idle
from kvparity_contracts.subjects import Attention

FEW = range(2, 9)
"""Rows of a step for which engines have kernels of their own: drafted tokens and the one before."""


def few_rows(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """Of a pair with a window: no path whose steps have a few rows, each with its own window.

    A kernel that gave all rows of such a step the window of the last one was shipped
    (flashinfer-ai/flashinfer#3864). Chunks reach it where prefill takes such steps; where it is
    decode that takes several rows, no path does yet.
    """
    subject = contract.subject
    if not isinstance(subject, Attention) or subject.window is None or not subject.causal:
        return
    for check in contract.path_checks:
        chunks = [p for p in check.paths if p.kind == "chunked" and p.argument in FEW]
        loads = contract.workloads_of(check)
        if any(not idle(path, each) for path in chunks for each in loads):
            return
    if all(max(each.totals()) <= subject.window for each in contract.workloads):
        return  # nothing is hidden, whatever the window begins with
    yield (
        ("subject", "window"),
        f"no step has {FEW[0]} to {FEW[-1]} rows behind a longer cache, as speculative decoding "
        "verifies drafted tokens, so nothing shows whether each row has a window of its own there; "
        "chunked(4) would, where prefill computes such steps (a decode of several rows is not "
        "part of the signature of a pair yet)",
    )
