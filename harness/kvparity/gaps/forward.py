"""One forward pass over a few sequences, laid out as settings say, and the logprobs of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.rollouts.record import Ids, Logprobs, Rollout, Sampling

CHUNK = 4096
"""Columns of the vocabulary at once, where log_softmax is ``chunked``."""


@dataclass(frozen=True)
class TokenBatch:
    """What a model is called with, int64 ``[B, T]``, and where each sequence's rows are.

    ``places``: for each sequence its row and the column of its first token.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor | None
    places: tuple[tuple[int, int], ...]

    def rows_of(self, sequences: Sequence[Ids]) -> list[slice]:
        """Where the tokens of each lie in ``[B * T]``."""
        starts = (row * self.input_ids.shape[1] + first for row, first in self.places)
        return [slice(at, at + ids.size) for at, ids in zip(starts, sequences, strict=True)]


def batch(sequences: Sequence[Ids], layout: str, *, position_ids: bool) -> TokenBatch:
    """Sequences as rows of their own, padded to the longest, or packed into one row."""
    rows = [torch.from_numpy(each) for each in sequences]
    counted = [torch.arange(row.numel()) for row in rows]
    if layout in ("alone", "packed"):
        starts = torch.tensor([0, *(row.numel() for row in rows)]).cumsum(0).tolist()
        return TokenBatch(
            torch.cat(rows)[None],
            None,
            torch.cat(counted)[None] if position_ids else None,
            tuple((0, start) for start in starts[:-1]),
        )
    width = max(row.numel() for row in rows)
    shape = (len(rows), width)
    ids, mask, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    places = []
    for at, row in enumerate(rows):
        first = width - row.numel() if layout == "left" else 0
        cut = slice(first, first + row.numel())
        ids[at, cut], mask[at, cut], positions[at, cut] = row, 1, counted[at]
        places.append((at, first))
    return TokenBatch(ids, mask, positions if position_ids else None, tuple(places))


def of_response(logits: Tensor, each: Rollout, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The rows that decide the response's tokens, ``[r, vocab]``, and these tokens, ``[r]``."""
    assert each.prompt_ids is not None
    assert each.response_ids is not None
    row, first = place
    start = first + each.prompt_ids.size - 1
    wanted = torch.from_numpy(each.response_ids).to(logits.device)
    return logits[row, start : start + each.response_ids.size], wanted


def logprobs(rows: Tensor, tokens: Tensor, log_softmax: str, sampling: Sampling | None) -> Logprobs:
    """Float32 ``[r]`` of ``rows [r, vocab]``; after temperature and top-p if ``sampling`` is given.

    The kept mass of top-p is the smallest set of most likely tokens that reaches it, as vLLM and
    SGLang have it; a token outside of it has -inf. At temperature 0, where the likeliest token is
    taken, logprobs are those of the model, as both have them.
    """
    if log_softmax != "logits":
        rows = rows.float()
    if sampling is not None:
        rows = _processed(rows, sampling)
    at = tokens[:, None]
    if log_softmax == "chunked":
        parts = [part.logsumexp(-1) for part in torch.split(rows, CHUNK, -1)]
        found = rows.gather(-1, at)[:, 0] - torch.stack(parts, -1).logsumexp(-1)
    else:
        found = rows.log_softmax(-1).gather(-1, at)[:, 0]
    values: Logprobs = found.float().cpu().numpy()
    return values


def _processed(rows: Tensor, sampling: Sampling) -> Tensor:
    if sampling.temperature is not None and sampling.temperature > 0:
        rows = rows / sampling.temperature
    if sampling.top_p is not None and sampling.top_p < 1:
        ranked, order = rows.sort(-1, descending=True)
        shares = ranked.float().softmax(-1)
        out = shares.cumsum(-1) - shares >= sampling.top_p
        rows = rows.masked_fill(out.scatter(-1, order, out), float("-inf"))
    return rows
