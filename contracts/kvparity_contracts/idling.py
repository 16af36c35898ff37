"""Paths that show nothing in a workload: they decode nothing, or run the steps of another path."""

from __future__ import annotations

from kvparity_contracts.checks import PathCheck
from kvparity_contracts.paths import DECODE, MOST, PREFILL, PathKind, PathName
from kvparity_contracts.workloads import Workload

ALONE = PathName("batched", 1)
UNDECODED: tuple[PathKind, ...] = ("decode", "generate", "mixed", "exported", "compiled", "drawn")
"""Paths that are named for decoding and do none where one token is generated."""


def idle(path: PathName, workload: Workload) -> bool:
    """Whether no sequence of the workload is long enough to make the path one of its own."""
    if path.argument is None:
        return False
    if path.kind == "chunked":
        return max(workload.totals()) <= path.argument
    if path.kind in ("streamed", "prefix", "prefix-paged"):
        return max(workload.lengths()) <= path.argument
    return False


def why_idle(path: PathName, workload: Workload) -> str | None:
    """Why a path would show nothing in a workload, whatever it is compared with."""
    if workload.generate == 1 and path.kind in UNDECODED:
        return "the one token comes from the prompt's own step: nothing is decoded"
    if path.kind == "verify" and workload.generate < 3:
        return "no step has a second row: at least 3 tokens have to be generated"
    if path.kind == "streamed" and idle(path, workload):
        return f"every prompt fits into one chunk of {path.argument}: it is decode"
    if path.kind in ("prefix", "prefix-paged") and idle(path, workload):
        return f"no prompt goes on behind its first {path.argument} tokens"
    return None


def same_steps(one: PathName, other: PathName, workload: Workload) -> bool:
    """Whether two paths run the same steps over a workload."""
    return _plain(one, workload) == _plain(other, workload)


def _plain(path: PathName, workload: Workload) -> PathName:
    """The path without an argument whose steps it runs here, or itself."""
    if path == ALONE:
        return DECODE
    if path.kind == "verify":  # no step has more rows than there are tokens to compute
        rows = min(path.argument or 0, max(workload.generate - 2, 1))
        return PathName("verify", rows) if workload.generate > 1 else PathName("batched")
    if not idle(path, workload):
        return path
    if path.kind == "chunked":
        return PREFILL
    if path.kind == "prefix-paged":  # its pages alone are left, and one sequence has no neighbours
        alone = len(workload.lengths()) == 1
        return PathName("paged", path.page) if alone else PathName("prefix-paged", MOST)
    return DECODE if path.kind in ("streamed", "prefix") else path


def runs(path: PathName, check: PathCheck, workload: Workload) -> bool:
    """Whether a path of a check shows anything in a workload."""
    if why_idle(path, workload) is not None:
        return False
    return check.against is None or not same_steps(path, check.against, workload)
