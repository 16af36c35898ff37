"""Rows of a record from the answers of a subject that computes whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.subjects.base import WholeAnswer
from kvparity_kernels.digest import row_digest


@dataclass(frozen=True)
class AnsweredRows:
    """As in a record. There is no row of logits: the digest is that of the logprob alone."""

    index: tuple[tuple[int, int], ...]
    targets: Tensor
    values: Tensor
    digests: Tensor
    finite: Tensor


def by_answers(found: WholeAnswer, tokens: Sequence[list[int]]) -> AnsweredRows:
    """All compared rows, in order; drawn tokens are appended to ``tokens`` where these end.

    Raises:
        SubjectError: the answer leaves out a token between those that are known and compared.
    """
    index: list[tuple[int, int]] = []
    targets, values = [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    for sequence, answer in sorted(found.sequences.items()):
        known = tokens[sequence]
        for position, token in zip(answer.rows, answer.targets.tolist(), strict=True):
            if position + 1 == len(known):
                known.append(token)
            elif position + 1 > len(known):
                raise SubjectError(f"no token is known before position {position + 1}")
        index += [(sequence, position) for position in answer.rows]
        targets.append(answer.targets)
        values.append(answer.values)
    column = torch.cat(values)[:, None]
    return AnsweredRows(
        tuple(index),
        torch.cat(targets),
        column,
        row_digest(column),
        torch.isfinite(column).all(-1),
    )
