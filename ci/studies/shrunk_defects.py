"""Faults of attention, each made smaller: does what is left lie beside the edge that matters?

    python ci/studies/shrunk_defects.py            writes docs/results/shrunk-defects.*
    python ci/studies/shrunk_defects.py --stdout   print the table, write nothing

The ten faults of the fault matrix, and others of a pair in torch. Each is planted in decode alone,
verified over three sequences, and shrunk. What Triton's interpreter does not have is computed as
sm_90 does: products in TF32, and the tree that another number of warps gives to sums along a row.
Contraction is planted as what the compiler makes of it: the sound text has a product and a sum
where decode has the fused operation (``tests/harness/relations/audit/test_planted_faults.py`` sees
that the compiled codes are equal).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from study import ROOT

os.environ.setdefault("TRITON_INTERPRET", "1")

from fault_matrix import SOURCES, audit_cases

import kvparity
from kvparity.core.words import some
from kvparity.run.shrink import Shrunk
from kvparity_contracts.subjects import Attention

OUT = ROOT / "docs/results/shrunk-defects"
MOST_S = 60.0
PAIRS = ROOT / "tests/harness/semantic_pairs.py"
ORDERS = ROOT / "tests/harness/relations/order"
KERNELS = "order: {split: 32, tile: 16, block_m: 16}"
READ = "order: {split: 64, tile: 32, block_m: 64}"
"""An order whose sums along a row were read off compiled kernels."""
CONTRACT = """\
version: 1
name: fault
subject:
  kind: attention
  prefill: pair.py:prefill
  decode: pair.py:decode
  heads: {{query: 4, kv: 2, dim: 16}}
  {more}
numerics: {numerics}
workloads:
  - {{name: w, prompt_tokens: [36, 24, 5], generate: 12}}
checks:
  - {{name: decode reduces like prefill, relation: invariance, paths: [{path}]}}
controls: [wrong-input]
"""


@dataclass(frozen=True)
class ShrinkFault:
    """A fault, where it was planted, the text of its pair, and the edge: keys up to which decode is
    right (None: it shows with any keys)."""

    name: str
    planted: str
    text: str
    edge: int | None
    more: str = KERNELS
    path: str = "decode"
    device: str = ""


@dataclass(frozen=True)
class ShrunkRow:
    """What became of a fault."""

    fault: str
    planted: str
    edge: int | None
    keys_before: int
    sequences: int
    query_heads: int
    kv_heads: int
    keys: int
    path: str
    beside: str
    minimal: bool
    passes: bool
    tried: int
    seconds: float

    @property
    def near(self) -> bool:
        """Whether it is as small as a person would make it, in a minute."""
        close = self.edge is None or abs(self.keys - self.edge) <= 2
        small = self.sequences <= 2 and self.kv_heads == 1
        return close and small and self.minimal and self.passes and self.seconds <= MOST_S


def _ordered(change: str) -> str:
    return f"""\
from dataclasses import replace
from kvparity_kernels import attention
prefill = attention.prefill
def decode(*tensors, order, **more):
    return attention.decode(*tensors, order=replace(order, {change}), **more)
"""


def _kernels(file: Path, planted: str = "decode", sound: str = "prefill") -> str:
    return f"""\
import importlib.util
from unittest.mock import patch
from kvparity_kernels import attention
from kvparity_kernels.attention import kernels as _
_spec = importlib.util.spec_from_file_location("planted", {str(file)!r})
_planted = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_planted)
{sound} = attention.{sound}
def {planted}(*tensors, **more):
    with patch.object(attention, "kernels", _planted):
        return attention.{planted}(*tensors, **more)
"""


def _in_torch(change: str) -> str:
    return f"""\
import sys
sys.path.insert(0, {str(ORDERS)!r})
import order_pairs
from order_pairs import How
def prefill(*tensors, **more):
    return order_pairs.prefill(*tensors, how=How(), **more)
def decode(*tensors, **more):
    return order_pairs.decode(*tensors, how=How({change}), **more)
"""


def _semantic(change: str) -> str:
    return f"""\
import importlib.util
_spec = importlib.util.spec_from_file_location("own_pairs", {str(PAIRS)!r})
_pairs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pairs)
prefill = _pairs.prefill
def decode(q, k, v, *, kv_lens, **more):
    lens = kv_lens.clone()
    {change}
    return _pairs.decode(q, k, v, kv_lens=lens, **more)
