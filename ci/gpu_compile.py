"""Compile every kernel that the steps of ci/gpu launch.

    python ci/gpu_compile.py               for the device that is here; its cache is warm then
    python ci/gpu_compile.py sm_80 sm_90   for GPUs that need not be here

The wrappers run on tensors without data, up to the launch; from there Triton compiles as it does
at a launch (``warmup``), in several processes. One JSON document is printed last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "ci", "tests/gpu")]
os.environ["TRITON_INTERPRET"] = "0"

import device_cases as tests  # noqa: E402 - the path and the mode come first
import device_rules as layers  # noqa: E402
import torch  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.driver import driver  # noqa: E402

from kvparity.audit.request import ARCHITECTURES, Request, Shape  # noqa: E402
from kvparity.audit.worker import launches as attention_launches  # noqa: E402
from kvparity.bench.calls import OURS, calls  # noqa: E402
from kvparity.bench.cases import SHAPES, cases  # noqa: E402
from kvparity.bench.measure import SPLIT  # noqa: E402
from kvparity.decoder.config import DecoderConfig  # noqa: E402
from kvparity.decoder.presets import preset  # noqa: E402
from kvparity.decoder.seeded import seeded  # noqa: E402
from kvparity.schedule import Layout, Member, Span  # noqa: E402
from kvparity.subjects.decoder import DecoderSubject  # noqa: E402
from kvparity_contracts import find, load  # noqa: E402
from kvparity_contracts.subjects import Attention, Decoder  # noqa: E402
from kvparity_kernels import launch as launcher  # noqa: E402
from kvparity_kernels.digest import row_digest  # noqa: E402
from kvparity_kernels.order import ReductionOrder  # noqa: E402

Launch = tuple[Any, dict[str, Any]]
MOST_PROCESSES = 8  # each holds a context of the device
DEFAULT = ReductionOrder()
HEAD_NAMES = ("num_attention_heads", "num_key_value_heads", "head_dim")  # of transformers


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Note what would be launched instead of launching it."""
    seen: list[Launch] = []
    real = launcher.launch

    def note(kernel: Any, grid: Any, /, *values: Any, num_warps: int = 4, num_stages: int = 2,
             **named: Any) -> None:  # fmt: skip
        arguments = {**dict(zip(kernel.parameters, values, strict=False)), **named}
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}
        seen.append((kernel, arguments | options))

    launcher.launch = note
    try:
        yield seen
    finally:
        launcher.launch = real


def attention(
    shape: Shape, order: ReductionOrder = DEFAULT, decode: ReductionOrder | None = None
) -> Iterator[Launch]:
    """Prefill and decode of one shape."""
    yield from attention_launches(Request("prefill", "sm_90", shape, order))
    yield from attention_launches(Request("decode", "sm_90", shape, decode or order))


