"""Workloads with their prompts filled in: what a rollout starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from kvparity.core.rng import stream
from kvparity_contracts.chosen import Rows, choose
from kvparity_contracts.draws import ANYTHING, DrawMeans
from kvparity_contracts.workloads import Workload

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Prompts:
    """One workload, ready to run: ``prompts[i]`` belongs to sequence ``ids[i]``.

    ``rows[i]``: the rows of prompt i that are compared, beside those that generate; None where all
    rows are computed. A program computes ``block`` queries together.
    """

    name: str
    ids: tuple[str, ...]
    prompts: tuple[TokenIds, ...]
    generate: int
    pad: tuple[str, ...] = ()
    rows: tuple[Rows, ...] | None = None
    block: int = ANYTHING.block

    def compared(self, sequence: int) -> Sequence[int]:
        """The compared rows of one sequence."""
        generating = range(len(self.prompts[sequence]) - 1, self.length(sequence) - 1)
        return generating if self.rows is None else (*self.rows[sequence], *generating)

    def length(self, sequence: int) -> int:
        """Prompt and continuation together."""
        return len(self.prompts[sequence]) + self.generate

    @property
    def every_row(self) -> int:
        """Rows of all sequences that could be compared."""
        return sum(self.length(i) - 1 for i in range(len(self.prompts)))

    @property
    def longest(self) -> int:
        """The longest sequence, continuation included."""
        return max(self.length(i) for i in range(len(self.prompts)))


@cache
def _text() -> bytes:
    return resources.files("kvparity").joinpath("data/prompts.txt").read_bytes()


def text_tokens(seed: int, name: str, length: int) -> TokenIds:
    """``length`` bytes of real text, from a place that depends on (seed, name) alone."""
    text = _text()
    start = stream(seed, name, "prompt") % len(text)
    repeats = (start + length) // len(text) + 1
    return tuple((text * repeats)[start : start + length])


def fill(workload: Workload, *, seed: int, vocab: int, given: DrawMeans = ANYTHING) -> Prompts:
    """Give every sequence of ``workload`` its id and its prompt.

    ``vocab`` 0 (an attention subject) needs no token ids, only lengths. ``given``: the edges beside
    which rows are chosen.

    Raises:
        ValueError: an id outside the vocabulary, or text for a vocabulary under 256 (one id per
            byte).
    """
    prompts: list[TokenIds] = []
    for number, length in enumerate(workload.lengths()):
        name = f"{workload.name}/{number}"
        if workload.prompts is not None:
            prompts.append(tuple(workload.prompts[number]))
        elif workload.texts is not None:
            prompts.append(tuple(workload.texts[number].encode()))
        else:
            prompts.append(text_tokens(seed, name, length))
    if vocab:
        for number, prompt in enumerate(prompts):
            if max(prompt) >= vocab or min(prompt) < 0:
                raise ValueError(
                    f"workload {workload.name}: prompt {number} holds token id {max(prompt)}, "
                    f"but the subject's vocabulary has {vocab} ids; give prompts as ids below it"
                )
    ids = tuple(f"{workload.name}/{i}" for i in range(len(prompts)))
    pairs = zip(prompts, ids, strict=True)
    rows = tuple(choose(workload, len(prompt), name, seed, given) for prompt, name in pairs)
    return Prompts(
        name=workload.name,
        ids=ids,
        prompts=tuple(prompts),
        generate=workload.generate,
        pad=tuple(workload.pad),
        rows=None if workload.rows is None else rows,
        block=given.block,
    )
