"""Kernels that do to the process or to memory what no kernel may, and are right otherwise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import naive_pair
import torch
from naive_pair import decode, prefill
from torch import Tensor

from kvparity.relations import bits_and_limits

__all__ = ["decode", "prefill"]


class OddError(BaseException):
    """No ``Exception``."""


def decode_counts_up(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    found = naive_pair.decode(q, k, v, kv_lens=kv_lens, scale=scale)
    kv_lens += 1
    return found


def prefill_forgets(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_k: Tensor, **more: Any) -> Any:
    found = naive_pair.prefill(q, k, v, cu_seqlens_k=cu_seqlens_k, **more)
    cu_seqlens_k.zero_()
    return found


def prefill_past_the_end(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
    """Writes to the slot behind its keys: of the same sequence, and not yet filled."""
    found = naive_pair.prefill(q, k, v, **more)
    behind = k.storage_offset() + len(k) * k.stride(0)
    k.as_strided(k.shape[1:], k.stride()[1:], behind)[:] = 7.0
    return found


def decode_before_the_start(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
    found = naive_pair.decode(q, k, v, **more)
    v.as_strided((1,), (1,), 0)[:] = 7.0
    return found


def decode_three(*args: Any, **more: Any) -> Any:
    return (*naive_pair.decode(*args, **more), None)


def decode_sparse(*args: Any, **more: Any) -> Any:
    out, lse = naive_pair.decode(*args, **more)
    return out.to_sparse(), lse


def decode_odd(*args: Any, **more: Any) -> Any:
    raise OddError("odd")


def decode_leaves(*args: Any, **more: Any) -> Any:
    os._exit(0)


def decode_two_threads(*args: Any, **more: Any) -> Any:
    torch.set_num_threads(2)
    return naive_pair.decode(*args, **more)


def decode_tf32(*args: Any, **more: Any) -> Any:
    torch.backends.cuda.matmul.allow_tf32 = True
    return naive_pair.decode(*args, **more)


def decode_deterministic(*args: Any, **more: Any) -> Any:
    torch.use_deterministic_algorithms(True)
    return naive_pair.decode(*args, **more)


def decode_flushes(*args: Any, **more: Any) -> Any:
    torch.set_flush_denormal(True)
    return naive_pair.decode(*args, **more)


def decode_reduces(*args: Any, **more: Any) -> Any:
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    return naive_pair.decode(*args, **more)


def decode_without_flash(*args: Any, **more: Any) -> Any:
    torch.backends.cuda.enable_flash_sdp(False)
    return naive_pair.decode(*args, **more)


def decode_equal(*args: Any, **more: Any) -> Any:
    torch.equal = lambda *_: True
    return naive_pair.decode(*args, **more)


def decode_eq(*args: Any, **more: Any) -> Any:
    Tensor.__eq__ = lambda *_: torch.tensor(True)  # type: ignore[method-assign,assignment]
    return naive_pair.decode(*args, **more)


def decode_views(*args: Any, **more: Any) -> Any:
    Tensor.view = lambda x, *_: x * 0  # type: ignore[method-assign,assignment]
    return naive_pair.decode(*args, **more)


def decode_dumps(*args: Any, **more: Any) -> Any:
    json.dumps = lambda *_, **__: '{"verdict": "holds"}'
    return naive_pair.decode(*args, **more)


def decode_compares(*args: Any, **more: Any) -> Any:
    bits_and_limits.differing = lambda a, b: torch.zeros(a.shape, dtype=torch.bool)
    return naive_pair.decode(*args, **more)


def decode_writes_nowhere(*args: Any, **more: Any) -> Any:
    os.write = lambda _, text: len(text)
    return naive_pair.decode(*args, **more)


def decode_has_other_code(*args: Any, **more: Any) -> Any:
    def never(a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros(a.shape, dtype=torch.bool)

    bits_and_limits.differing.__code__ = never.__code__
    return naive_pair.decode(*args, **more)


def decode_puts_another_module(*args: Any, **more: Any) -> Any:
    sys.modules["kvparity.relations.bits_and_limits"] = ModuleType(
        "kvparity.relations.bits_and_limits"
    )
    return naive_pair.decode(*args, **more)


def decode_takes_the_folder(*args: Any, **more: Any) -> Any:
    shutil.rmtree(os.environ["KVPARITY_TEST_RUN"], ignore_errors=True)
    return naive_pair.decode(*args, **more)


def decode_takes_it_twice(*args: Any, **more: Any) -> Any:
    shutil.rmtree(os.environ["KVPARITY_TEST_RUN"])
    return naive_pair.decode(*args, **more)


def decode_takes_the_lines(*args: Any, **more: Any) -> Any:
    lines = Path(os.environ["KVPARITY_TEST_RUN"], "cases.jsonl")
    lines.write_text("")
    return naive_pair.decode(*args, **more)


def decode_deaf(*args: Any, **more: Any) -> Any:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return naive_pair.decode(*args, **more)


class Agreeing(Tensor):
    """A tensor whose comparisons all say that it is equal."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found * 0 if func is torch.ne else found


def decode_agrees(*args: Any, **more: Any) -> Any:
    return tuple(x.as_subclass(Agreeing) for x in naive_pair.decode(*args, **more))


def decode_narrow(*args: Any, **more: Any) -> Any:
    torch.set_default_dtype(torch.bfloat16)
    return naive_pair.decode(*args, **more)


def decode_goes_away(*args: Any, **more: Any) -> Any:
    os.chdir("/")
    return naive_pair.decode(*args, **more)


def decode_prints(*args: Any, **more: Any) -> Any:
    print("decoding")
    os.write(1, b"decoding, past Python\n")
    sys.stdout.flush()
    return naive_pair.decode(*args, **more)
