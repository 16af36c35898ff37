"""Plant faults in attention and run every relation: which sees which.

    python ci/studies/fault_matrix.py            write docs/results/fault-matrix.json and .md
    python ci/studies/fault_matrix.py --stdout   print the table, write nothing

Bits and orders are looked at in Triton's interpreter, on this CPU; the audit compiles for sm_90 and
runs nothing. Faults are planted in decode alone, in the text of this project's kernels where the
fault has the same mathematics there, else in the pair in torch that the order tests use.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict
from unittest.mock import patch

from study import ROOT, write

OUT = ROOT / "docs" / "results" / "fault-matrix"
_FOLDERS = (
    "harness",
    "kernels",
    "contracts",
    "ci/docs",
    "tests/harness/relations/order",
    "tests/harness/relations/audit",
)
sys.path[:0] = [str(ROOT / name) for name in _FOLDERS]
os.environ["TRITON_INTERPRET"] = "1"

import audit_cases  # noqa: E402 - the path and the mode come first
import order_pairs  # noqa: E402
import torch  # noqa: E402
from commands import table  # noqa: E402

from kvparity.plan.paths import build  # noqa: E402
from kvparity.plan.workload import Prompts  # noqa: E402
from kvparity.record.execute import run  # noqa: E402
from kvparity.relations.audit.compare import KernelComparison  # noqa: E402
from kvparity.relations.audit.side import audit  # noqa: E402
from kvparity.relations.bits_and_limits import invariance  # noqa: E402
from kvparity.relations.order import order_report  # noqa: E402
from kvparity.subjects.pair.callables import Kernel  # noqa: E402
from kvparity.subjects.pair.model import Pair  # noqa: E402
from kvparity.subjects.pair.subject import AttentionSubject  # noqa: E402
from kvparity_contracts import PathName  # noqa: E402
from kvparity_kernels import attention  # noqa: E402
from kvparity_kernels.attention import kernels as _  # noqa: E402, F401 - patched below
from kvparity_kernels.order import ReductionOrder  # noqa: E402

PROMPT, GENERATED = 36, 12  # decodes with 36 .. 47 keys: over tile and split edges
KEYS = 40
ORDER = ReductionOrder(split=32, tile=16)
SPLITS = "i * SPLIT, kv_len, scale,"
RAGGED = (
    "i * tl.cdiv(kv_len, splits), tl.minimum(kv_len, (i + 1) * tl.cdiv(kv_len, splits)), scale,"
)
SOURCES = {
    "reversed tiles": (
        "key = first + i * TILE + lane",
        "key = first + (SPLIT - TILE - i * TILE) + lane",
        1,
    ),
    "ragged splits": (SPLITS, RAGGED, 2),
    "lazy maximum": (
        "top = tl.maximum(m, tl.max(s, 1))",
        "most = tl.maximum(m, tl.max(s, 1)); top = tl.where(most - m > 8.0, most, m)",
        1,
    ),
}
"""Changes of the kernels' text that the tests of the audit do not have already."""


class BitsSaw(TypedDict):
    """What a comparison of rows saw."""

    seen: bool
    rows: int
    differ: int


class OrderSaw(TypedDict):
    """What the order report saw: parts that differ, and sides whose tree does not replay."""

    seen: bool
    parts: list[str]
    replay: list[str]


class AuditSaw(TypedDict):
    """What the audit saw."""

    seen: bool
    verdict: str
    fields: list[str]


class FaultRow(TypedDict):
    """A fault with what each relation saw of it; None: it cannot look."""

    fault: str
    planted: str
    bits: BitsSaw | None
    order: OrderSaw | None
    audit: AuditSaw | None


@dataclass(frozen=True)
class PlantedFault:
    """``pair``: what runs on the CPU; ``compiled``: what is audited. None: it has no such form."""

    name: str
    where: str
    pair: Pair | None
    order: ReductionOrder | None
    compiled: audit_cases.Pair | None


def faults(folder: Path) -> list[PlantedFault]:
    """All faults; changed texts of the kernels are written into ``folder``."""
    known = audit_cases.plant(folder)
    prefill, decode = audit_cases.pair("sm_90")
    texts = {name: audit_cases.mutate(folder, name, change) for name, change in SOURCES.items()}

    def text(name: str, path: Path, compiled: audit_cases.Pair | None = None) -> PlantedFault:
        pair = Pair.of(attention.prefill, _from(path), "prefill", "decode")
        compiled = compiled or (prefill, replace(decode, source=path))
        return PlantedFault(name, "text of the kernels", pair, ORDER, compiled)

    def option(name: str, key: str, **changes: int) -> PlantedFault:
        pair = Pair.of(attention.prefill, _with(**changes), "prefill", "decode")
        return PlantedFault(name, "order that decode is given", pair, ORDER, known[key].faulty)

    def torch_pair(name: str, key: str | None, **changes: int) -> PlantedFault:
        compiled = None if key is None else known[key].faulty
        where = "pair in torch" if key is None else "pair in torch; text of the kernels"
        return PlantedFault(name, where, order_pairs.pair(**changes), None, compiled)

    tf32, unfused = known["tf32"].faulty, known["fusion"].sound
    fusion = (unfused[0], replace(unfused[1], fusion=True))
    assert tf32[1].source is not None
    own = Pair.of(attention.prefill, attention.decode, "prefill", "decode")
    return [
        PlantedFault("none", "–", own, ORDER, (prefill, decode)),
        option("another tile in decode", "tile", tile=32),
        text("tiles walked from the end", texts["reversed tiles"]),
        text("split edges that follow the length", texts["ragged splits"]),
        torch_pair("splits merged as they come, with atomics", "atomics", split=16, shuffled=True),
        text("TF32 products", tf32[1].source, tf32),
        PlantedFault("contraction (fusion) on", "option of the compiler", None, None, fusion),
        option("another number of warps", "num_warps", num_warps=8),
        torch_pair("exp instead of exp2", "exp", natural=True),
        text("maximum renewed only when it grows by 8", texts["lazy maximum"]),
        torch_pair("another order where all scores are equal", None, by_data=True),
    ]


