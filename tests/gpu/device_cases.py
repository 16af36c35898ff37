"""Data, paths and comparisons of the device tests. Every function takes the device.

``tests/kernels/test_gpu_helpers.py`` runs the same functions on the CPU, tiny, so that a device
test cannot fail for a reason that has nothing to do with the device. As a program
(``device_cases.py DEVICE [LENGTH...]``) it prints a hash of the bits that every path gives, for a
comparison across processes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.bits import bits, differing
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.digest import row_digest
from kvparity_kernels.embedding import embed
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.linear import linear
from kvparity_kernels.logprob import logprob
from kvparity_kernels.norm import rms_norm
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rope import rope
from kvparity_kernels.swiglu import swiglu

ORDER = ReductionOrder()
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EDGES = (1, 63, 64, 65, 255, 256, 257, 513)
BATCHES = (1, 2, 3, 17, 64, 256)
PAGES = (1, 16, 128)


@dataclass(frozen=True)
class Shape:
    """The heads of attention: ``group`` query heads for each of ``kv_heads``."""

    dim: int = 64
    group: int = 4
    kv_heads: int = 2

    @property
    def heads(self) -> int:
        return self.group * self.kv_heads

    @property
    def scale(self) -> float:
        return float(self.dim**-0.5)


# Every head dimension with every group in bfloat16; the other formats where they compile otherwise.
FORMS = (
    *((Shape(dim, group), torch.bfloat16) for dim in (64, 128) for group in (1, 4, 8)),
    (Shape(128, 4), torch.float32),
    (Shape(64, 1), torch.float32),
    (Shape(128, 8), torch.float16),
)

Sequence3 = tuple[Tensor, Tensor, Tensor]
Result = tuple[Tensor, Tensor]
RowOp = Callable[[Tensor], Tensor]


def unequal(a: Tensor, b: Tensor) -> int:
    """How many elements differ in bits, or are NaN (an output that nobody wrote holds NaN)."""
    if not a.is_floating_point():
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        return int((a != b).sum())
    return int((differing(a, b) | a.isnan()).sum())


def unequal_results(a: Result, b: Result) -> int:
    """The same of (out, lse)."""
    return sum(unequal(x, y) for x, y in zip(a, b, strict=True))


def sequence(
    length: int, shape: Shape, dtype: torch.dtype, seed: int, device: str = "cuda"
) -> Sequence3:
    """q, k, v of one sequence, ``[length, heads, dim]``; the same numbers on every device."""
    source = torch.Generator().manual_seed(seed)

    def draw(heads: int) -> Tensor:
        return torch.randn(length, heads, shape.dim, generator=source).to(dtype).to(device)

    return draw(shape.heads), draw(shape.kv_heads), draw(shape.kv_heads)


def integers(values: Iterable[int], like: Tensor, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor(list(values), dtype=dtype, device=like.device)


def lay(sequences: Sequence[Sequence3], page: int = 0) -> KeysValues:
    """All keys in one cache, contiguous with gaps or in shuffled pages; the rest holds NaN."""
    lens = [len(k) for _, k, _ in sequences]
    first = sequences[0][1]
    unit = page or 1
    pages = [-(-n // page) if page else n + 3 for n in lens]
    total = sum(pages) + 2
    places = torch.randperm(total, generator=torch.Generator().manual_seed(len(lens))).tolist()
    caches = torch.full(
        (2, total * unit, *first.shape[1:]), float("nan"), dtype=first.dtype, device=first.device
    )
    starts, table, used = [], torch.zeros(len(lens), max(pages), dtype=torch.int32), 0
    for b, (_, k, v) in enumerate(sequences):
        starts.append(used + 1)
        if page:
            table[b, : pages[b]] = torch.tensor(places[used : used + pages[b]])
            slots = [places[used + t // page] * page + t % page for t in range(lens[b])]
        else:
            slots = list(range(used + 1, used + 1 + lens[b]))
        at = integers(slots, first, torch.int64)
        caches[0, at], caches[1, at] = k, v
        used += pages[b]
    kv_lens = integers(lens, first)
    if page:
        return KeysValues(
            caches[0], caches[1], kv_lens, block_table=table.to(first.device), page=page
        )
    return KeysValues(caches[0], caches[1], kv_lens, starts=integers(starts, first, torch.int64))


def whole(one: Sequence3, shape: Shape, page: int = 0, order: ReductionOrder = ORDER) -> Result:
    """Prefill of one sequence alone."""
    return chunk(one, 0, len(one[0]), shape, page, order)


def chunk(
    one: Sequence3,
    start: int,
    stop: int,
    shape: Shape,
    page: int = 0,
    order: ReductionOrder = ORDER,
) -> Result:
    """Prefill of rows ``start .. stop-1`` over the keys up to there."""
    q, k, v = one
    return attend_prefill(
        q[start:stop],
        lay([(q, k[:stop], v[:stop])], page),
        q_starts=integers([0], q),
        q_lens=integers([stop - start], q),
        max_q=stop - start,
        scale=shape.scale,
        order=order,
    )


def last_rows(
    sequences: Sequence[Sequence3],
    shape: Shape,
    page: int = 0,
    order: ReductionOrder = ORDER,
    slack: int = 0,
) -> Result:
    """Decode of the last query of every sequence, in one batch; ``slack`` more keys allowed for."""
    return attend_decode(
        torch.stack([q[-1] for q, _, _ in sequences]),
        lay(sequences, page),
        max_kv=max(len(k) for _, k, _ in sequences) + slack,
        scale=shape.scale,
        order=order,
    )


def expected_last(sequences: Sequence[Sequence3], shape: Shape) -> Result:
    """What ``last_rows`` must give: the last row of each sequence's own prefill."""
    rows = [whole(one, shape) for one in sequences]
    return torch.stack([out[-1] for out, _ in rows]), torch.stack([lse[-1] for _, lse in rows])


