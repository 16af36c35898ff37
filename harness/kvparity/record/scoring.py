"""What is kept of the rows that a subject gives: per token a few values and a digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core import doing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.plain_tensor import plain
from kvparity.core.words import some
from kvparity.subjects.base import Subject
from kvparity_kernels.digest import row_digest
from kvparity_kernels.overrides.watch import unwatched
from kvparity_kernels.relied import GoneError

Tokens = list[list[int]]
Choose = Callable[[int, int, Tensor], int]
"""(sequence, position, logits[vocab]) -> the token at ``position``."""


@contextmanager
def at_work(function: str = "the subject") -> Iterator[None]:
    """Around the subject's own code: what it raises becomes a ``SubjectError`` that says so.

    ``function``: what is called, for whoever waits for it.

    ``SystemExit`` and exceptions of its own making too, or a subject could choose kvparity's exit
    code. A generator that is closed early is no failure.
    """
    try:
        with doing.calling(function):
            yield
    except (SubjectError, UnsupportedError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except GoneError as error:  # not the subject's own fault, and said in whole
        raise SubjectError(str(error)) from error
    except BaseException as error:
        raise SubjectError.of("the subject", error) from error


@dataclass
class Scored:
    """What is kept of all rows, made at the first block, in the order in which rows come.

    In one piece from the start: small results that are kept one by one between large blocks of
    logits that are freed would let the memory of a process grow as if the logits were kept.
    """

    targets: Tensor
    values: Tensor
    digests: Tensor
    finite: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device) -> Scored:
        """Room for ``rows`` rows of ``width`` values."""
        return cls(
            targets=torch.zeros(rows, dtype=torch.int64, device=device),
            values=torch.full((rows, width), torch.nan, dtype=torch.float32, device=device),
            digests=torch.zeros(rows, dtype=torch.int64, device=device),
            finite=torch.zeros(rows, dtype=torch.bool, device=device),
        )


class RowScorer:
    """Scores blocks of rows as they come, so that no more than one block of logits is held.

    ``rows``: how many the plan asks for in all.
    """

    def __init__(
        self,
        subject: Subject,
        tokens: Tokens,
        temperatures: Sequence[float],
        choose: Choose | None,
        keep: frozenset[tuple[int, int]],
        rows: int,
    ) -> None:
        self.subject, self.tokens, self.temperatures = subject, tokens, temperatures
        self.choose, self.keep, self.rows = choose, keep, rows
        self.index: list[tuple[int, int]] = []
        self.scored: Scored | None = None
        self.kept: dict[tuple[int, int], Tensor] = {}

    def _target(self, sequence: int, position: int, row: Tensor) -> int:
        known = self.tokens[sequence]
        if position + 1 == len(known) and self.choose is not None:
            with unwatched():  # what draws a token is no part of the subject
                known.append(self.choose(sequence, position + 1, row))
        if position + 1 >= len(known):
            raise SubjectError(
                f"a row at position {position} of sequence {sequence} came too early: only "
                f"{len(known)} tokens are known"
            )
        return known[position + 1]

    def check(self, rows: Tensor) -> None:
        """Refuse rows that are no float matrix of the right width."""
        if not plain(rows):
            raise SubjectError(
                f"the subject gave rows as a {type(rows).__name__}, a tensor with functions of its "
                "own, which could compare itself; expected a plain torch.Tensor"
            )
        width = self.subject.vocab or (self.scored.values.shape[1] if self.scored else None)
        if rows.dim() != 2 or not rows.is_floating_point() or width not in (None, rows.shape[1]):
            raise SubjectError(
                f"the subject gave rows of shape {list(rows.shape)} in {rows.dtype}, expected "
                f"[rows, {width}] in a float format"
            )

    def add(self, where: Sequence[tuple[int, int]], rows: Tensor) -> None:
        """Take the rows ``[len(where), vocab]`` of the positions ``where``."""
        if self.subject.vocab:
            drawn = [self._target(s, p, row) for (s, p), row in zip(where, rows, strict=True)]
        else:
            drawn = [0] * len(where)
        targets = torch.tensor(drawn, dtype=torch.int64, device=rows.device)
        with at_work("values"):
            values = self.subject.values(rows, targets, self.temperatures)
        shape = (len(where), len(self.temperatures) if self.subject.vocab else rows.shape[1])
        if not plain(values) or tuple(values.shape) != shape or values.dtype != torch.float32:
            raise SubjectError(
                f"the subject gave values of shape {list(values.shape)} in {values.dtype} as a "
                f"{type(values).__name__}, expected {list(shape)} in float32 as a plain Tensor"
            )
        if self.scored is None:
            self.scored = Scored.empty(self.rows, values.shape[1], values.device)
        part = slice(len(self.index), len(self.index) + len(where))
        if part.stop > self.rows:
            raise SubjectError(
                f"the subject gave more than the {some(self.rows, 'row')} of the plan"
            )
        self.index.extend(where)
        self.scored.targets[part] = targets
        self.scored.values[part] = values
        self.scored.finite[part] = torch.isfinite(values).all(-1) & ~torch.isnan(rows).any(-1)
        self.scored.digests[part] = row_digest(rows)
        for number, place in enumerate(where):
            if place in self.keep:
                self.kept[place] = rows[number].detach().cpu().clone()
