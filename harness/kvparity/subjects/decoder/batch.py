"""One step as rows: where every token of every span stands, and which call attends for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.plan.schedule import Layout, Step
from kvparity.subjects.decoder.cache import KVCache, Visible
from kvparity.subjects.decoder.uncached import UncachedKeys

PAD_TOKEN = 0  # pad rows are really computed, from this token at position 0


@dataclass(frozen=True)
class Chunks:
    """The spans of one prefill call; span ``b`` owns rows ``q_starts[b] .. + q_lens[b]``.

    ``spans``: their numbers in the step.
    """

    q_starts: Tensor
    q_lens: Tensor
    max_q: int
    seen: Visible
    spans: tuple[int, ...] = ()


@dataclass(frozen=True)
class Singles:
    """The spans of one decode call; span ``b`` is row ``rows[b]``.

    ``spans``: their numbers in the step.
    """

    rows: Tensor
    max_kv: int
    seen: Visible
    spans: tuple[int, ...] = ()


@dataclass(frozen=True)
class StepRows:
    """The rows of a step. All tensors on the device.

    ``ids``, ``positions`` int64 ``[rows]``, pads included. ``tokens``: the rows that are no pads,
    int64 ``[n]`` (None: all); ``slots`` int64 ``[n]``: where their keys go, for each region of the
    cache. ``wanted``: the rows whose logits are wanted, in span order. ``step``: the spans, of
    which number ``i`` begins in row ``firsts[i]``. ``names``: the ids of all sequences.
    """

    ids: Tensor
    positions: Tensor
    tokens: Tensor | None
    slots: tuple[Tensor, ...]
    prefill: Chunks | None
    decode: Singles | None
    wanted: Tensor
    step: Step = ()
    firsts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


def pack(
    step: Step,
    ids: Sequence[Sequence[int]],
    cache: KVCache | UncachedKeys,
    layout: Layout,
    *,
    vocab: int,
    positions: int,
) -> StepRows:
    """Lay the spans of ``step`` out as rows: end to end, or as a rectangle padded left or right.

    Raises ``SubjectError`` for ids that do not fit their span, for a token outside ``vocab`` and
    for a position outside ``0 .. positions-1``.
    """
    _check(step, ids, vocab, positions)
    lengths = [span.stop - span.start for span in step]
    width = max(lengths)
    if layout.batch == "packed":
        total = sum(lengths)
        firsts = [sum(lengths[:i]) for i in range(len(step))]
    else:
        total = width * len(step)
        pads = [width - n if layout.batch == "left" else 0 for n in lengths]
        firsts = [i * width + pad for i, pad in enumerate(pads)]

    row_ids, row_positions = [PAD_TOKEN] * total, [0] * total
    tokens: list[int] = []
    wanted: list[int] = []
    for span, known, first, length in zip(step, ids, firsts, lengths, strict=True):
        told = span.start + span.position_shift
        row_ids[first : first + length] = known
        row_positions[first : first + length] = range(told, told + length)
        tokens.extend(range(first, first + length))
        wanted.extend(first + position - span.start for position in span.rows)

    def on_device(values: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(cache.device)

    def chosen(decode: bool) -> list[int]:
        return [i for i, span in enumerate(step) if span.decode == decode]

    def seen(spans: list[int]) -> Visible:
        return cache.visible([step[i].sequence for i in spans], [step[i].stop for i in spans])

    prefill, decode = None, None
    if chunks := chosen(False):
        prefill = Chunks(
            q_starts=on_device([firsts[i] for i in chunks], torch.int32),
            q_lens=on_device([lengths[i] for i in chunks], torch.int32),
            max_q=max(lengths[i] for i in chunks),
            seen=seen(chunks),
            spans=tuple(chunks),
        )
    if singles := chosen(True):
        decode = Singles(
            rows=on_device([firsts[i] for i in singles]),
            max_kv=max(step[i].stop for i in singles),
            seen=seen(singles),
            spans=tuple(singles),
        )
    return StepRows(
        ids=on_device(row_ids),
        positions=on_device(row_positions),
        tokens=None if len(tokens) == total else on_device(tokens),
        slots=cache.fresh_slots(step),
        prefill=prefill,
        decode=decode,
        wanted=on_device(wanted),
        step=step,
        firsts=tuple(firsts),
    )


def _check(step: Step, ids: Sequence[Sequence[int]], vocab: int, positions: int) -> None:
    if not step:
        raise SubjectError("a step without spans")
    if len(ids) != len(step):
        raise SubjectError(f"{len(step)} spans but ids for {len(ids)}")
    for span, known in zip(step, ids, strict=True):
        if len(known) != span.stop - span.start:
            raise SubjectError(f"span {span.start}..{span.stop} got {len(known)} token ids")
        if min(known) < 0 or max(known) >= vocab:
            raise SubjectError(
                f"token ids {min(known)}..{max(known)} do not fit the vocabulary of {vocab}"
            )
        low, high = span.start + span.position_shift, span.stop - 1 + span.position_shift
        if low < 0 or high >= positions:
            raise SubjectError(
                f"positions {low}..{high} (shift {span.position_shift}) are outside "
                f"0..{positions - 1}"
            )
