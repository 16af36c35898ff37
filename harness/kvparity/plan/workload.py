"""Workloads with their prompts filled in: what a rollout starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from kvparity.core.rng import stream
from kvparity_contracts.workloads import Workload

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Prompts:
    """One workload, ready to run: ``prompts[i]`` belongs to sequence ``ids[i]``."""

    name: str
    ids: tuple[str, ...]
    prompts: tuple[TokenIds, ...]
    generate: int
    pad: tuple[str, ...] = ()

    def length(self, sequence: int) -> int:
        """Prompt and continuation together."""
        return len(self.prompts[sequence]) + self.generate

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


def fill(workload: Workload, *, seed: int, vocab: int) -> Prompts:
    """Give every sequence of ``workload`` its id and its prompt.

    ``vocab`` 0 (an attention subject) needs no token ids, only lengths.

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
    return Prompts(
        name=workload.name,
        ids=tuple(f"{workload.name}/{i}" for i in range(len(prompts))),
        prompts=tuple(prompts),
        generate=workload.generate,
        pad=tuple(workload.pad),
    )