def operations(
    dtype: torch.dtype, device: str, rows: int = 300, width: int = 512, vocab: int = 5003
) -> dict[str, RowOp]:
    """Every operation beside attention as a function of the rows that it is given."""
    source = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source).to(dtype).to(device)

    def numbers(limit: int) -> Tensor:
        return torch.randint(limit, (rows,), generator=source).to(device)

    x, up, logits = draw(rows, width), draw(rows, width), draw(rows, vocab)
    weight, bias, head = draw(width + 8, width), draw(width + 8), draw(vocab, width)
    gain, heads, head_gain = draw(width), draw(rows, 3, 64), draw(64)
    ids, positions = numbers(vocab), numbers(4096)
    inv_freq = (10000.0 ** -(torch.arange(0, 64, 2) / 64)).float().to(device)
    return {
        "linear": lambda i: linear(x[i], weight, bias, order=ORDER),
        "linear, float32 out": lambda i: linear(
            x[i], head, None, order=ORDER, out_dtype=torch.float32
        ),
        "rms_norm": lambda i: rms_norm(x[i], gain, 1e-6),
        "rms_norm of heads": lambda i: rms_norm(heads[i], head_gain, 1e-6),
        "rope": lambda i: rope(heads[i], positions[i], inv_freq),
        "swiglu": lambda i: swiglu(x[i], up[i]),
        "embed": lambda i: embed(ids[i], head),
        "logprob": lambda i: logprob(logits[i], ids[i], 0.7),
        "digest": lambda i: row_digest(x[i], twin=False),
    }


def row_faults(op: RowOp, rows: int, singles: Iterable[int], device: str) -> list[str]:
    """Where a row's bits depend on how many rows there are, on its place or on its neighbours."""

    def run(chosen: Sequence[int]) -> Tensor:
        return op(torch.tensor(list(chosen), dtype=torch.int64, device=device))

    everything = run(range(rows))
    groups = {f"row {i} alone": [i] for i in singles}
    groups |= {
        "backwards": list(range(rows))[::-1],
        "one place further": [rows - 1, *range(rows - 1)],
        "a part": list(range(rows // 3, rows)),
        "one row many times": [rows // 2] * rows,
    }
    faults = []
    for name, chosen in groups.items():
        picked = everything[torch.tensor(chosen, dtype=torch.int64, device=device)]
        if wrong := unequal(run(chosen), picked):
            faults.append(f"{name}: {wrong} elements")
    return faults


def fingerprint(results: Iterable[Result]) -> str:
    """A hash of the bits of results."""
    digest = hashlib.sha256()
    for pair in results:
        for x in pair:
            digest.update(bits(x).cpu().numpy().tobytes())
    return digest.hexdigest()


def fingerprints(device: str, lengths: Sequence[int] = (65, 257)) -> dict[str, str]:
    """Fingerprints of prefill and decode in every format."""
    shape, found = Shape(), {}
    for dtype in DTYPES:
        data = [sequence(n, shape, dtype, n, device) for n in lengths]
        name = str(dtype).removeprefix("torch.")
        found[f"prefill {name}"] = fingerprint(whole(one, shape) for one in data)
        found[f"decode {name}"] = fingerprint([last_rows(data, shape)])
    return found


if __name__ == "__main__":
    print(json.dumps(fingerprints(sys.argv[1], [int(n) for n in sys.argv[2:]] or (65, 257))))
