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
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
import triton

from kvparity.core.parent_watch import end_with
from kvparity.relations.audit.build import compile_launch, disassemble, ptxas
from kvparity.relations.audit.capture import Launch, captured
from kvparity.relations.audit.request import Request, Shape, from_json
from kvparity_kernels import attention, tiles
from kvparity_kernels.attention import api
from kvparity_kernels.attention import kernels as own_kernels
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import StoreFormat

_BATCH, _SLOTS, _ROWS = 2, 64, 4  # of tensors without data; no kernel is compiled for them
_WINDOW, _CAP = 8, 5.0  # nor for these: they are arguments


@contextmanager
def _kernels(path: Path | None) -> Iterator[None]:
    """Let attention take its kernels from another text; None is its own."""
    try:
        vars(attention)["kernels"] = own_kernels if path is None else _load(path)
        yield
    finally:
        vars(attention)["kernels"] = own_kernels


def launches(request: Request) -> list[Launch]:
    """The kernels that one side launches, with all arguments and options."""
    shape = request.shape
    kv = _keys_values(shape)
    rows = _BATCH if request.side == "decode" else _ROWS
    q = _empty(rows, shape.query_heads, shape.head_dim, dtype=getattr(torch, shape.execution))
    if request.side == "decode":
        attend = partial(api.attend_decode, q, kv, max_kv=_SLOTS)
    else:
        lens = kv.kv_lens
        attend = partial(api.attend_prefill, q, kv, q_starts=lens, q_lens=lens, max_q=_ROWS)
    with tiles.using(request.tiles or tiles.BASE), _kernels(request.source), captured() as seen:
        attend(
            scale=1.0,
            order=request.order,
            window=_WINDOW if shape.window else 0,
            softcap=_CAP if shape.softcap else 0.0,
            sinks=_empty(shape.query_heads, dtype=torch.float32) if shape.sinks else None,
        )
    return seen


def _keys_values(shape: Shape) -> KeysValues:
    """The cache that one side reads, without data."""
    format, integers = StoreFormat.parse(shape.kv_cache), _empty(_BATCH, dtype=torch.int32)
    width = format.storage_width(shape.head_dim)
    k, v = (_empty(_SLOTS, shape.kv_heads, width, dtype=format.storage_dtype) for _ in "kv")
    groups = (_SLOTS, shape.kv_heads, format.groups(shape.head_dim))
    size = groups if format.dynamic else groups[1:2]
    coded, paged = format.static or format.dynamic, shape.page > 0
    k_scale, v_scale = (_empty(*size, dtype=torch.float32) if coded else None for _ in "kv")
    return KeysValues(
        k,
        v,
        integers,
        starts=None if paged else integers.long(),
        block_table=integers.expand(_BATCH, _BATCH).contiguous() if paged else None,
        page=shape.page,
        ring=_SLOTS if shape.ring else 0,
        format=format if coded else None,
        k_scale=k_scale,
        v_scale=v_scale,
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


def fill(request: Request, folder: Path) -> None:
    """Compile one side and write its artefacts and ``record.json``; the folder appears at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = Path(scratch, "done")
        place.mkdir()
        record = []
        for launch in launches(request):
            kernel, arguments = launch
            built = compile_launch(launch, request.arch, request.fusion)
            name = kernel.name.rpartition(".")[2]
            code = built.asm
            texts = {"ttgir": code["ttgir"], "ptx": code["ptx"], "sass": disassemble(code["cubin"])}
            if built.metadata.enable_fp_fusion:
                strict = compile_launch(launch, request.arch, False)
                texts["strict.sass"] = disassemble(strict.asm["cubin"])
            for kind, text in texts.items():
                (place / f"{name}.{kind}").write_text(text)
            record.append(
                {
                    "name": name,
                    "constants": {c: arguments[c] for c in sorted(kernel.constexprs)},
                    "dtypes": {
                        name: str(value.dtype).removeprefix("torch.")
                        for name, value in sorted(arguments.items())
                        if isinstance(value, torch.Tensor)
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
