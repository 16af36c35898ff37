"""How much a reduction order costs to recover: here, and by FPRev one probe at a time.

    python ci/studies/bench_order.py --sizes 128,512,2048 --json docs/results/order-probing.json

The plain side is written from the description of the published algorithm (Xie et al., FPRev, 2024):
the least term of a set is paired with every other, one call of the function for each pair; equal
sizes make a group, and each group is done likewise. Both sides send the same numbers through the
same function at the same shape. Where the plain side would take longer than ``--cap`` seconds it is
stopped, and its launches, which the tree determines, are counted and its seconds extrapolated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

for package in ("harness", "kernels", "contracts"):
    sys.path.insert(0, str(Path(__file__).parents[2] / package))
os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np  # noqa: E402 - after the paths
import torch  # noqa: E402

from kvparity.core.environment import cpu_model, versions  # noqa: E402
from kvparity.relations.order import SumOracle, SumTree, certify, recover  # noqa: E402
from kvparity.relations.order.keys import KeyOrder  # noqa: E402
from kvparity.relations.order.recover import Oracle  # noqa: E402
from kvparity.relations.order.sides import Side  # noqa: E402
from kvparity.subjects.pair.model import HeadCounts, Pair  # noqa: E402
from kvparity.subjects.pair.subject import AttentionSubject  # noqa: E402
from kvparity.subjects.pair.torch_sdpa import pair as sdpa  # noqa: E402

HEADS = HeadCounts(8, 8, 64)


@dataclass(frozen=True)
class ProbeRow:
    """One function at one size. Seconds are of one run each."""

    function: str
    n: int
    fprev_launches: int
    fprev_seconds: float
    fprev_estimated: bool
    recover_launches: int
    recover_probes: int
    recover_seconds: float
    certify_launches: int
    certify_seconds: float
    same_tree: bool | None


class OutOfTime(Exception):  # noqa: N818 - it is a limit, not a fault
    """The cap is reached; carries the number of probes that were done."""


def fprev(oracle: Oracle, cap: float) -> SumTree:
    """The published algorithm, one probe after the other, with a stack instead of recursion."""
    nodes: list[list[int]] = []
    begun, asked = time.perf_counter(), 0
    # A set of terms, and the node that its top joins.
    todo: list[tuple[list[int], int | None]] = [(list(range(oracle.n)), None)]
    while todo:
        terms, parent = todo.pop()
        top, inside = terms[0], 1
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for other in terms[1:]:
            if time.perf_counter() - begun > cap:
                raise OutOfTime(asked)
            groups[int(oracle(np.array([[terms[0], other]]))[0])].append(other)
            asked += 1
        for size in sorted(groups):
            if inside + len(groups[size]) != size:
                raise ValueError("a fused node; the plain side does plain additions only")
            nodes.append([top])
            top, inside = oracle.n + len(nodes) - 1, size
            todo.append((groups[size], top))
        if parent is not None:
            nodes[parent - oracle.n].append(top)
    return SumTree.build(oracle.n, nodes)


def fprev_launches(tree: SumTree) -> int:
    """How many probes ``fprev`` asks of a binary tree."""
    cost, beside = [0] * tree.n, [0] * tree.n
    for t, node in enumerate(tree.nodes):
        beside.append(beside[node[0]] + sum(cost[c] for c in node[1:]))
        cost.append(tree.sizes[tree.n + t] - 1 + beside[-1])
    return cost[-1]


def sums(n: int, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[bool], Oracle]:
    """An oracle of a reduction of rows; alone: a row for each call."""
    return lambda alone: SumOracle(function, n, batch=1 if alone else 4096)


def attention(n: int, pair: Pair) -> Callable[[bool], Oracle]:
    """An oracle of a decode kernel's key order. Its shape is the same alone."""
    subject = AttentionSubject(
        pair, HEADS, HEADS.dim**-0.5, torch.float32, torch.float32, torch.device("cpu"), 0
    )
    return lambda alone: KeyOrder(Side(subject, "decode", keys=n, batch=1, rows=1))


def functions(n: int) -> dict[str, Callable[[bool], Oracle]]:
    """What is measured."""
    from kvparity_kernels.attention import decode, prefill

    ones = torch.ones(n, 2)
    return {
        "numpy sum": sums(n, lambda x: torch.from_numpy(x.numpy().sum(1))),
        "torch sum": sums(n, lambda x: x.sum(1)),
        "torch matmul": sums(n, lambda x: (x @ ones)[:, 0]),
        "SDPA decode": attention(n, sdpa("math")),
        "Triton decode": attention(n, Pair.of(prefill, decode, "prefill", "decode")),
    }


def measure(name: str, n: int, make: Callable[[bool], Oracle], cap: float) -> ProbeRow:
    """Both sides of one function at one size."""
    warm = make(False)
    warm(np.array([[0, 1]]))
    tree, found = recover(make(False))
    certificate = certify(make(False), tree)
    if not certificate.holds:
        raise SystemExit(f"{name}, n={n}: {certificate.seen}")
    plain = make(True)
    plain(np.array([[0, 1]]))
    begun = time.perf_counter()
    same: bool | None
    try:
        same, estimated = fprev(plain, cap) == tree, False
        seconds, launches = time.perf_counter() - begun, plain.launches - 1
    except OutOfTime as stopped:
        done = max(int(stopped.args[0]), 1)
        same, estimated, launches = None, True, fprev_launches(tree)
        seconds = (time.perf_counter() - begun) / done * launches
    return ProbeRow(
        name, n, launches, seconds, estimated, found.launches, found.probes, found.seconds,
        certificate.stats.launches, certificate.stats.seconds, same,
    )  # fmt: skip


def table(rows: list[ProbeRow]) -> str:
    """Markdown."""
    lines = [
        "| function | n | FPRev launches | s | recover launches | s | certify launches | s "
        "| recover: fewer launches, time | certify: fewer launches, time |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        about = "≈ " if r.fprev_estimated else ""
        lines.append(
            f"| {r.function} | {r.n} | {r.fprev_launches} | {about}{r.fprev_seconds:.3g} "
            f"| {r.recover_launches} | {r.recover_seconds:.3g} "
            f"| {r.certify_launches} | {r.certify_seconds:.3g} "
            f"| {r.fprev_launches / r.recover_launches:.0f}×, "
            f"{r.fprev_seconds / r.recover_seconds:.1f}× "
            f"| {r.fprev_launches / r.certify_launches:.0f}×, "
            f"{r.fprev_seconds / r.certify_seconds:.1f}× |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table; write everything as JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="128,512,2048", metavar="N,…")
    parser.add_argument("--cap", type=float, default=60.0, metavar="S", help="for the plain side")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n in map(int, args.sizes.split(",")):
        for name, make in functions(n).items():
            rows.append(measure(name, n, make, args.cap))
            print(f"{name} n={n}: done", file=sys.stderr)
    print(table(rows))
    facts = {
        "command": f"python ci/studies/bench_order.py --sizes {args.sizes} --cap {args.cap:g}",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "platform": platform.platform(),
        "versions": versions(),
        "threads": 1,
        "heads": asdict(HEADS),
        "triton": "interpreter",
    }
    if args.json:
        rows_json = [asdict(row) for row in rows]
        args.json.write_text(json.dumps({"machine": facts, "rows": rows_json}, indent=1) + "\n")


if __name__ == "__main__":
    main()
