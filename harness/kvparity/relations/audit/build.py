"""One launch compiled as Triton does it, for a GPU that need not be here; and its code."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol, TypedDict

import torch
import triton

from kvparity.relations.audit.capture import Argument, Launch
from kvparity.relations.audit.request import TARGETS
from kvparity_kernels.launch import Kernel
from kvparity_kernels.relied import triton as relied

_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
_TYPES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "u8",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
}
_ALIGNED = [["tt.divisibility", 16]]


class Options(Protocol):
    """With what a kernel was compiled; ``shared``: bytes of a block."""

    num_warps: int
    num_stages: int
    enable_fp_fusion: bool
    shared: int


class Code(TypedDict):
    """Two of the compiler's own languages, and what the device runs."""

    ttgir: str
    ptx: str
    cubin: bytes


class Built(Protocol):
    """What Triton makes of a kernel. ``hash``: its place in Triton's cache, the launch's too."""

    hash: str
    metadata: Options
    asm: Code


class Tool(Protocol):
    """A program that comes with Triton."""

    path: str
    version: str


def compile_launch(launch: Launch, arch: str, fusion: bool | None = None) -> Built:
    """Compile one launch as ``launch`` would on that architecture, into Triton's cache.

    ``fusion``: let the compiler contract products and sums; None is as launched.
    """
    kernel, arguments = launch
    options = {name: arguments[name] for name in _OPTIONS}
    if fusion is not None:
        options["enable_fp_fusion"] = fusion
    signature = {name: _type(kernel, name, arguments[name]) for name in kernel.parameters}
    # Of constants a launch says that nothing is promised; without that its key is another.
    attributes = {
        (i,): [] if signature[name] == "constexpr" else _ALIGNED
        for i, name in enumerate(kernel.parameters)
        if name not in kernel.scalars | kernel.unaligned or signature[name] == "constexpr"
    }
    constants = {name: arguments[name] for name, kind in signature.items() if kind == "constexpr"}
    source = relied.SOURCE.get()(kernel.function, signature, constexprs=constants, attrs=attributes)
    target = relied.TARGET.get()("cuda", TARGETS[arch], 32)
    built: Built = triton.compile(source, target=target, options=options)
    return built


def _type(kernel: Kernel, name: str, value: Argument) -> str:
    if name in kernel.constexprs or value is None:
        return "constexpr"
    if isinstance(value, torch.Tensor):
        return "*" + _TYPES[str(value.dtype).removeprefix("torch.")]
    return "fp32" if isinstance(value, float) else "i32"


def ptxas(arch: str) -> Tool:
    """The assembler that Triton uses for an architecture."""
    tool: Tool = relied.PTXAS.get()(TARGETS[arch])
    return tool


@cache
def disassemble(cubin: bytes) -> str:
    """SASS of a cubin. Kernels that a changed source leaves as they were are read once."""
    return said_of(cubin, relied.NVDISASM.get().path, "-c", "-ndf")


def said_of(cubin: bytes, *command: str) -> str:
    """What a program prints of a cubin, whose path is its last argument."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
        return done.stdout
