"""Paths that a pair of kernels asks for: steps of a few rows, sequences that change their pages."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity_contracts.base import KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.idling import idle, why_idle
from kvparity_contracts.paths import PathName
from kvparity_contracts.subjects import Attention

FEW = range(2, 9)
"""Rows of a step for which engines have kernels of their own: drafted tokens and the one before."""


def few_rows(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """Of a pair with a window: no path whose steps have a few rows, each with its own window.

    A kernel that gave all rows of such a step the window of the last one was shipped
    (flashinfer-ai/flashinfer#3864). Chunks reach it where prefill takes such steps, drafts in any
    pair.
    """
    subject = contract.subject
    if not isinstance(subject, Attention) or subject.window is None or not subject.causal:
        return
    for check in contract.path_checks:
        paths = [each for each in check.paths if _few(each, subject)]
        loads = contract.workloads_of(check)
        if any(why_idle(p, each) is None and not idle(p, each) for p in paths for each in loads):
            return
    if all(max(each.totals()) <= subject.window for each in contract.workloads):
        return  # nothing is hidden, whatever the window begins with
    yield (
        ("subject", "window"),
        f"no step has {FEW[0]} to {FEW[-1]} rows behind a longer cache, as speculative decoding "
        "verifies drafted tokens, so nothing shows whether each row has a window of its own there; "
        "verify(3) would",
    )


MOVING = ("reset", "prefix-paged")
"""Paths on which a sequence comes to lie in other pages than before."""


def moved_pages(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """Of a pair over pages: no path on which a block table changes for as many pages.

    Tables are kept where a graph is captured or a call is planned. What is kept by row and number
    of pages is right on all other paths, where no sequence moves.
    """
    subject = contract.subject
    if not isinstance(subject, Attention) or subject.page is None:
        return
    if any(path.kind in MOVING for check in contract.path_checks for path in check.paths):
        return
    yield (
        ("subject", "page"),
        "no path moves a sequence to other pages, so nothing shows whether decode keeps the block "
        "table of an earlier call for as many pages; reset would",
    )


def _few(path: PathName, subject: Attention) -> bool:
    """Whether steps of a path have a few rows, computed by what computes those of drafts."""
    if path.kind == "verify":
        return (path.argument or 0) + 1 in FEW
    return path.kind == "chunked" and path.argument in FEW and subject.rows == "one"
