"""The steps of ci/gpu: what is run, how long it may take, and which answers are good."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypedDict, Unpack

from gpu_steps.reading import Read, read_doctor, read_junit, read_verdict

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "docs/results/device"
RUN = "{scratch}"  # in a command: a folder of the step's own
OWN = "kvparity_kernels.attention:prefill,kvparity_kernels.attention:decode"


@dataclass(frozen=True)
class Step:
    """One step, run in a process of its own.

    ``good``: verdicts that are no failure; a question has more than one. ``expect_s``: without
    that much time left the step is not begun. ``needs``: a module without which the step is absent.
    ``may_lack``: words of an error that says that this device or library cannot do it.
    ``alone``: nothing runs beside it, because it is timed, or takes all cores, or comes first.
    """

    name: str
    asks: str
    command: tuple[str, ...]
    read: Read
    good: frozenset[str]
    expect_s: float = 20
    timeout_s: float = 120
    needs: str | None = None
    may_lack: tuple[str, ...] = ()
    alone: bool = False


class More(TypedDict, total=False):
    """Fields of a step that most do not set."""

    expect_s: float
    timeout_s: float
    needs: str | None
    may_lack: tuple[str, ...]


def _kvparity(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "kvparity", *arguments)


def _verify(
    name: str, contract: str, asks: str, *, question: bool = False, **more: Unpack[More]
) -> Step:
    where = "--no-locate", "--run-dir", f"{RUN}/run"
    command = _kvparity("verify", contract, "--device", "cuda", "--json", *where)
    good = frozenset({"holds", "differs"} if question else {"holds"})
    return Step(name, asks, command, read_verdict, good, **more)


def _order(
    name: str, pair: str, asks: str, *options: str, own: bool = False, **more: Unpack[More]
) -> Step:
    command = _kvparity("order", pair, "--keys", "65,257", *options, "--device", "cuda", "--json")
    answers = {
        "consistent", "different-order", "undeclared-order", "same-order-different-bits",
        "not-a-tree",
    }  # fmt: skip
    good = frozenset({"consistent"} if own else answers)
    limits: More = {"expect_s": 15, "timeout_s": 90, **more}
    return Step(name, asks, command, read_verdict, good, **limits)


def _own_order(dtype: str) -> Step:
    options = ("--heads", "8,2", "--dim", "64", "--dtype", dtype)
    return _order(f"order-own-{dtype}", OWN, "one order in decode and prefill?", *options, own=True)


def _sdpa_order(backend: str, dtype: str) -> Step:
    pair = ",".join(f"kvparity.pairs.sdpa:{backend}_{side}" for side in ("prefill", "decode"))
    options = ("--heads", "4,4", "--dim", "64", "--dtype", dtype)
    # torch's own words for a backend that cannot serve the call, and cuDNN's through it
    lack = (
        "No available kernel",
        "No viable backend",
        "No valid execution plans",
        "cuDNN Frontend error",
    )
    asks = "the same of this backend of PyTorch?"
    return _order(f"order-sdpa-{backend}-{dtype}", pair, asks, *options, may_lack=lack)


def _audit(name: str, contract: str, asks: str, *options: str) -> Step:
    command = _kvparity("audit", contract, "--json", *options)
    good = frozenset({"same", "equal by model", "unknown"} | ({"different"} if options else set()))
    return Step(name, asks, command, read_verdict, good, expect_s=20, timeout_s=180)


def _program(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"gpu_steps.{name}")


# What is wanted most comes first: a run may be cut off.
STEPS = (
    Step(
        "doctor",
        "is everything here?",
        _kvparity("doctor", "--device", "cuda", "--json"),
        read_doctor,
        frozenset({"ready"}),
        expect_s=10,
        alone=True,
    ),
    Step(
        "compile",
        "does every kernel compile? (the cache is warm then)",
        _program("compile"),
        read_verdict,
        frozenset({"compiled"}),
        expect_s=60,
        timeout_s=240,
        alone=True,
    ),
    Step(
        "tests",
        "do the device tests pass?",
        # Warnings of versions that nobody knows yet decide nothing about bits.
        (sys.executable, "-m", "pytest", "tests/gpu", "-q", "-W", "default", "-p",
         "no:cacheprovider", f"--junitxml={RUN}/tests.xml"),
        read_junit,
        frozenset({"passed"}),
        expect_s=60,
        timeout_s=300,
    ),
    _verify("verify-smoke", "smoke", "decode = prefill, small decoder?", timeout_s=200),
    _verify("verify-attention", "attention-decode-prefill", "decode = prefill, attention alone?"),
    _verify(
        "verify-decoder",
        "decode-prefill",
        "decode = prefill at Qwen3-0.6B's shape?",
        expect_s=60,
        timeout_s=300,
    ),
    *(_own_order(dtype) for dtype in ("bfloat16", "float32", "float16")),
    _verify(
        "bits-block-m",
        f"{DEVICE}/block-m.yaml",
        "block_m 16 in decode = 64 in prefill?",
        question=True,
    ),
    _verify("bits-place", f"{DEVICE}/place.yaml", "place and neighbours do not matter?"),
    Step(
        "products",
        "does each matrix instruction add as the table says?",
        _program("products"),
        read_verdict,
        frozenset({"equal"}),
        expect_s=20,
        timeout_s=60,
        may_lack=("is not in the table of tensor cores",),
    ),
    Step(
        "tiles",
        "which other tiles give the same bits?",
        _kvparity("tiles", "--measure", "--device", "cuda", "--json"),
        read_verdict,
        frozenset({"measured"}),
        expect_s=120,
        timeout_s=300,
    ),
    Step(
        "bench",
        "how fast, beside SDPA, FlashInfer, cuBLAS and a copy?",
        _kvparity("bench", "--json"),
        read_verdict,
        frozenset({"measured"}),
        expect_s=150,
        timeout_s=240,
        alone=True,
    ),
    *(
        _verify(f"verify-{name}", name, asks, expect_s=40, timeout_s=200)
        for name, asks in (
            ("kv-dtype", "codes read alike on every path?"),
            ("sliding-window", "windows and rings keep what is seen?"),
            ("shared-kv", "layers that share a cache read their owner's?"),
            ("prefix-reuse", "resets and shared prefixes leave nothing behind?"),
            ("attention-cache", "a pair over stored codes and windows?"),
            ("export-fidelity", "exported programs use their cache?"),
        )
    ),
    _verify("bits-sdpa", "attention-sdpa", "PyTorch SDPA: one query = many?", question=True),
    _verify(
        "verify-decoder-sdpa", "decoder-sdpa", "a decoder of PyTorch: decode = prefill?",
        question=True,
    ),
    *(
        _verify(
            f"verify-transformers-{kind}",
            f"transformers-qwen3-{kind}",
            "generate() = one forward pass?",
            question=kind != "fixed-order",
            needs="transformers",
        )
        for kind in ("fixed-order", "eager", "sdpa")
    ),
    _sdpa_order("flash", "bfloat16"),
    _sdpa_order("efficient", "bfloat16"),
    _sdpa_order("math", "bfloat16"),
    _sdpa_order("cudnn", "bfloat16"),
    _sdpa_order("efficient", "float32"),
    *(
        _verify(
            name,
            contract,
            "FlashInfer: decode = prefill?",
            question=True,
            needs="flashinfer",
            expect_s=60,
            timeout_s=200,
        )
        for name, contract in (
            ("bits-flashinfer", "attention-flashinfer"),
            ("verify-decoder-flashinfer", "decoder-flashinfer"),
            ("bits-flashinfer-fixed", f"{DEVICE}/flashinfer-fixed.yaml"),
            ("bits-flashinfer-whole", f"{DEVICE}/flashinfer-whole.yaml"),
        )
    ),
    _order(
        "order-flashinfer",
        "attention-flashinfer",
        "one order in FlashInfer's decode and prefill?",
        needs="flashinfer",
    ),
    _audit("audit-attention", "attention-decode-prefill", "compiled alike?"),
    _audit("audit-decoder", "decode-prefill", "compiled alike?"),
    _audit(
        "audit-block-m", "attention-decode-prefill", "alike with 16 rows in decode?",
        "--against", "block_m=16",
    ),
    Step(
        "sanitizer",
        "do memory and race checkers find nothing?",
        _program("sanitize"),
        read_verdict,
        frozenset({"clean"}),
        expect_s=60,
        timeout_s=240,
        may_lack=("compute-sanitizer is not on the PATH",),
    ),
)  # fmt: skip

BESIDE = (
    ("audit-attention", "verify-attention"),
    ("audit-decoder", "verify-decoder"),
    ("audit-block-m", "bits-block-m"),
)
"""What the compiled code let expect, and the bits that came out."""