def contract(name: str) -> Iterator[Launch]:
    """Every format and page size of a contract; of a decoder, every operation."""
    asked = load(find(name)).contract
    subject, formats = asked.subject, asked.numerics.formats()
    order = ReductionOrder(**subject.order.model_dump()) if subject.order else DEFAULT
    if isinstance(subject, Decoder):
        config = preset(subject.preset or "")
        heads = (config.heads, config.kv_heads, config.head_dim)
        for execution, cache in formats:
            yield from decoder(config, order, execution, cache)
    elif isinstance(subject, Attention):
        heads = (subject.heads.query, subject.heads.kv, subject.heads.dim)
        yield from digests((heads[2] + 1) * heads[0])  # a row of out, and its LSE
    else:
        sizes = subject.config or {}
        heads = tuple(sizes[name] for name in HEAD_NAMES)
        yield from digests(sizes["vocab_size"])
        if subject.attention != "kvparity":
            return  # kernels of others
    paths = [path for check in asked.checks for path in getattr(check, "paths", ())]
    pages = {0} | {path.argument for path in paths if path.kind == "paged"}
    for (execution, cache), page in product(formats, sorted(pages)):
        yield from attention(Shape(*heads, execution, cache, page), order)
    # Planted defects: halved splits and tiles, and pages of one slot.
    first = Shape(*heads, *formats[0])
    yield from attention(first, replace(order, split=max(order.tile, order.split // 2)))
    yield from attention(first, replace(order, tile=order.tile // 2))
    yield from attention(replace(first, page=1), order)


def digests(width: int) -> Iterator[Launch]:
    """The digest of float32 rows."""
    with recorded() as seen:
        row_digest(torch.zeros(1, width, device="meta"))
    yield from seen


def decoder(
    config: DecoderConfig, order: ReductionOrder, execution: str, cache: str
) -> Iterator[Launch]:
    """One layer of a decoder without weights, its head, its logprobs and their digests."""
    config = replace(config, layers=1)
    weights = seeded(config, 0, getattr(torch, execution), torch.device("meta"))
    subject = DecoderSubject(config, weights, kv_cache=getattr(torch, cache), order=order)
    session = subject.session([Member("a", 6, 3)], Layout())
    with recorded() as seen:
        for step in ((Span(0, 0, 4, 3),), (Span(0, 4, 5, 4, decode=True),)):
            for rows in session.forward(step, [[0] * (step[0].stop - step[0].start)]):
                targets = torch.zeros(len(rows), dtype=torch.int64, device="meta")
                subject.values(rows, targets, [1.0])
                row_digest(rows)
    yield from seen


def of_tests() -> Iterator[Launch]:
    """What tests/gpu launches."""

    def shape(form: tests.Shape, dtype: torch.dtype, page: int = 0) -> Shape:
        name = str(dtype).removeprefix("torch.")
        return Shape(form.heads, form.kv_heads, form.dim, name, name, page)

    plain = tests.Shape()
    shapes = [shape(form, dtype) for form, dtype in tests.FORMS]
    shapes += [shape(plain, dtype) for dtype in tests.DTYPES]
    shapes += [
        shape(plain, dtype, page)
        for dtype in (torch.float32, torch.bfloat16)
        for page in tests.PAGES
    ]
    for each in shapes:
        yield from attention(each)
    for each in dict.fromkeys(replace(each, page=0) for each in shapes):
        yield from attention_launches(Request("decode", "sm_90", each, ReductionOrder(split=128)))
    for dtype in tests.DTYPES:
        with recorded() as seen:
            for op in tests.operations(dtype, "meta").values():
                op(torch.zeros(3, dtype=torch.int64, device="meta"))
        yield from seen
    form = tests.Shape(dim=128, group=4)
    for dtype in (torch.bfloat16, torch.float32):
        one = tests.sequence(2, form, dtype, 0, "meta")
        with recorded() as seen:
            for rules in layers.RULES:
                layers.rows(one, 0, 2, form, rules)
                layers.last(one, 2, form, rules)
        yield from seen


def own(heads: int, kv: int, dim: int, *dtypes: str) -> Iterator[Launch]:
    """Attention of one shape in several formats."""
    for dtype in dtypes:
        yield from attention(Shape(heads, kv, dim, dtype, dtype))


def bench() -> Iterator[Launch]:
    """This project's side of the price table: its kernels, every split, one layer of a step."""
    shape = replace(SHAPES["qwen3-8b"], layers=1)
    with recorded() as seen:
        for case in cases(shape):
            for name, way in calls(case, shape, "meta").items():
                if name == OURS or name.startswith(SPLIT):
                    way()
    yield from seen


def block_m() -> Iterator[Launch]:
    """The pair of block-m.yaml."""
    yield from digests(8 * 65)
    for dtype in ("float32", "bfloat16"):
        yield from attention(Shape(8, 2, 64, dtype, dtype), decode=ReductionOrder(block_m=16))


BY_STEP: dict[str, Callable[[], Iterable[Launch]]] = {
    "doctor": lambda: own(1, 1, 16, "float32"),
    "tests": of_tests,
    "verify-smoke": lambda: contract("smoke"),
    "verify-attention": lambda: contract("attention-decode-prefill"),
    "verify-decoder": lambda: contract("decode-prefill"),
    "bits-place": lambda: contract(str(ROOT / "docs/results/device/place.yaml")),
    "bits-block-m": block_m,
    "bits-sdpa": lambda: digests(8 * 64),
    **{f"bits-flashinfer{cut}": lambda: digests(8 * 65) for cut in ("", "-fixed", "-whole")},
    **{f"verify-transformers-{kind}": lambda kind=kind: contract(f"transformers-qwen3-{kind}")  # type: ignore[misc] # default
       for kind in ("fixed-order", "eager", "sdpa")},
    **{f"order-own-{dtype}": lambda dtype=dtype: own(8, 2, 64, dtype)  # type: ignore[misc] # default
       for dtype in ("bfloat16", "float32", "float16")},
    "bench": bench,
}  # fmt: skip


def distinct(steps: Sequence[str]) -> tuple[list[Launch], dict[str, int]]:
    """Every kernel once, and how many distinct ones each step launches."""
    found: dict[str, Launch] = {}
    counts = {}
    for step in steps:
        keys = set()
        for kernel, arguments in BY_STEP.get(step, tuple)():
            facts = [kernel.name]
            for name, value in sorted(arguments.items()):
                kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
                constant = name not in kernel.pointers | kernel.scalars
                facts.append(f"{name}={value if constant else kind}")
            keys.add("; ".join(facts))
            found.setdefault("; ".join(facts), (kernel, arguments))
        counts[step] = len(keys)
    return list(found.values()), counts


class Elsewhere:
    """What Triton asks of a device before it compiles, answered for one that is not here."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        """A number for each architecture, under which Triton keeps its kernels."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """None is used."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """The architecture."""
        return GPUTarget("cuda", self.capability, 32)


def compile_share(archs: Sequence[str], steps: Sequence[str], share: int, of: int) -> None:
    """Compile every ``of``-th kernel; print errors and counts as JSON."""
    launches, counts = distinct(steps)
    errors, done = [], Counter[str]()
    for arch in archs or ("here",):
        if archs:
            driver.set_active(Elsewhere(ARCHITECTURES[arch]))
        for kernel, arguments in launches[share::of]:
            try:
                kernel.function.warmup(grid=(1,), **arguments)
            except Exception as error:  # whatever Triton raises belongs to this kernel alone
                errors.append(f"{kernel.name} for {arch}: {type(error).__name__}: {error}"[-2000:])
            done[arch] += 1
    print(json.dumps({"errors": errors, "done": done, "by_step": counts}))


def main() -> int:
    """Compile in several processes; exit 1 if a kernel does not compile."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archs", nargs="*", metavar="ARCH", help=", ".join(ARCHITECTURES))
    parser.add_argument("--steps", nargs="+", default=list(BY_STEP), help="of these steps alone")
    parser.add_argument("--count", action="store_true", help="count kernels and compile none")
    parser.add_argument("--share", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.archs) - set(ARCHITECTURES):
        parser.error(f"unknown: {', '.join(unknown)}; expected of {', '.join(ARCHITECTURES)}")
    if args.count:
        print(json.dumps({"distinct_by_step": distinct(args.steps)[1]}))
        return 0
    if args.share:
        compile_share(args.archs, args.steps, *args.share)
        return 0
    began = time.monotonic()
    count = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    command = [sys.executable, __file__, *args.archs, "--steps", *args.steps, "--share"]
    running = [
        subprocess.Popen([*command, str(i), str(count)], stdout=subprocess.PIPE, text=True)
        for i in range(count)
    ]
    answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        print("gpu_compile: a compiling process failed", file=sys.stderr)
        return 1
    found = [json.loads(answer.splitlines()[-1]) for answer in answers]
    errors = [error for each in found for error in each["errors"]]
    document = {
        "verdict": "error" if errors else "compiled",
        "kernels": dict(sum((Counter(each["done"]) for each in found), Counter())),
        "distinct_by_step": found[0]["by_step"],
        "errors": errors,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(document))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
