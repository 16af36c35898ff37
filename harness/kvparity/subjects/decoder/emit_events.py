"""What the decoder reports to a listener: keys as they are written, rows as they are attended.

What a row attended is read back through the ``KeysValues`` that the kernel was given, with the
window that it was given, so a wrong table, window, length or donor is reported as it is. Where a
planted function makes several kernel calls of one, or none, what it was given is reported instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import DecodeCall, Outputs, PrefillCall
from kvparity.subjects.decoder.batch import StepRows
from kvparity.subjects.decoder.read_back import keys_read
from kvparity.subjects.events import Attended, Computed, Listener, Wrote
from kvparity_kernels.stream import emit, heard


def wrote(listener: Listener, batch: StepRows, stored: int, k: Tensor, v: Tensor) -> None:
    """Report the fresh ``k``, ``v`` ``[tokens, kv_heads, head_dim]`` of a step, in span order."""
    at = 0
    for span in batch.step:
        stop = at + span.stop - span.start
        listener.wrote(Wrote(stored, span.sequence, span.start, k[at:stop], v[at:stop]))
        at = stop


def computed(batch: StepRows, operation: str, rows: Tensor) -> None:
    """Report what an operation gave each row ``[rows, ...]`` of the step, if somebody listens.

    A step that is traced has no names, and reports nothing.
    """
    if not batch.names or not heard(Computed):
        return
    places: list[tuple[str, int] | None] = [None] * len(rows)
    for span, first in zip(batch.step, batch.firsts, strict=True):
        name = batch.names[span.sequence]
        for position in range(span.start, span.stop):
            places[first + position - span.start] = name, position
    emit(Computed(operation, rows[None], [places]))


def wanted(batch: StepRows, operation: str, rows: Tensor, start: int) -> None:
    """The same of the wanted rows from number ``start`` on."""
    if heard(Computed):
        places = [(batch.names[span.sequence], p) for span in batch.step for p in span.rows]
        emit(Computed(operation, rows[None], [places[start : start + len(rows)]]))


def read(
    batch: StepRows,
    layer: int,
    spans: Sequence[int],
    handed: PrefillCall | DecodeCall,
    noted: Sequence[PrefillCall | DecodeCall],
) -> None:
    """Report the keys and values that an attention call reads, by sequence and position.

    And of each row the first key that it is given to see, and how many.
    """
    call = noted[0] if len(noted) == 1 and _alike(noted[0], handed) else handed
    lengths = call.kv.kv_lens.tolist()
    _keys_seen(batch, layer, spans, call, lengths)
    for number, index in enumerate(spans):
        stop = min(lengths[number], batch.step[index].stop)
        first = max(0, stop - call.kv.ring) if call.kv.ring else 0
        name = batch.names[batch.step[index].sequence]
        places = [[(name, position) for position in range(first, stop)]]
        found = keys_read(call.kv, number, first, stop, call.q.dtype)
        for part, rows in zip(("keys", "values"), found, strict=True):
            emit(Computed(f"layers.{layer} {part} read", rows[None], places, read=True))


def _keys_seen(
    batch: StepRows,
    layer: int,
    spans: Sequence[int],
    call: PrefillCall | DecodeCall,
    lengths: Sequence[int],
) -> None:
    decodes = isinstance(call, DecodeCall)
    ends = [1] * len(lengths) if isinstance(call, DecodeCall) else call.q_lens.tolist()
    places, seen = [], []
    for number, index in enumerate(spans):
        span = batch.step[index]
        for t, position in enumerate(range(span.start, span.stop)):
            length = lengths[number] - ends[number] + t + 1
            first = _first(call, number if decodes else batch.firsts[index] + t, length)
            places.append((batch.names[span.sequence], position))
            seen.append([first, length - first])
    rows = torch.tensor([seen], dtype=torch.float32)
    emit(Computed(f"layers.{layer} keys seen", rows, [places]))


def attended(
    listener: Listener,
    batch: StepRows,
    layer: int,
    spans: Sequence[int],
    handed: PrefillCall | DecodeCall,
    noted: Sequence[PrefillCall | DecodeCall],
    result: Outputs,
) -> None:
    """Report the rows that the listener wants of one attention call.

    ``handed`` is what the replaceable function was given, ``noted`` what kernels were given in it,
    ``result`` what came back for the rows of ``handed``.
    """
    call = handed
    if len(noted) == 1 and _alike(noted[0], handed):
        call = noted[0]
    decodes = isinstance(call, DecodeCall)
    lengths = call.kv.kv_lens.tolist()
    ends = [1] * len(lengths) if isinstance(call, DecodeCall) else call.q_lens.tolist()
    for number, index in enumerate(spans):
        span = batch.step[index]
        for position in listener.wants(span.sequence, range(span.start, span.stop)):
            t = position - span.start
            row = number if decodes else batch.firsts[index] + t
            length = lengths[number] - ends[number] + t + 1
            first = _first(call, number if decodes else row, length)
            k, v = keys_read(call.kv, number, first, length, call.q.dtype)
            out, lse = result
            listener.attended(
                Attended(
                    layer=layer,
                    sequence=span.sequence,
                    position=position,
                    told=int(batch.positions[batch.firsts[index] + t]),
                    length=length,
                    first=first,
                    q=call.q[row],
                    k=k,
                    v=v,
                    out=out[row],
                    lse=lse[row] if lse.shape[1] else None,  # SDPA returns none
                    scale=call.scale,
                    softcap=call.softcap,
                    sinks=call.sinks,
                    decode=decodes,
                )
            )


def _alike(one: PrefillCall | DecodeCall, other: PrefillCall | DecodeCall) -> bool:
    shapes = one.q.shape == other.q.shape and one.kv.batch == other.kv.batch
    return shapes and type(one) is type(other)


def _first(call: PrefillCall | DecodeCall, row: int, length: int) -> int:
    first = max(0, length - call.window) if call.window else 0
    return first if call.first_key is None else max(first, int(call.first_key[row]))
