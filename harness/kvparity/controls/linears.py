"""Defects beside attention: linears and norms whose kernel follows the number of rows.

Thresholds are scaled down to the rows of tests; what changes at them is as reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import Plant
from kvparity.controls.calls import Running, in_sessions, power_of_two
from kvparity.controls.reference import decoder_of
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.model import Ops
from kvparity.subjects.decoder.subject import DecoderSubject

Linear = Callable[..., Tensor]
Product = Callable[[Tensor, Tensor, Mapping[str, object]], Tensor | None]
"""(x ``[rows, depth]``, w ``[columns, depth]``, what else the kernel is given) -> the product."""
Parts = Callable[[int, int, int], int]
"""(rows, columns, depth) of a matrix product -> the parts that its depth is summed in."""

MANY_ROWS = 16
"""Rows from which the other kernel runs. Reported: 256 (vLLM's norm), 65 (M64 or M128)."""
FEW_ROWS = 8
"""Rows up to which a narrow product is split. Its report gives the selection, not one number."""
VERIFIED = range(2, 9)
"""Rows per request of a step that verifies drafts: 1 + the number of drafts."""


def other_product(linear: Linear, product: Product) -> Linear:
    """``linear`` with other products: float32 ``[rows, columns]``, or None where it stays as it is.

    The bias is added behind a product, and the sum rounded once.
    """

    def planted(
        x: Tensor, w: Tensor, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None,
        **more: object,
    ) -> Tensor:  # fmt: skip
        total = product(x, w, more)
        if total is None:
            return linear(x, w, bias, out_dtype=out_dtype, **more)
        return (total if bias is None else total + bias.float()).to(out_dtype or x.dtype)

    return planted


def split_k(linear: Linear, parts: Parts, partial: torch.dtype = torch.float32) -> Linear:
    """``linear`` with its depth summed in ``parts``, which are added ascending in ``partial``."""

    def product(x: Tensor, w: Tensor, more: Mapping[str, object]) -> Tensor | None:
        depth = x.shape[1]
        number = min(parts(len(x), len(w), depth), depth)
        if number == 1:
            return None
        size = -(-depth // number)
        cuts = [slice(at, at + size) for at in range(0, depth, size)]
        sums = [
            linear(x[:, cut].contiguous(), w[:, cut].contiguous(), None, out_dtype=partial, **more)
            for cut in cuts
        ]
        return sum(sums[1:], sums[0]).float()

    return other_product(linear, product)


def _with(change: Callable[[Ops], Ops]) -> Plant:
    def plant(subject: Subject) -> Subject:
        decoder = decoder_of(subject)
        return decoder.with_ops(change(decoder.ops))

    return plant


def _splitting(parts: Parts, partial: torch.dtype = torch.float32) -> Plant:
    return _with(lambda ops: replace(ops, linear=split_k(ops.linear, parts, partial)))


HEURISTIC = (1, 2, 1, 4, 8, 2, 4)
"""Parts at 1, 2, 4, ... rows; at more than 64 as at 64, or long prompts would fare as one row."""

linear_kernel_by_rows = _splitting(
    lambda rows, columns, depth: HEURISTIC[min(power_of_two(rows).bit_length(), 7) - 1]
)
"""A heuristic picks another kernel at five of seven numbers of rows (1 row: unsplit).

cuBLASLt: NVIDIA/TransformerEngine#2986.
"""

linear_split_where_narrow = _splitting(
    lambda rows, columns, depth: 4 if columns <= depth and rows <= FEW_ROWS else 1
)
"""Products of few columns are split along their depth where they have few rows.

local-inference-lab/vllm#719.
"""

linear_split_by_tokens = _splitting(lambda rows, columns, depth: max(1, 32 // rows), torch.bfloat16)
"""The split count follows the tokens, and partial sums are kept in bfloat16: 1e-2 per token.

sgl-project/sglang#37292.
"""


def _fused(x: Tensor, w: Tensor, more: Mapping[str, object]) -> Tensor | None:
    if len(x) < MANY_ROWS:
        return None
    total = torch.zeros(len(x), len(w), dtype=torch.float64, device=x.device)
    for k in range(x.shape[1]):
        # The product of two float32 is exact in float64: one rounding, as of an fma.
        total = (total + x[:, k, None].double() * w[None, :, k].double()).float().double()
    return total.float()


linear_contracts_by_rows = _with(lambda ops: replace(ops, linear=other_product(ops.linear, _fused)))
"""The kernel for many rows contracts products and sums, the one for few does not.

RL-Align/RL-Kernel#394: two tiles of rows, and contraction that had to be switched off too.
"""


def _verifying(subject: DecoderSubject, running: Running) -> DecoderSubject:
    def parts(rows: int, columns: int, depth: int) -> int:
        return 2 if running.longest in VERIFIED else 1

    return subject.with_ops(replace(subject.ops, linear=split_k(subject.ops.linear, parts)))


linear_by_rows_per_request = in_sessions(_verifying)
"""A step that verifies drafts, a few rows per request, runs other kernels than one that decodes.

vllm-project/vllm#54506.
"""


def blocked_norm(x: Tensor, w: Tensor, eps: float, block: int) -> Tensor:
    """The RMS norm of this project with its squares added in ``block`` lanes, in torch."""
    wide = x.float()
    squares = wide * wide
    lanes = torch.zeros(*x.shape[:-1], block, device=x.device)
    for at in range(0, x.shape[-1], block):
        part = squares[..., at : at + block]
        lanes[..., : part.shape[-1]] += part
    while (size := lanes.shape[-1]) > 1:  # as the kernel sums its lanes: upper half onto lower
        lanes = lanes[..., : size // 2] + lanes[..., size // 2 :]
    # torch's float32 root is not correctly rounded everywhere; one taken in float64 is.
    root = torch.sqrt((lanes / x.shape[-1] + eps).double()).float()
    inverse = torch.reciprocal(root)
    return ((wide * inverse).to(x.dtype).float() * w.float()).to(x.dtype)


def _norm_by_rows(ops: Ops) -> Ops:
    def rms_norm(x: Tensor, w: Tensor, eps: float, **more: object) -> Tensor:
        if len(x) < MANY_ROWS:
            return ops.rms_norm(x, w, eps, **more)
        return blocked_norm(x, w, eps, 2)

    return replace(ops, rms_norm=rms_norm)


norm_block_by_rows = _with(_norm_by_rows)
"""From 16 rows on a norm adds its squares in blocks of two: vllm-project/vllm#48271.

There the block falls from 1024 to 256 at 256 rows.
"""