def _from(path: Path) -> Kernel:
    """Decode with another text of the kernels."""
    spec = importlib.util.spec_from_file_location(f"planted_{path.stem.replace(' ', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def decode(*tensors: torch.Tensor, **more: Any) -> object:
        with patch.object(attention, "kernels", module):
            return attention.decode(*tensors, **more)

    return decode


def _with(**changes: int) -> Kernel:
    def decode(*tensors: torch.Tensor, order: ReductionOrder, **more: Any) -> object:
        return attention.decode(*tensors, order=replace(order, **changes), **more)

    return decode


def bits(subject: AttentionSubject) -> BitsSaw:
    """Decode against prefill on random data, as an invariance check compares them."""
    prompts = Prompts("w", ("w/0",), ((0,) * PROMPT,), generate=GENERATED)
    records = [
        run(subject, build(PathName(path), prompts, seed=0), [[0] * (PROMPT + GENERATED)],
            temperatures=(1.0,))
        for path in ("prefill", "decode")
    ]  # fmt: skip
    found = invariance(*records, column=None)
    return {
        "seen": found.outcome == "differs",
        "rows": found.tokens,
        "differ": found.differing_rows,
    }


def order(subject: AttentionSubject) -> OrderSaw:
    """The order report, without its random calls: those are bits."""
    report = order_report(subject, KEYS, rows=2, draws=1)
    other = ("different", "undeclared", "not-a-tree")
    parts = [part.name for part in report.parts if part.status in other]
    unfit = [done.side for done in report.replayed if not done.complete]
    return {"seen": bool(parts or unfit), "parts": parts, "replay": unfit}


def compiled(found: KernelComparison) -> AuditSaw:
    """What the audit says; ``unknown`` is no clean bill, and no finding."""
    named = [] if found.verdict == "same" else [each.name for each in found.deciding]
    return {"seen": found.verdict == "different", "verdict": found.verdict, "fields": named}


def look(fault: PlantedFault) -> tuple[BitsSaw | None, OrderSaw | None]:
    """What bits and order see of a fault, on this CPU."""
    order_pairs.CALLS[0] = 0
    if fault.pair is None:
        return None, None
    subject = replace(order_pairs.subject(fault.pair), order=fault.order)
    return bits(subject), order(subject)


def matrix(folder: Path, cache: Path | None = None) -> list[FaultRow]:
    """All faults with what each relation sees; ``cache``: where compiled kernels are kept."""
    rows = faults(folder)
    pairs = [fault.compiled for fault in rows if fault.compiled is not None]
    audited = iter(audit(pairs, folder=cache))
    found: list[FaultRow] = []
    for fault in rows:
        differing, other_order = look(fault)
        found.append(
            {
                "fault": fault.name,
                "planted": fault.where,
                "bits": differing,
                "order": other_order,
                "audit": None if fault.compiled is None else compiled(next(audited)),
            }
        )
    return found


def render(rows: list[FaultRow]) -> str:
    """The table as a page."""
    head = ["fault in decode", "planted in", "bits", "order", "audit"]
    lines = table(head, ([row["fault"], row["planted"], *_cells(row)] for row in rows))
    return f"""# Which relation sees which fault

Written by `python ci/studies/fault_matrix.py` from a run: float32 on a CPU, the audit for sm_90. Each fault is planted in decode alone. **bits**: {GENERATED} rows of decode against prefill, as an invariance check compares them. **order**: probes at {KEYS} keys, without the report's own random calls. **audit**: the compiled kernels of both; it runs nothing.

{lines}

Of the 12 rows the first comes from the prompt, so 11 are decoded. What the interpreter does not have (TF32, contraction, warps) neither bits nor order can see on a CPU; on a GPU they run the compiled kernels. What the audit does not look at (addresses, trip counts) only they can. An order that changes where all scores are equal shows in no random data. So no relation stands for another.
"""  # noqa: E501 - Markdown


def _cells(row: FaultRow) -> list[str]:
    """What each relation saw, in words; a dash where it cannot look."""
    bits, order, audit = row["bits"], row["order"], row["audit"]
    cells = ["–"] * 3
    if bits is not None:
        told = f"seen: {bits['differ']} of {bits['rows']} rows"
        cells[0] = told if bits["seen"] else "not seen"
    if order is not None:
        words = ", ".join([*order["parts"], *(f"replay of {side}" for side in order["replay"])])
        cells[1] = f"seen: {words}" if order["seen"] else "not seen"
    if audit is not None:
        words = ", ".join(audit["fields"])
        verdicts = {"same": "not seen", "different": f"seen: {words}"}
        cells[2] = verdicts.get(audit["verdict"], f"{audit['verdict']}: {words}")
    return cells


def main() -> int:
    """Run all, write or print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--stdout", action="store_true", help="print the table, write nothing")
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = matrix(Path(folder))
    if given.stdout:
        print(render(rows))
        return 0
    write(OUT.with_suffix(".json"), rows)
    OUT.with_suffix(".md").write_text(render(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
