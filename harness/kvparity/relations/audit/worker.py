"""The process that compiles: ``python -m`` this module, with ``TRITON_INTERPRET=0``.

The wrappers of the attention kernels run unchanged on tensors without data, up to the launch. What
they would launch is compiled instead, for an architecture that need not be here. Reads JSON lines
``{"request", "folder"}`` from stdin, fills each folder, and answers with one line each:
``{"error": null}`` or a text.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton

from kvparity.core.parent_watch import end_with
from kvparity.relations.audit.request import ARCHITECTURES, Request, Shape, from_json
from kvparity_kernels import attention, tiles
from kvparity_kernels.attention import api
from kvparity_kernels.attention import kernels as own_kernels
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.launch import Kernel
from kvparity_kernels.relied import triton as relied
from kvparity_kernels.store import StoreFormat

_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
_TYPES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "u8",
    "int8": "i8",
    "int32": "i32",
    "int64": "i64",
}
_ALIGNED = [["tt.divisibility", 16]]
_BATCH, _SLOTS, _ROWS = 2, 64, 4  # of tensors without data; no kernel is compiled for them
_WINDOW, _CAP = 8, 5.0  # nor for these: they are arguments


class _Recorder:
    """Stands in for a compiled function: keeps the arguments of the launch."""

    hash = "not launched"

    def __init__(self, kernel: Kernel, seen: list[tuple[Kernel, dict[str, Any]]]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid: Any) -> Any:
        def call(**arguments: Any) -> _Recorder:
            self.seen.append((self.kernel, arguments))
            return self

        return call


@contextmanager
def _recording(module: ModuleType) -> Iterator[list[tuple[Kernel, dict[str, Any]]]]:
    """Let the wrappers see ``module`` as their kernels, and note what they launch."""
    seen: list[tuple[Kernel, dict[str, Any]]] = []
    kernels = {name: each for name, each in vars(module).items() if isinstance(each, Kernel)}
    enter, current = torch.cuda.device, attention.kernels
    try:
        for name, kernel in kernels.items():
            setattr(module, name, replace(kernel, function=_Recorder(kernel, seen)))
        vars(attention)["kernels"] = module
        vars(torch.cuda)["device"] = lambda _: nullcontext()  # there is none to enter
        yield seen
    finally:
        vars(torch.cuda)["device"] = enter
        vars(attention)["kernels"] = current
        vars(module).update(kernels)


def launches(request: Request) -> list[tuple[Kernel, dict[str, Any]]]:
    """The kernels that one side launches, with all arguments and options."""
    shape = request.shape
    module = own_kernels if request.source is None else _load(request.source)
    kv = _keys_values(shape)
    rows = _BATCH if request.side == "decode" else _ROWS
    q = _empty(rows, shape.query_heads, shape.head_dim, dtype=getattr(torch, shape.execution))
    rules: dict[str, Any] = {
        "scale": 1.0,
        "order": request.order,
        "window": _WINDOW if shape.window else 0,
        "softcap": _CAP if shape.softcap else 0.0,
        "sinks": _empty(shape.query_heads, dtype=torch.float32) if shape.sinks else None,
    }
    with tiles.using(request.tiles or tiles.BASE), _recording(module) as seen:
        if request.side == "decode":
            api.attend_decode(q, kv, max_kv=_SLOTS, **rules)
        else:
            lens = kv.kv_lens
            api.attend_prefill(q, kv, q_starts=lens, q_lens=lens, max_q=_ROWS, **rules)
    return seen


def _keys_values(shape: Shape) -> KeysValues:
    """The cache that one side reads, without data."""
    format, integers = StoreFormat.parse(shape.kv_cache), _empty(_BATCH, dtype=torch.int32)
    width = format.storage_width(shape.head_dim)
    k, v = (_empty(_SLOTS, shape.kv_heads, width, dtype=format.storage_dtype) for _ in "kv")
    groups = (_SLOTS, shape.kv_heads, format.groups(shape.head_dim))
    stored: dict[str, Any] = {}
    if format.static or format.dynamic:
        size = groups if format.dynamic else groups[1:2]
        scales = [_empty(*size, dtype=torch.float32) for _ in "kv"]
        stored = {"format": format, "k_scale": scales[0], "v_scale": scales[1]}
    paged = shape.page > 0
    return KeysValues(
        k,
        v,
        integers,
        starts=None if paged else integers.long(),
        block_table=integers.expand(_BATCH, _BATCH).contiguous() if paged else None,
        page=shape.page,
        ring=_SLOTS if shape.ring else 0,
        **stored,
    )


def _empty(*size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(*size, dtype=dtype, device="meta")


def _load(path: Path) -> ModuleType:
    name = f"kvparity_audited_{abs(hash(path))}.kernels"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path} is not a Python file")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def compile_launch(
    kernel: Kernel, arguments: dict[str, Any], arch: str, fusion: bool | None
) -> Any:
    """Compile one launch as ``launch`` would on that architecture."""
    options = {name: arguments[name] for name in _OPTIONS}
    if fusion is not None:
        options["enable_fp_fusion"] = fusion
    signature = {name: _type(kernel, name, arguments[name]) for name in kernel.parameters}
    absent = {name for name in kernel.pointers if arguments[name] is None}
    aligned = kernel.pointers - kernel.unaligned - absent
    attributes = {(i,): _ALIGNED for i, name in enumerate(kernel.parameters) if name in aligned}
    constants = {name: arguments[name] for name in kernel.constexprs | absent}
    source = relied.SOURCE.get()(kernel.function, signature, constexprs=constants, attrs=attributes)
    target = relied.TARGET.get()("cuda", ARCHITECTURES[arch], 32)
    return triton.compile(source, target=target, options=options)


def _type(kernel: Kernel, name: str, value: Any) -> str:
    if name in kernel.constexprs or value is None:
        return "constexpr"
    if name in kernel.pointers:
        return "*" + _TYPES[str(value.dtype).removeprefix("torch.")]
    return "fp32" if isinstance(value, float) else "i32"


def ptxas(arch: str) -> Any:
    """The assembler that Triton uses for an architecture: ``path`` and ``version``."""
    return relied.PTXAS.get()(ARCHITECTURES[arch])


@cache
def disassemble(cubin: bytes) -> str:
    """SASS of a cubin. Kernels that a changed source leaves as they were are read once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [relied.NVDISASM.get().path, "-c", "-ndf", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def fill(request: Request, folder: Path) -> None:
    """Compile one side and write its artefacts and ``record.json``; the folder appears at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = Path(scratch, "done")
        place.mkdir()
        record = []
        for kernel, arguments in launches(request):
            built = compile_launch(kernel, arguments, request.arch, request.fusion)
            name = kernel.name.rpartition(".")[2]
            texts = {"ttgir": built.asm["ttgir"], "ptx": built.asm["ptx"]}
            texts["sass"] = disassemble(built.asm["cubin"])
            if built.metadata.enable_fp_fusion:
                strict = compile_launch(kernel, arguments, request.arch, False)
                texts["strict.sass"] = disassemble(strict.asm["cubin"])
            for kind, text in texts.items():
                (place / f"{name}.{kind}").write_text(text)
            record.append(
                {
                    "name": name,
                    "constants": {c: arguments[c] for c in sorted(kernel.constexprs)},
                    "dtypes": {
                        p: str(arguments[p].dtype).removeprefix("torch.")
                        for p in sorted(kernel.pointers)
                        if arguments[p] is not None
                    },
                    "num_warps": built.metadata.num_warps,
                    "num_stages": built.metadata.num_stages,
                    "fusion": built.metadata.enable_fp_fusion,
                    "triton": triton.__version__,
                    "ptxas": ptxas(request.arch).version,
                    "hash": built.hash,
                }
            )
        (place / "record.json").write_text(json.dumps(record, indent=1))
        try:
            place.replace(folder)
        except OSError:
            if not (folder / "record.json").is_file():  # else another process was quicker
                raise


def _words(problem: BaseException) -> str:
    """The innermost reason: Triton wraps an error once for every function that it is in."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    words = f"{type(problem).__name__}: {problem}"
    stderr = getattr(problem, "stderr", None)
    return f"{words}\n{stderr}" if stderr else words


def main() -> None:
    """Answer requests until stdin ends, or whoever waits for them is gone."""
    end_with(os.getppid())
    for line in sys.stdin:
        job = json.loads(line)
        error = None
        try:
            fill(from_json(job["request"]), Path(job["folder"]))
        except Exception as problem:  # whatever Triton raises belongs to this request alone
            error = _words(problem)
        print(json.dumps({"error": error}), flush=True)


if __name__ == "__main__":
    main()