"""


def faults(folder: Path) -> Iterator[ShrinkFault]:
    """The ten of the fault matrix, and four of a pair in torch."""
    text, own = "text of the kernels", "pair in torch"
    sources = {name: audit_cases.mutate(folder, name, change) for name, change in SOURCES.items()}
    given = "order that decode is given"
    yield ShrinkFault("another tile in decode", given, _ordered("tile=32"), 16)
    yield ShrinkFault("tiles walked from the end", text, _kernels(sources["reversed tiles"]), 16)
    ragged = "split edges that follow the length, which has 4 more slots"
    yield ShrinkFault(ragged, text, _kernels(sources["ragged splits"]), 28)
    shuffled = _in_torch("split=16, shuffled=True")
    yield ShrinkFault("splits merged as they come, with atomics", own, shuffled, 16, "")
    yield ShrinkFault("exp instead of exp2", own, _in_torch("natural=True"), None, "")
    yield ShrinkFault(
        "maximum renewed only when it grows by 8", text, _kernels(sources["lazy maximum"]), 16
    )
    tf32 = audit_cases.mutate(folder, "tf32", *audit_cases.TF32)
    yield ShrinkFault("TF32 products", text, _kernels(tf32), None, device="sm_90")
    unfused = audit_cases.mutate(folder, "unfused", *audit_cases.NAIVE)
    yield ShrinkFault(
        "contraction (fusion) on",
        "text of the kernels: product and sum in prefill, fused in decode",
        _kernels(unfused, "prefill", "decode"),
        16,
        "order: {split: 16, tile: 16, block_m: 16}",
    )
    yield ShrinkFault(
        "another number of warps", given, _ordered("num_warps=8"), 4, READ, device="sm_90"
    )
    yield ShrinkFault(
        "another order where all scores are equal, as a softcap of 1e-9 makes them", own,
        _in_torch("by_data=True"), 2, "softcap: 1.0e-9",
    )  # fmt: skip
    short = _semantic("more['window'] -= more['window'] > 4")
    yield ShrinkFault("a window above 4 is one key short", own, short, 4, "window: 9")
    yield ShrinkFault(
        "the last key of a full split is dropped", own, _semantic("lens[lens % 32 == 0] -= 1"), 32,
        "",
    )  # fmt: skip
    yield ShrinkFault(
        "no softcap from 25 keys on", own,
        _semantic("more['softcap'] *= 1 if int(lens.max()) < 25 else 1e6"), 24, "softcap: 2.0",
    )  # fmt: skip
    yield ShrinkFault(
        "a row among others sees as many keys as the shortest", own,
        _semantic("lens[:] = torch.minimum(lens, lens[lens > 0].min())").replace(
            "import importlib.util\n", "import importlib.util\nimport torch\n"
        ), None, "", "batched",
    )  # fmt: skip


def look(fault: ShrinkFault, folder: Path) -> ShrunkRow:
    """Verify a fault, and make the case that differs smaller."""
    folder.mkdir()
    (folder / "pair.py").write_text(fault.text)
    file = folder / "fault.yaml"
    numerics = "{execution: float32%s}" % (f", device: {fault.device}" if fault.device else "")
    file.write_text(CONTRACT.format(more=fault.more, path=fault.path, numerics=numerics))
    report = kvparity.verify(file, run_dir=folder / "run", device="cpu", jobs=1)
    case = next(each for each in report.cases if each.verdict == "differs")
    began = time.monotonic()
    found = kvparity.shrink(folder / "run", case.id, device="cpu", budget=MOST_S)
    return _row(fault, found, time.monotonic() - began)


def _row(fault: ShrinkFault, found: Shrunk, seconds: float) -> ShrunkRow:
    assert found.smallest is not None
    subject = found.smallest.contract.subject
    assert isinstance(subject, Attention)
    heads, path = subject.heads, found.smallest.path
    count = len(found.smallest.workload.lengths())
    if path.kind == "steps":  # with its strangers
        count = len({piece.partition(":")[0] for piece in path.steps.split() if ":" in piece})
    return ShrunkRow(
        fault=fault.name,
        planted=fault.planted + (f", as {fault.device}" if fault.device else ""),
        edge=fault.edge,
        keys_before=found.start.keys,
        sequences=count,
        query_heads=heads.query,
        kv_heads=heads.kv,
        keys=found.smallest.keys,
        path=str(path),
        beside=found.edge,
        minimal=found.minimal,
        passes=found.passing is not None,
        tried=found.tried,
        seconds=round(seconds, 1),
    )


def render(rows: list[ShrunkRow]) -> str:
    """The page."""
    lines = [
        "| fault in decode | planted in | edge | smallest case | beside it | cases tried | s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        edge = "any keys" if row.edge is None else f"{row.edge} keys"
        shape = f"{some(row.sequences, 'sequence')}, {row.keys} keys, "
        shape += f"{row.query_heads} of {row.kv_heads} heads, `{row.path}`"
        mark = "" if row.near else " **not within the bounds**"
        lines.append(
            f"| {row.fault} | {row.planted} | {edge} | {shape}{mark} | {row.beside} | {row.tried} "
            f"| {row.seconds:g} |"
        )
    return f"""# Faults of attention, made smaller

Written by `python ci/studies/shrunk_defects.py` from a run: float32 on a CPU, in Triton's interpreter where kernels run, or with the products and sums of a device where a row says so. Each fault is planted in decode alone and seen over three sequences of 36, 24 and 5 tokens of prompt, 12 generated, with 4 query heads of 2 KV heads of 16; [`kvparity shrink`](../shrink.md) then takes away what does not matter. Sequences are those of the workload; `batched` has fillers beside them. **edge**: up to so many keys decode is right. Every case is 1-minimal, has at most two sequences and one group of heads, lies within two keys of the edge, stands beside one that passes, and took at most {MOST_S:g} s, unless the row says otherwise. [All of it](shrunk-defects.json).

{chr(10).join(lines)}

The first ten are those of the [fault matrix](fault-matrix.md), planted so that they change bits here. TF32 products and another number of warps do so as [sm_90 computes](../device-numerics.md): the second changes the tree of the sums along a row, which was read off compiled kernels. What the compiler makes of contraction is the fused operation in the text: both compile to the same floating-point instructions, each as often. Scores that are all equal show in no random data; a softcap of 1e-9 makes all weights 1.
"""  # noqa: E501 - Markdown


def main() -> int:
    """Run all, write or print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--stdout", action="store_true", help="print the table, write nothing")
    options.add_argument("--only", nargs="+", metavar="FAULT", help="with --stdout: these alone")
    asked = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, fault in enumerate(faults(folder)):
            if asked.only and fault.name not in asked.only:
                continue
            rows.append(look(fault, folder / f"f{number}"))
            print(rows[-1], file=sys.stderr, flush=True)
    if asked.stdout:
        print(render(rows))
        return 0
    OUT.with_suffix(".json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    OUT.with_suffix(".md").write_text(render(rows))
    return 0 if all(row.near for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
