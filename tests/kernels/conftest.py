"""What the kernel tests share: data, the paths of attention, and how results are compared.

``attention_cases`` is a plain module beside these tests.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

sys.path.insert(0, str(Path(__file__).parent))

_numbers = count()
Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SMALL = ReductionOrder(split=32, tile=16, block_m=16)


def bits(x: Tensor) -> Tensor:
    """The integer view of floats: what equality of bits means."""
    return x.contiguous().view(INTEGERS[x.element_size()])


def differing(a: Tensor, b: Tensor) -> int:
    """How many elements differ in bits, or are not finite in both (NaN equals nothing here)."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    bad = (bits(a) != bits(b)) | a.isnan() | b.isnan()
    return int(bad.sum())


@dataclass(frozen=True)
class Case:
    """Sequences of given lengths, keyed by (seed, sequence), and the shape of the attention."""

    lens: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    cache: torch.dtype | None = None
    heads: int = 4
    kv_heads: int = 2
    dim: int = 16
    order: ReductionOrder = SMALL
    seed: int = 0

    @property
    def scale(self) -> float:
        return self.dim**-0.5

    def rows(self, sequence: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of one sequence: [n, heads, dim]."""
        generator = torch.Generator().manual_seed(1000 * self.seed + sequence)
        n, cache = self.lens[sequence], self.cache or self.dtype

        def draw(heads: int) -> Tensor:
            return torch.randn(n, heads, self.dim, generator=generator)

        q, k, v = draw(self.heads), draw(self.kv_heads), draw(self.kv_heads)
        return q.to(self.dtype), k.to(cache), v.to(cache)


Span = tuple[int, int, int]  # sequence, start, stop


def lay(
    data: Sequence[tuple[Tensor, Tensor]], page: int, fill: float = float("nan"), seed: int = 0
) -> KeysValues:
    """Keys and values of each entry in one cache, contiguous with gaps or in shuffled pages.

    Everything that holds no key holds ``fill``.
    """
    lens = [k.shape[0] for k, _ in data]
    shape, dtype = data[0][0].shape[1:], data[0][0].dtype
    unit = page or 1
    pages = [-(-n // unit) for n in lens] if page else [n + 3 for n in lens]
    total = (sum(pages) + 2) * unit
    k, v = torch.full((2, total, *shape), fill, dtype=dtype).unbind(0)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(sum(pages) + 2, generator=generator).tolist()
    table = torch.zeros(len(lens), max([1, *pages]), dtype=torch.int32)
    starts, used = [], 0
    for b, (keys, values) in enumerate(data):
        starts.append(used + 1)
        for j in range(pages[b] if page else 1):
            at = places[used + j] * page if page else starts[b]
            piece = slice(j * page, (j + 1) * page) if page else slice(None)
            size = keys[piece].shape[0]
            k[at : at + size], v[at : at + size] = keys[piece], values[piece]
            table[b, j] = at // unit
        used += pages[b]
    kv_lens = torch.tensor(lens, dtype=torch.int32)
    if page:
        return KeysValues(k, v, kv_lens, block_table=table, page=page)
    return KeysValues(k, v, kv_lens, starts=torch.tensor(starts))


def prefill(case: Case, spans: Sequence[Span], attn: Any, page: int = 0) -> list[Any]:
    """One call over spans of sequences, their rows with a gap between them: (out, lse) of each."""
    data = [(case.rows(s)[1][:stop], case.rows(s)[2][:stop]) for s, _, stop in spans]
    starts, queries = [], []
    nan = torch.full((1, case.heads, case.dim), float("nan"), dtype=case.dtype)
    at = 0
    for s, start, stop in spans:
        queries += [nan, case.rows(s)[0][start:stop]]
        starts.append(at + 1)
        at += 1 + stop - start
    out, lse = attn.attend_prefill(
        torch.cat(queries),
        lay(data, page, seed=len(spans)),
        q_starts=torch.tensor(starts, dtype=torch.int32),
        q_lens=torch.tensor([stop - start for _, start, stop in spans], dtype=torch.int32),
        max_q=max(stop - start for _, start, stop in spans),
        scale=case.scale,
        order=case.order,
    )
    sizes = [stop - start for _, start, stop in spans]
    return [(out[a : a + n], lse[a : a + n]) for a, n in zip(starts, sizes, strict=True)]


def decode(
    case: Case, places: Sequence[tuple[int, int]], attn: Any, page: int = 0, slack: int = 0
) -> list[Any]:
    """One call with the row of each (sequence, position); ``slack`` more keys of capacity."""
    data = [(case.rows(s)[1][: t + 1], case.rows(s)[2][: t + 1]) for s, t in places]
    out, lse = attn.attend_decode(
        torch.stack([case.rows(s)[0][t] for s, t in places]),
        lay(data, page, seed=len(places)),
        max_kv=max(t + 1 for _, t in places) + slack,
        scale=case.scale,
        order=case.order,
    )
    return [(out[b : b + 1], lse[b : b + 1]) for b in range(len(places))]


def edges(case: Case, n: int) -> list[int]:
    """The positions around the edges of tiles and splits."""
    split, tile = case.order.split, case.order.tile
    near = {0, tile - 1, tile, split - 1, split, split + 1, 2 * split, n // 2, n - 1}
    return sorted(t for t in near if 0 <= t < n)


def compare(case: Case, attn: Any) -> dict[str, int]:
    """Every path against full prefill of each sequence alone: differing elements per path."""
    full = [prefill(case, [(s, 0, n)], attn)[0] for s, n in enumerate(case.lens)]
    bad: dict[str, int] = {}

    def check(path: str, spans: Sequence[Span], results: Sequence[Any]) -> None:
        for (s, start, stop), found in zip(spans, results, strict=True):
            for whole, part in zip(full[s], found, strict=True):
                bad[path] = bad.get(path, 0) + differing(whole[start:stop], part)

    everything = [(s, 0, n) for s, n in enumerate(case.lens)]
    check("ragged", everything, prefill(case, everything, attn))
    check("shuffled, paged", everything[::-1], prefill(case, everything[::-1], attn, page=8))
    for s, n in enumerate(case.lens):
        cuts = sorted({0, 1, 8, n // 3, n - 1, n} & set(range(n + 1)))
        chunks = [(s, a, b) for a, b in pairwise(cuts)]
        for number, chunk in enumerate(chunks):
            check("chunked", [chunk], prefill(case, [chunk], attn, page=16 * (number % 2)))
    places = [(s, t) for s, n in enumerate(case.lens) for t in edges(case, n)]
    spans = [(s, t, t + 1) for s, t in places]
    check("decode", spans, decode(case, places, attn))
    check("decode, shuffled, paged", spans[::-1], decode(case, places[::-1], attn, 16, slack=70))
    check("decode alone", spans[-1:], decode(case, places[-1:], attn, page=8))
    return bad


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    """The functions above, for test files (which cannot import a conftest)."""
    import kvparity_kernels.attention as attention

    return SimpleNamespace(
        attention=attention,
        bits=bits,
        differing=differing,
        Case=Case,
        lay=lay,
        prefill=prefill,
        decode=decode,
        compare=compare,
        SMALL=SMALL,
    )


@pytest.fixture
def mutate(
    tmp_path: Path, lab: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mutate]:
    """Import a copy of the attention package after replacements, each of which must apply."""

    def build(changes: dict[str, list[tuple[str, str]]]) -> Any:
        name = f"mutant_attention_{next(_numbers)}"
        home = tmp_path / name
        home.mkdir()
        source = Path(lab.attention.__file__).parent
        for path in source.rglob("*.py"):
            text, place = path.read_text(), path.relative_to(source)
            for old, new in changes.get(str(place), []):
                assert text.count(old) >= 1, f"{place} no longer holds {old!r}"
                text = text.replace(old, new)
            (home / place).parent.mkdir(exist_ok=True)
            (home / place).write_text(text.replace("kvparity_kernels.attention", name))
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield build
    for name in [name for name in sys.modules if name.startswith("mutant_attention_")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def run_compiler(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run a program beside these tests, with compiled kernels; what it printed as JSON."""
    here = Path(__file__).parent

    def run(program: str, *arguments: str) -> Any:
        environment = os.environ | {
            "TRITON_INTERPRET": "0",
            "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
            "PYTHONPATH": os.pathsep.join(
                str(here.parents[1] / name) for name in ("harness", "kernels", "contracts")
            ),
        }
        done = subprocess.run(
            [sys.executable, str(here / program), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
